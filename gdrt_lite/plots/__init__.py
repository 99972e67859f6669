"""Figures of the course: one function per figure."""

from gdrt_lite.plots.figures import *  # noqa: F403
from gdrt_lite.plots.figures import __all__ as __all__
