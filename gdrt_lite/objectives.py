"""What is minimised: a batch's token losses, weighted by group (arXiv 2510.10978, Eq. 4 and 5).

Each control differs from GDRT in one word. Derived in notebook 06, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from gdrt_lite import dro

OBJECTIVES = {
    "sft": "mean over tokens: plain supervised fine-tuning",
    "balanced": "uniform weights over the groups: the grouping without the DRO",
    "gdrt": "weights Q* proportional to P exp(L/tau): the paper's method",
    "reversed": "weights proportional to P exp(-L/tau): the noise-amplification test",
    "random": "as gdrt, with the groups shuffled over the tokens",
    "item": "as gdrt, with one group for all tokens of a title",
}


@dataclass
class Objective:
    """The loss of a batch, given its token losses and their groups (arXiv 2510.10978, Eq. 4 and 5).

    Args:
        name: one of `OBJECTIVES`.
        n_groups: K.
        tau: temperature of the weights, in nats.
        prior: P(g), shape (K,); None is uniform.
        ema: None weighs by the batch's own group losses; a decay in (0, 1) by their running mean.
    """

    name: str
    n_groups: int
    tau: float = 1.0
    prior: torch.Tensor | None = None
    ema: float | None = None
    estimate: torch.Tensor | None = field(default=None, repr=False)  # running mean of L(g); NaN where never seen

    def __post_init__(self) -> None:
        check_objective(self.name)
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema={self.ema} is out of range: a decay lies between 0 and 1, for example 0.9.")
        # The weights' own check of tau, before any training.
        dro.group_weights(torch.zeros(self.n_groups), self.tau, self.prior)

    def __call__(self, token_losses: torch.Tensor, group_ids: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss (scalar, nats) and what to log: loss and weight of each group.

        Args:
            token_losses: cross-entropy per target token, shape (N,), nats.
            group_ids: group of each token, shape (N,).
        """
        losses, counts = dro.group_losses(token_losses, group_ids, self.n_groups)
        present, detached = counts > 0, losses.detach()
        weights = self._weights(detached, counts, present)
        loss = token_losses.mean() if self.name == "sft" else (weights * losses).sum()
        log = {f"loss_g{g}": float(x) for g, x in enumerate(detached.masked_fill(~present, float("nan")))}
        log |= {f"weight_g{g}": float(w) for g, w in enumerate(weights)}
        if self.estimate is not None:
            log |= {f"estimate_g{g}": float(x) for g, x in enumerate(self.estimate)}
        return loss, log

    def _weights(self, losses: torch.Tensor, counts: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        if self.name == "sft":
            return counts / counts.sum()
        if self.name == "balanced":
            return present / present.sum()
        if self.ema is not None:
            before = torch.full_like(losses, float("nan")) if self.estimate is None else self.estimate.to(losses)
            self.estimate = dro.ema_update(before, losses, present, self.ema)
            losses = torch.where(present, self.estimate, losses)
        weigh = dro.reversed_group_weights if self.name == "reversed" else dro.group_weights
        return weigh(losses, self.tau, self.prior, present)


def check_objective(name: str) -> None:
    """Raise a ValueError that lists the objectives when `name` is none of them."""
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}; choose one of {', '.join(OBJECTIVES)}.")
