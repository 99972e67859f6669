"""transformers' Trainer with the objective as its loss. Derived in notebook 06, section 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback

from gdrt_lite import dro
from gdrt_lite.lm import batch_logprobs
from gdrt_lite.objectives import Objective, Step
from gdrt_lite.system.errors import GdrtError
from gdrt_lite.training.batches import SeededChunks, SeededLengthGroups
from gdrt_lite.training.checkpoints import newest_checkpoint


class TrainingDiverged(GdrtError):
    """The loss became NaN or infinite."""


class GroupTrainer(Trainer):
    """transformers' Trainer with one thing changed: the loss of an optimiser step.

    A step is the same however it is divided over processes and, with `gradient_accumulation_steps`, over micro-batches. Its
    group losses L(g), weights and means over tokens are those of all its examples, its gradient that of one large batch.
    With several micro-batches an objective with weights reads them twice, first without gradients, since the weights of the
    first depend on the losses of the last. That is one more forward pass; where a step is one batch it costs nothing.
    """

    def __init__(self, objective: Objective, **settings: Any) -> None:
        super().__init__(**settings)
        self.objective = objective
        self.model_accepts_loss_kwargs = False
        self._group_log: dict[str, float] = {}
        self._batches: list[dict] = []  # the micro-batches of the step
        self._step: Step | None = None  # known before the first gradient, where there are several
        self._seen: Any = 0.0  # sums and counts of the step so far, (2, K)

    def _get_train_sampler(self, train_dataset: torch.utils.data.Dataset | None = None) -> torch.utils.data.Sampler:
        rows, chunks = self.train_dataset.rows, self.train_dataset.chunks
        held = self.args.train_batch_size * self.args.world_size
        multiple = held if self.args.world_size > 1 else 1
        if 2 * len(chunks) <= len(rows):  # growing windows: read what a user's examples share once
            return SeededChunks(chunks, self.args.seed, multiple)
        # By what stands before the target: grouped by the whole length, a batch's labels would be targets of one length.
        lengths = [row.predict_at[0] for row in rows]
        return SeededLengthGroups(held * self.args.gradient_accumulation_steps, lengths, self.args.seed, multiple)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of the next step."""
        self._batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step, self._seen = None, 0.0
        return self._batches, items

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The share of one micro-batch in the loss of its step."""
        if self.objective.ema is not None and self.objective.estimate is None and self.state.log_history:
            self._restore_estimate()
        if len(self._batches) > 1 and self._step is None:
            self._step = self.objective.step(*self._look_ahead(model))
        token_losses, group_ids = self._token_losses(model, inputs)
        total = self._summed(self._sums(token_losses.detach(), group_ids))
        step = self._step or self.objective.step(*total)
        self._seen = self._seen + total
        sums, counts = self._seen
        self._group_log = self.objective.log(sums, counts, step)
        # Processes are averaged and micro-batches divided by their number, but shares are to be added.
        parts = self.accelerator.num_processes * max(1, len(self._batches))
        return self.objective.share(token_losses, group_ids, step) * parts

    def _token_losses(self, model: torch.nn.Module, inputs: dict) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss and group of each target token, both (N,); those of fillers are left out."""
        group_ids = inputs["group_ids"]
        losses = -batch_logprobs(model, {name: value for name, value in inputs.items() if name != "group_ids"})
        losses = self.objective.of_tokens(losses)
        return losses[group_ids >= 0], group_ids[group_ids >= 0]

    def _sums(self, token_losses: torch.Tensor, group_ids: torch.Tensor) -> torch.Tensor:
        return torch.stack(dro.group_sums(token_losses, group_ids, self.objective.n_groups))

    def _summed(self, sums: torch.Tensor) -> torch.Tensor:
        """Sums and counts of the groups, (2, K), added over the processes; all of them stop where one has diverged."""
        total = self.accelerator.reduce(sums, "sum")
        if not torch.isfinite(total).all():
            kept = newest_checkpoint(self.args.output_dir)
            raise TrainingDiverged(
                f"the loss is {float(total[0].sum() / total[1].sum())} at step {self.state.global_step + 1}. Lower the "
                f"learning rate (it is {self.args.learning_rate:g}) or raise tau. "
                + (f"The last good checkpoint is {kept}." if kept else "No checkpoint had been saved.")
            )
        return total

    def floating_point_ops(self, inputs: dict) -> int:
        """Not estimated: transformers would count padding as well."""
        return 0

    def _look_ahead(self, model: torch.nn.Module) -> torch.Tensor:
        """Sums and counts of all micro-batches of the step, (2, K); where no weights need them, the sums are 0."""
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):  # so that dropout draws the same masks again
            parts = []
            for batch in map(self._prepare_inputs, self._batches):
                if self.objective.spec.weights is None:
                    ids = batch["group_ids"][batch["group_ids"] >= 0]
                    parts.append(self._sums(torch.zeros_like(ids, dtype=torch.float32), ids))
                else:
                    parts.append(self._sums(*self._token_losses(model, batch)))
        return self._summed(torch.stack(parts).sum(0))

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
