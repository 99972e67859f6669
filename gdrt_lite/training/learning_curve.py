"""What a training looks like along the way: figures of the model after each epoch, and the log of its steps made short.

Its figures are in data/results/archive/REPORT.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pandas as pd
from transformers import TrainerCallback

from gdrt_lite.lm import LanguageModel


class LearningCurve(TrainerCallback):
    """Measures the model after each whole epoch.

    The rows lie in the trainer's own log until the end, so that a checkpoint keeps them and a resumed training has them all.

    Args:
        lm: the model that is tuned: its tokenizer and prompt.
        measure: from a model to its figures, by name. It must not draw random numbers, or it would change the training.

    Attributes:
        rows: after the training, one per epoch: epoch, step, and the figures.
    """

    def __init__(self, lm: LanguageModel, measure: Callable[[LanguageModel], dict[str, float]]) -> None:
        self.lm, self.measure = lm, measure
        self.rows: list[dict[str, float]] = []

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, train_dataloader: Any = None, **_: Any
    ) -> None:
        """Measure at the last step of an epoch, before a checkpoint of that step is written."""
        steps = -(-len(train_dataloader) // args.gradient_accumulation_steps)  # of an epoch
        if state.global_step % steps:
            return
        figures = self.measure(dataclasses.replace(self.lm, model=model.eval()))
        model.train()
        place = {"curve_epoch": state.global_step // steps, "curve_step": state.global_step}
        state.log_history.append(place | figures)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the rows out of the log."""
        self.rows = [
            {name.removeprefix("curve_"): value for name, value in row.items()}
            for row in state.log_history
            if "curve_epoch" in row
        ]


def downsample(history: pd.DataFrame, rows: int = 100) -> pd.DataFrame:
    """The log of a training in at most `rows` rows: means over runs of steps, each named by its last step.

    Args:
        history: of `training.TuningResult`: step, loss, and further numbers; absent values (NaN) are left out of the means.
        rows: at least 1.

    Raises:
        ValueError: rows below 1.
    """
    if rows < 1:
        raise ValueError(f"rows={rows} is too few: a downsample log has at least one.")
    length = -(-len(history) // rows)
    if length <= 1:
        return history.copy()
    run = pd.RangeIndex(len(history)) // length
    return history.groupby(run).mean().assign(step=history.groupby(run)["step"].max())
