"""Raised for problems of the environment: network, disk, damaged files. Wrong arguments raise ValueError."""


class GdrtError(RuntimeError):
    """Something outside the call failed; the message says what, and what to do about it."""
