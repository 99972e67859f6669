"""What training minimises: the token losses of a batch, weighted by group (arXiv 2510.10978, Eq. 4 and 5).

Each control differs from GDRT in one entry of `OBJECTIVES`. Derived in notebook 06, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from gdrt_lite import dro, groups

GROUPING = ("n_groups", "scorer")  # settings of a `study.config.Config` that shape the groups
WEIGHING = ("tau", "prior", "ema")  # settings that shape the weights, given the groups


@dataclass(frozen=True)
class BatchGroups:
    """What an objective may weigh by: the groups of one batch, detached from the graph.

    Attributes:
        losses: L(g), shape (K,), nats: those of the batch, or their running mean where an `ema` is set.
        counts: tokens of each group in the batch, shape (K,).
        present: whether the batch holds the group, shape (K,), bool.
        tau: temperature, nats.
        prior: P(g), shape (K,), or None for a uniform one.
        sizes: training tokens of each group, shape (K,), or None where they are unknown.
        parameters: the objective's own parameters, by name.
    """

    losses: torch.Tensor
    counts: torch.Tensor
    present: torch.Tensor
    tau: float
    prior: torch.Tensor | None
    parameters: Mapping[str, float]
    sizes: torch.Tensor | None = None


@dataclass(frozen=True)
class ObjectiveSpec:
    """One entry of the registry.

    Attributes:
        description: one line for tables and for the command line.
        weights: from the groups of a batch to Q, shape (K,), which sums to 1; None is the plain mean over tokens.
        level: "token", "item" where all tokens of a title share a group, or "open" for `groups.by_openness`.
        shuffled: whether the tokens are dealt at random into groups of equal size.
        token_loss: changes the loss of each token, shape (N,), given the objective's parameters.
        legal: whether the softmax is taken over the tokens that the catalogue allows alone.
        uses: the settings that change the result; cells that differ in other settings may be compared.
        parameters: parameters of the objective's own, with their defaults.
    """

    description: str
    weights: Callable[[BatchGroups], torch.Tensor] | None
    level: str = "token"
    shuffled: bool = False
    uses: tuple[str, ...] = GROUPING + WEIGHING
    parameters: Mapping[str, float] = field(default_factory=dict)
    token_loss: Callable[[torch.Tensor, Mapping[str, float]], torch.Tensor] | None = None
    legal: bool = False


def _gdrt(batch: BatchGroups) -> torch.Tensor:
    return dro.group_weights(batch.losses, batch.tau, batch.prior, batch.present)


def _reversed(batch: BatchGroups) -> torch.Tensor:
    return dro.reversed_group_weights(batch.losses, batch.tau, batch.prior, batch.present)


def _balanced(batch: BatchGroups) -> torch.Tensor:
    return batch.present / batch.present.sum()


def _inverse(batch: BatchGroups) -> torch.Tensor:
    if batch.sizes is None:
        raise ValueError("the objective 'inverse' needs Objective.sizes, the training tokens of each group.")
    weight = batch.counts / batch.sizes.to(batch.losses).clamp(min=1)
    return weight / weight.sum()


def _open_only(batch: BatchGroups) -> torch.Tensor:
    return (batch.present & (torch.arange(len(batch.present)).to(batch.present.device) == 0)).to(batch.losses)


def _focal(losses: torch.Tensor, parameters: Mapping[str, float]) -> torch.Tensor:
    return (1 - (-losses).exp()) ** parameters["gamma"] * losses


OBJECTIVES = {
    "sft": ObjectiveSpec("mean over tokens: plain supervised fine-tuning", None, uses=()),
    "balanced": ObjectiveSpec("uniform weights over the groups: the grouping without the DRO", _balanced, uses=GROUPING),
    "gdrt": ObjectiveSpec("weights Q* proportional to P exp(L/tau): the paper's method", _gdrt),
    "reversed": ObjectiveSpec("weights proportional to P exp(-L/tau): the noise-amplification test", _reversed),
    "random": ObjectiveSpec("as gdrt, with the tokens dealt at random into groups of equal size", _gdrt, shuffled=True),
    "item": ObjectiveSpec("as gdrt, with one group for all tokens of a title", _gdrt, level="item"),
    "sft-at-nll": ObjectiveSpec("sft, stopped where its item NLL on valid users is that of gdrt", None, uses=()),
    "forced": ObjectiveSpec("sft without the tokens that the catalogue forces", _open_only, level="open", uses=()),
    "msl": ObjectiveSpec(
        "sft with the softmax over the catalogue's legal tokens (arXiv 2504.04178)", None, uses=(), legal=True
    ),
    "focal": ObjectiveSpec(
        "sft with each token's loss times (1 - p)^gamma", None, uses=(), parameters={"gamma": 2.0}, token_loss=_focal
    ),
    "inverse": ObjectiveSpec("each token weighs 1 / the training share of its group", _inverse, uses=GROUPING),
}


@dataclass(frozen=True)
class Step:
    """What all parts of one optimiser step have in common: its processes, and the micro-batches of each.

    Attributes:
        counts: N(g), tokens of each group in the whole step, shape (K,).
        weights: Q of the whole step, shape (K,), detached from the graph.
    """

    counts: torch.Tensor
    weights: torch.Tensor


@dataclass
class Objective:
    """The loss of a batch, given its token losses and their groups (arXiv 2510.10978, Eq. 4 and 5).

    Args:
        name: one of `OBJECTIVES`.
        n_groups: K.
        tau: temperature of the weights, in nats.
        prior: P(g), K numbers; None is uniform.
        ema: None weighs by the batch's own group losses; a decay in (0, 1) by their running mean.
        parameters: replaces defaults of `ObjectiveSpec.parameters`.

    Raises:
        ValueError: an unknown objective or parameter, or a tau, prior or ema out of range.
    """

    name: str
    n_groups: int = 5
    tau: float = 1.0
    prior: Any = None
    ema: float | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)
    sizes: Any = field(default=None, repr=False)  # training tokens of each group, (K,); `finetune` fills it in
    estimate: torch.Tensor | None = field(default=None, repr=False)  # running mean of L(g); NaN where never seen

    def __post_init__(self) -> None:
        self.spec = check_objective(self.name)
        unknown = sorted(set(self.parameters) - set(self.spec.parameters))
        if unknown:
            known = ", ".join(self.spec.parameters) or "none"
            raise ValueError(f"objective {self.name!r} has no parameter {unknown[0]!r}; its parameters are: {known}.")
        self.parameters = {**self.spec.parameters, **self.parameters}
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema={self.ema} is out of range: a decay lies between 0 and 1, for example 0.9.")
        self.prior = None if self.prior is None else torch.as_tensor(self.prior)
        # The weights' own check of tau and prior, before any training.
        dro.group_weights(torch.zeros(self.n_groups), self.tau, self.prior)

    def __call__(self, token_losses: torch.Tensor, group_ids: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss (scalar, nats) and what to log: loss and weight of each group.

        Args:
            token_losses: cross-entropy per target token, shape (N,), nats.
            group_ids: group of each token, shape (N,).
        """
        token_losses = self.of_tokens(token_losses)
        sums, counts = dro.group_sums(token_losses, group_ids, self.n_groups)
        step = self.step(sums.detach(), counts)
        return self.share(token_losses, group_ids, step), self.log(sums.detach(), counts, step)

    def of_tokens(self, cross_entropy: torch.Tensor) -> torch.Tensor:
        """The losses of tokens that the objective takes for their cross-entropy, both (N,), nats."""
        change = self.spec.token_loss
        return cross_entropy if change is None else change(cross_entropy, self.parameters)

    def step(self, sums: torch.Tensor, counts: torch.Tensor) -> Step:
        """The weights of an optimiser step, from S(g) and N(g) of all its tokens, each (K,); moves the running mean on."""
        if self.spec.weights is None:
            return Step(counts, counts / counts.sum())
        present = counts > 0
        known = self._running_mean(sums / counts.clamp(min=1), present)
        sizes = None if self.sizes is None else torch.as_tensor(self.sizes)
        batch = BatchGroups(known, counts, present, self.tau, self.prior, self.parameters, sizes)
        return Step(counts, self.spec.weights(batch))

    def share(self, token_losses: torch.Tensor, group_ids: torch.Tensor, step: Step) -> torch.Tensor:
        """What some tokens of a step add to its loss, a scalar in nats: sum_g Q(g) S_p(g) / N(g).

        Q and N are those of the whole step, S_p those of the tokens given. The shares of all parts add up to the loss, and
        their gradients to its gradient; no token at all adds 0. Derived in notebook 08, section 5.
        """
        if self.spec.weights is None:
            return token_losses.sum() / step.counts.sum()
        sums, _ = dro.group_sums(token_losses, group_ids, self.n_groups)
        return (step.weights * (sums / step.counts.clamp(min=1))).sum()

    def log(self, sums: torch.Tensor, counts: torch.Tensor, step: Step) -> dict[str, float]:
        """What to log of a step: loss (NaN where absent), weight and running mean of each group."""
        losses = (sums / counts.clamp(min=1)).masked_fill(counts == 0, float("nan"))
        log = {f"loss_g{g}": float(x) for g, x in enumerate(losses)}
        log |= {f"weight_g{g}": float(w) for g, w in enumerate(step.weights)}
        if self.estimate is not None:
            log |= {f"estimate_g{g}": float(x) for g, x in enumerate(self.estimate)}
        return log

    def _running_mean(self, losses: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """The losses that the weights look at: the batch's, or with an `ema` their running mean."""
        if self.ema is None or "ema" not in self.spec.uses:
            return losses
        before = torch.full_like(losses, float("nan")) if self.estimate is None else self.estimate.to(losses)
        self.estimate = dro.ema_update(before, losses, present, self.ema)
        return torch.where(present, self.estimate, losses)


def groups_for(
    objective: str,
    relevance: Mapping[str, Any],
    targets: Iterable[str],
    n_groups: int = 5,
    seed: int = 0,
    legal: Mapping[str, list[Any]] | None = None,
) -> groups.TokenGroups:
    """The groups that an objective is trained with: `groups.fit` at the objective's level, shuffled where it says so.

    Args:
        objective: one of `OBJECTIVES`.
        relevance, targets, n_groups, seed: as in `groups.fit`; the seed also shuffles.
        legal: for the level "open", see `groups.by_openness`.
    """
    spec = check_objective(objective)
    if spec.level == "open":
        return groups.by_openness(legal or {}, targets)
    fitted = groups.fit(relevance, targets, n_groups, spec.level, seed)
    return fitted.shuffled(seed) if spec.shuffled else fitted


def check_objective(name: str) -> ObjectiveSpec:
    """The entry of the registry. Raises a ValueError that lists the objectives when `name` is none of them."""
    if name not in OBJECTIVES:
        raise ValueError(f"unknown objective {name!r}; choose one of {', '.join(OBJECTIVES)}.")
    return OBJECTIVES[name]
