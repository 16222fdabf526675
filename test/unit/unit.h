/*
 * unit.h
 *		Checks for the programs of test/unit: pure parts of the extension, called
 *		without a server.
 *
 * A program is one test_*.c.  Its first line names what is compiled with it:
 *		with: src/net/outcome.c src/net/qdrant_json.c
 * in a comment.  palloc and StringInfo come from PostgreSQL's libpgcommon, what
 * only a server has from server.c; an ereport(ERROR) ends the program.
 */
#ifndef QS_UNIT_H
#define QS_UNIT_H

#include <stdbool.h>

typedef struct UnitTest
{
	const char *name;
	void		(*run) (void);
} UnitTest;

#define UNIT_TEST(function) {#function, function}

/* Notes a failure and goes on with the test. */
#define CHECK(condition) unit_check((condition), #condition, __FILE__, __LINE__)
#define CHECK_INT(actual, expected) \
	unit_check_int((actual), (expected), #actual, __FILE__, __LINE__)
#define CHECK_TEXT(actual, expected) \
	unit_check_text((actual), (expected), #actual, __FILE__, __LINE__)

extern void unit_check(bool holds, const char *what, const char *file, int line);
extern void unit_check_int(long long actual, long long expected, const char *what,
						   const char *file, int line);
extern void unit_check_text(const char *actual, const char *expected, const char *what,
							const char *file, int line);

/* Runs them all, says which failed, and returns the exit code. */
extern int	unit_main(const UnitTest *tests, int n);

#define UNIT_MAIN(tests) \
	int \
	main(void) \
	{ \
		return unit_main(tests, sizeof(tests) / sizeof((tests)[0])); \
	}

#endif							/* QS_UNIT_H */
