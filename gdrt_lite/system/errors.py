"""Raised for problems of the environment: network, disk, damaged files. Wrong arguments raise ValueError: network, disk, a damaged file. Wrong arguments are ValueErrors."""


class GdrtError(RuntimeError):
    """Something outside the call failed; the message says what, and what to do about it."""
