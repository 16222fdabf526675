"""What bench/run measures: one module for each side of the extension, one function for each row of the table."""
