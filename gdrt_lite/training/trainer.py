"""transformers' Trainer with the objective as its loss. Derived in notebook 06, section 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback

from gdrt_lite.lm import batch_logprobs
from gdrt_lite.objectives import Objective
from gdrt_lite.system.errors import GdrtError
from gdrt_lite.training.batches import SeededChunks, SeededLengthGroups


class TrainingDiverged(GdrtError):
    """The loss became NaN or infinite."""


class GroupTrainer(Trainer):
    """transformers' Trainer with one thing changed: the loss of a batch."""

    def __init__(self, objective: Objective, **settings: Any) -> None:
        super().__init__(**settings)
        self.objective = objective
        self.model_accepts_loss_kwargs = False
        self._group_log: dict[str, float] = {}

    def _get_train_sampler(self, train_dataset: torch.utils.data.Dataset | None = None) -> torch.utils.data.Sampler:
        rows, chunks = self.train_dataset.rows, self.train_dataset.chunks
        if 2 * len(chunks) <= len(rows):  # growing windows: read what a user's examples share once
            return SeededChunks(chunks, self.args.seed)
        # By what stands before the target: grouped by the whole length, a batch's labels would be targets of one length.
        return SeededLengthGroups(self.args.train_batch_size, [row.predict_at[0] for row in rows], self.args.seed)

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """-log P of every target token of the batch, weighted by the objective."""
        group_ids = inputs.pop("group_ids")
        if self.objective.ema is not None and self.objective.estimate is None and self.state.log_history:
            self._restore_estimate()
        token_losses = -batch_logprobs(model, inputs)
        if not torch.isfinite(token_losses).all():
            kept = newest_checkpoint(self.args.output_dir)
            raise TrainingDiverged(
                f"the loss is {token_losses.mean().item()} at step {self.state.global_step + 1}. Lower the learning rate "
                f"(it is {self.args.learning_rate:g}) or raise tau. "
                + (f"The last good checkpoint is {kept}." if kept else "No checkpoint had been saved.")
            )
        loss, self._group_log = self.objective(token_losses, group_ids)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the groups' losses and weights to what is logged at each step."""
        if "loss" in logs:
            logs = {"step": self.state.global_step, **logs, **self._group_log}
        super().log(logs, start_time)

    def _restore_estimate(self) -> None:
        last = next((row for row in reversed(self.state.log_history) if "estimate_g0" in row), None)
        if last:
            self.objective.estimate = torch.tensor([last[f"estimate_g{g}"] for g in range(self.objective.n_groups)])


class ProgressBar(TrainerCallback):
    """One progress bar over the steps, with the loss beside it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the bar at the step where the training starts."""
        self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc=f"train ({self.name})", unit="step")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advance the bar."""
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict | None = None, **_: Any) -> None:
        """Show the newest loss."""
        if logs and "loss" in logs:
            self.bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the bar."""
        self.bar.close()


def newest_checkpoint(folder: str | Path | None) -> str | None:
    """Path of the checkpoint with the most steps in a folder; None where there is none."""
    from transformers.trainer_utils import get_last_checkpoint

    return get_last_checkpoint(str(folder)) if folder is not None and Path(folder).is_dir() else None
