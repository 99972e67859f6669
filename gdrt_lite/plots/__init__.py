"""Figures of the course: one function per figure."""

from gdrt_lite.plots.canvas import save, show
from gdrt_lite.plots.figures import (
    accuracy_intervals,
    cooccurrence_by_segment,
    differences,
    faa_by_segment,
    forest,
    group_sizes,
    learning_curve,
    relevance_distribution,
    token_heatmap,
    training_curves,
    unfairness_bars,
    weights_over_tau,
)

__all__ = [
    "accuracy_intervals",
    "cooccurrence_by_segment",
    "differences",
    "faa_by_segment",
    "forest",
    "group_sizes",
    "learning_curve",
    "relevance_distribution",
    "save",
    "show",
    "token_heatmap",
    "training_curves",
    "unfairness_bars",
    "weights_over_tau",
]
