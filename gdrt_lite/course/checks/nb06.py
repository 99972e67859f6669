"""Checks of notebook 06."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gdrt_lite import dro
from gdrt_lite.course.checks import Exercise, Mistake

Titles = Sequence[Sequence[str]]


def _batch_loss(token_losses: Tensor, group_ids: Tensor, n_groups: int, objective: str, tau: float) -> Tensor:
    losses, counts = dro.group_losses(token_losses, group_ids, n_groups)
    present = counts > 0
    if objective == "sft":
        return token_losses.mean()
    if objective == "balanced":
        return losses[present].mean()
    return (dro.group_weights(losses, tau, present=present) * losses).sum()


def _absent_speaks(token_losses: Tensor, group_ids: Tensor, n_groups: int, objective: str, tau: float) -> Tensor:
    losses, _ = dro.group_losses(token_losses, group_ids, n_groups)
    if objective == "sft":
        return token_losses.mean()
    weights = torch.softmax(losses / tau, 0) if objective == "gdrt" else torch.full_like(losses, 1 / n_groups)
    return (weights * losses).sum()


def _sft_of_groups(token_losses: Tensor, group_ids: Tensor, n_groups: int, objective: str, tau: float) -> Tensor:
    return _batch_loss(token_losses, group_ids, n_groups, "balanced" if objective == "sft" else objective, tau)


def _tau_multiplied(token_losses: Tensor, group_ids: Tensor, n_groups: int, objective: str, tau: float) -> Tensor:
    return _batch_loss(token_losses, group_ids, n_groups, objective, 1 / tau)


def _sign_flipped(token_losses: Tensor, group_ids: Tensor, n_groups: int, objective: str, tau: float) -> Tensor:
    if objective != "gdrt":
        return _batch_loss(token_losses, group_ids, n_groups, objective, tau)
    losses, counts = dro.group_losses(token_losses, group_ids, n_groups)
    return (dro.reversed_group_weights(losses, tau, present=counts > 0) * losses).sum()


def _attached(token_losses: Tensor, group_ids: Tensor, n_groups: int, objective: str, tau: float) -> Tensor:
    if objective != "gdrt":
        return _batch_loss(token_losses, group_ids, n_groups, objective, tau)
    losses, counts = dro.group_losses(token_losses, group_ids, n_groups)
    return (torch.softmax((losses / tau).masked_fill(counts == 0, -torch.inf), 0) * losses).sum()


def _a_float(token_losses: Tensor, group_ids: Tensor, n_groups: int, objective: str, tau: float) -> float:
    return _batch_loss(token_losses, group_ids, n_groups, objective, tau).item()


def _sum_over_tokens(token_losses: Tensor, group_ids: Tensor, n_groups: int, objective: str, tau: float) -> Tensor:
    return token_losses.sum() if objective == "sft" else _batch_loss(token_losses, group_ids, n_groups, objective, tau)


_TOKENS = torch.tensor([0.2, 0.4, 3.0, 2.0, 0.1, 5.0])
_GROUPS = torch.tensor([2, 2, 0, 1, 2, 0])
_BATCHES = [(_TOKENS, _GROUPS, 3, objective, tau) for objective in ("sft", "balanced", "gdrt") for tau in (2.0, 0.7)] + [
    (_TOKENS, _GROUPS, 5, objective, 2.0) for objective in ("balanced", "gdrt")
]


def _ndcg(target: str, ranked: Sequence[str], k: int) -> float:
    top = list(ranked[:k])
    return 1 / math.log2(top.index(target) + 2) if target in top else 0.0


def _ndcg_no_cut(target: str, ranked: Sequence[str], k: int) -> float:
    return _ndcg(target, ranked, len(ranked))


def _ndcg_natural(target: str, ranked: Sequence[str], k: int) -> float:
    return _ndcg(target, ranked, k) * math.log2(math.e)


def _reciprocal_rank(target: str, ranked: Sequence[str], k: int) -> float:
    top = list(ranked[:k])
    return 1 / (top.index(target) + 1) if target in top else 0.0


def _ndcg_shifted(target: str, ranked: Sequence[str], k: int) -> float:
    top = list(ranked[:k])
    return 1 / math.log2(top.index(target) + 3) if target in top else 0.0


def _ndcg_one_more(target: str, ranked: Sequence[str], k: int) -> float:
    return _ndcg_no_cut(target, ranked[: k + 1], k)


def _ndcg_rank_plus_one(target: str, ranked: Sequence[str], k: int) -> float:
    top = list(ranked[:k])
    return 1 / math.log2(top.index(target) + 1) if target in top else 0.0


_RANKED = ["Alien", "Babe", "Casino", "Dumbo", "Evita"]


def _unfairness(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    def shares(sides: Titles) -> dict[str, float]:
        names = [group_of[title] for titles in sides for title in titles]
        return {group: names.count(group) / len(names) for group in sorted(set(group_of.values()))}

    recommended, chosen = shares(lists), shares(histories)
    return {group: recommended[group] - chosen[group] for group in recommended}


def _unfairness_swapped(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    return _unfairness(histories, lists, group_of)


def _unfairness_counts(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    def counts(sides: Titles, group: str) -> int:
        return sum(group_of[title] == group for titles in sides for title in titles)

    return {g: float(counts(lists, g) - counts(histories, g)) for g in sorted(set(group_of.values()))}


def _unfairness_by_user(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    each = [_unfairness([ranked], [history], group_of) for ranked, history in zip(lists, histories)]
    return {group: sum(own[group] for own in each) / len(each) for group in each[0]}


def _unfairness_absolute(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    return {group: abs(value) for group, value in _unfairness(lists, histories, group_of).items()}


_GROUP_OF = {"Alien": "hit", "Babe": "hit", "Casino": "niche", "Dumbo": "niche", "Evita": "niche"}
_FAIRNESS = [
    ([["Alien", "Babe"], ["Alien", "Casino"]], [["Dumbo"], ["Alien", "Evita", "Casino"]], _GROUP_OF),
    ([["Alien", "Dumbo"]], [["Babe", "Alien", "Casino"]], _GROUP_OF),
    ([["Alien"]], [["Alien", "Babe"], ["Casino", "Dumbo"]], _GROUP_OF),  # most groups are never recommended
]


def _effective(weights: Tensor) -> float:
    return math.exp(-float(torch.special.xlogy(weights, weights).sum()))


def _entropy(weights: Tensor) -> float:
    return -float(torch.special.xlogy(weights, weights).sum())


def _zero_times_minus_infinity(weights: Tensor) -> float:
    return float(torch.exp(-(weights * weights.log()).sum()))


def _half_of_each_base(weights: Tensor) -> float:
    return math.exp(_entropy(weights) / math.log(2))


def _inverse_of_the_largest(weights: Tensor) -> float:
    return 1 / float(weights.max())


EXERCISES = [
    Exercise(
        "06.1", "Why the loss does not choose the context", reference="b",
        mistakes=[
            Mistake("Overfitting is another matter: with endless data and two contexts that predict equally well, the loss "
                    "would still not prefer one.", "a"),
            Mistake("Attention can reach every token of the prompt; nothing in the architecture forbids the history.", "c"),
            Mistake("More epochs lower the loss further along the way that is already taken; they add no term that asks "
                    "for the history.", "d"),
        ],
        after="A context is paid for what it predicts, not for being yours.",
    ),
    Exercise(
        "06.2", "The loss of a batch, three ways", reference=_batch_loss, cases=_BATCHES, gradient=0,
        mistakes=[
            Mistake("An absent group still takes part: it has no loss, so it must have weight 0 and the others share the "
                    "rest. `present` says which groups the batch holds.", _absent_speaks),
            Mistake("sft is the mean over tokens; you average group means there, which is 'balanced'.", _sft_of_groups),
            Mistake("tau multiplies the losses in your weights; the closed form divides by it.", _tau_multiplied),
            Mistake("Your gdrt listens to the easy groups: the exponent has the wrong sign.", _sign_flipped),
            Mistake("The gradient of your gdrt also runs through the weights. They are the adversary's answer and are held "
                    "fixed: detach them (notebook 05, section 4).", _attached),
            Mistake("Return the loss as a tensor, without .item() or float(): a plain number has no gradient to train with.",
                    _a_float),
            Mistake("sft is the mean over tokens, not their sum: else long batches take longer steps.", _sum_over_tokens),
        ],
        after="the gradients are right, and training follows nothing else. The three differ in one word.",
    ),
    Exercise(
        "06.3", "NDCG of one user", reference=_ndcg,
        cases=[("Alien", _RANKED, 3), ("Casino", _RANKED, 3), ("Evita", _RANKED, 3), ("Zulu", _RANKED, 5),
               ("Evita", _RANKED, 5),
               (_RANKED[3], _RANKED, 3)],
        mistakes=[
            Mistake("The list is not cut: a target below place k earns nothing.", _ndcg_no_cut),
            Mistake("The discount is log2; math.log is the natural logarithm.", _ndcg_natural),
            Mistake("1 / (rank + 1) is the reciprocal rank; NDCG discounts by a logarithm.", _reciprocal_rank),
            Mistake("The list is cut one place too late: places 0 to k-1 are the first k.", _ndcg_one_more),
            Mistake("log2 of one is zero: with ranks from 0 the discount is log2(rank + 2).", _ndcg_rank_plus_one),
            Mistake("The first place is worth 1. With ranks from 0 the discount is log2(rank + 2).", _ndcg_shifted),
        ],
        after="With one target a user the ideal list is worth 1, so DCG is NDCG.",
    ),
    Exercise(
        "06.4", "Who is recommended too often?", reference=_unfairness, cases=_FAIRNESS,
        mistakes=[
            Mistake("The sign is turned: GU is the share recommended minus the share chosen.", _unfairness_swapped),
            Mistake("These are counts; lists and histories differ in length, so compare shares.", _unfairness_counts),
            Mistake("You average over users; GU takes the share among all slots of all lists, then among all histories.",
                    _unfairness_by_user),
            Mistake("Keep the sign: it says whether a group gets too much or too little. |GU| comes in only for MGU.",
                    _unfairness_absolute),
        ],
        after="The values sum to zero: what one group gains another loses.",
    ),
    Exercise(
        "06.5", "How many groups are still heard?", reference=_effective,
        cases=[
            (torch.tensor([0.25, 0.25, 0.25, 0.25]),), (torch.tensor([0.7, 0.2, 0.1]),), (torch.tensor([1.0, 0.0, 0.0]),),
            (torch.tensor([0.5, 0.5, 0.0]),),
        ],
        mistakes=[
            Mistake("That is the entropy; the effective number is its exponential.", _entropy),
            Mistake("A weight of 0 gives 0 * log 0 = NaN. torch.special.xlogy knows that this is 0.",
                    _zero_times_minus_infinity),
            Mistake("The logarithm and the exponential have different bases: use the natural one in both.",
                    _half_of_each_base),
            Mistake("1 / sum of squares is another count of that kind (the inverse Simpson index); here it is exp(entropy).",
                    lambda weights: 1 / float((weights**2).sum())),
            Mistake("1 / max looks at the largest weight alone; the exponential of the entropy counts all.",
                    _inverse_of_the_largest),
        ],
        after="K means all are heard alike; 1 means one group has taken over.",
    ),
]  # fmt: skip
