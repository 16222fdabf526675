"""Waiting for a condition, with a limit and a message that says what was waited for."""

import time


def wait_until(cond, timeout=30, what="", interval=0.02):
    """The first true value of cond(). An exception of cond counts as not yet, and is shown if it stays so."""
    deadline = time.monotonic() + timeout
    while True:
        last, error = None, None
        try:
            last = cond()
            if last:
                return last
        except Exception as e:  # noqa: BLE001 - a server that is starting refuses in many ways
            error = e
        if time.monotonic() >= deadline:
            subject = what() if callable(what) else what or getattr(cond, "__name__", "the condition")
            raise TimeoutError(f"after {timeout} s still not: {subject} (last: {error or last!r})") from error
        time.sleep(interval)


def stays(cond, seconds, what="", interval=0.05):
    """Asserts that cond() is true for the whole of that time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = cond()
        assert value, f"did not stay so: {what or 'the condition'} (now {value!r})"
        time.sleep(interval)
