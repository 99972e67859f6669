"""Raised for problems of the environment: network, disk, damaged files. Wrong arguments raise ValueError."""


class GdrtError(RuntimeError):
    """Something outside the call failed; the message says what, and what to do about it."""


def first_line(error: Exception) -> str:
    """The first line of what another library says, or the name of its error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
