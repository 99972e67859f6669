"""Checks of notebook 06."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
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


def _own_weights(score: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., Tensor]:
    """A batch loss whose gdrt has weights of its own, from mean losses, numbers of tokens and tau."""

    def loss(token_losses: Tensor, group_ids: Tensor, n_groups: int, objective: str, tau: float) -> Tensor:
        if objective != "gdrt":
            return _batch_loss(token_losses, group_ids, n_groups, objective, tau)
        losses, counts = dro.group_losses(token_losses, group_ids, n_groups)
        return (score(losses, counts, tau).detach() * losses).sum()

    return loss


_absent_in_gdrt = _own_weights(lambda losses, counts, tau: torch.softmax(losses / tau, 0))
_tau_forgotten = _own_weights(lambda losses, counts, tau: dro.group_weights(losses, 1.0, present=counts > 0))
_not_normalised = _own_weights(lambda losses, counts, tau: torch.exp(losses / tau) * (counts > 0))
_times_counts = _own_weights(lambda losses, counts, tau: dro.group_weights(losses, tau, present=counts > 0) * counts)


def _sum_over_tokens(token_losses: Tensor, group_ids: Tensor, n_groups: int, objective: str, tau: float) -> Tensor:
    return token_losses.sum() if objective == "sft" else _batch_loss(token_losses, group_ids, n_groups, objective, tau)


_TOKENS = torch.tensor([0.2, 0.4, 3.0, 2.0, 0.1, 5.0])
_GROUPS = torch.tensor([2, 2, 0, 1, 2, 0])
_BATCHES = [(_TOKENS, _GROUPS, 3, objective, tau) for objective in ("sft", "balanced", "gdrt") for tau in (2.0, 0.7)] + [
    (_TOKENS, _GROUPS, 5, objective, 2.0) for objective in ("balanced", "gdrt")
]


def _cluster_interval(values: Sequence[float], users: Sequence[str], draws: Sequence[Sequence[int]]) -> tuple[float, float]:
    """The middle 95% of the means over the drawn users, each with all its examples."""
    means = _drawn_means(values, users, draws)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def _drawn_means(values: Sequence[float], users: Sequence[str], draws: Sequence[Sequence[int]]) -> list[float]:
    rows = {user: [v for v, u in zip(values, users) if u == user] for user in sorted(set(users))}
    own = list(rows.values())
    return [float(np.mean([value for number in draw for value in own[number]])) for draw in draws]


def _mean_of_users(values: Sequence[float], users: Sequence[str], draws: Sequence[Sequence[int]]) -> tuple[float, float]:
    names = sorted(set(users))
    means = [float(np.mean([v for v, u in zip(values, users) if u == name])) for name in names]
    return _cluster_interval(means, names, draws)


def _single_examples(values: Sequence[float], users: Sequence[str], draws: Sequence[Sequence[int]]) -> tuple[float, float]:
    return _cluster_interval(values, [f"{i:04}" for i in range(len(values))], draws)


def _without_repeats(values: Sequence[float], users: Sequence[str], draws: Sequence[Sequence[int]]) -> tuple[float, float]:
    return _cluster_interval(values, users, [sorted(set(draw)) for draw in draws])


def _ninety(values: Sequence[float], users: Sequence[str], draws: Sequence[Sequence[int]]) -> tuple[float, float]:
    means = _drawn_means(values, users, draws)
    return float(np.quantile(means, 0.05)), float(np.quantile(means, 0.95))


def _normal_interval(values: Sequence[float], users: Sequence[str], draws: Sequence[Sequence[int]]) -> tuple[float, float]:
    half = 1.96 * np.std(values, ddof=1) / math.sqrt(len(values))
    return float(np.mean(values) - half), float(np.mean(values) + half)


def _order_of_appearance(
    values: Sequence[float], users: Sequence[str], draws: Sequence[Sequence[int]]
) -> tuple[float, float]:
    number = {user: f"{i:04}" for i, user in enumerate(dict.fromkeys(users))}
    return _cluster_interval(values, [number[user] for user in users], draws)


def _spread_of_means(values: Sequence[float], users: Sequence[str], draws: Sequence[Sequence[int]]) -> tuple[float, float]:
    means = _drawn_means(values, users, draws)
    return float(np.mean(means) - 1.96 * np.std(means)), float(np.mean(means) + 1.96 * np.std(means))


def _in_per_cent(values: Sequence[float], users: Sequence[str], draws: Sequence[Sequence[int]]) -> tuple[float, float]:
    low, high = np.quantile(_drawn_means(values, users, draws), [2.5, 97.5])
    return float(low), float(high)


def _bootstrap_cases() -> list[tuple[list[float], list[str], list[list[int]]]]:
    random = np.random.default_rng(0)
    users = ["c", "a", "a", "b", "c", "c", "a", "c", "d"]
    return [
        ([1.0, 0.0, 0.5, 0.0, 0.6, 1.0, 0.0, 0.4, 0.3], users, random.integers(0, 4, (200, 4)).tolist()),
        ([float(x) for x in range(9)], users, random.integers(0, 4, (50, 4)).tolist()),
    ]


def _unfairness(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    recommended, chosen = _share(lists, group_of), _share(histories, group_of)
    return {group: recommended[group] - chosen[group] for group in recommended}


def _share(sides: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    names = [group_of[title] for titles in sides for title in titles]
    return {group: names.count(group) / len(names) for group in sorted(set(group_of.values()))}


def _unfairness_swapped(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    return _unfairness(histories, lists, group_of)


def _unfairness_counts(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    def counts(sides: Titles, group: str) -> int:
        return sum(group_of[title] == group for titles in sides for title in titles)

    return {g: float(counts(lists, g) - counts(histories, g)) for g in sorted(set(group_of.values()))}


def _unfairness_by_user(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    each = [_unfairness([ranked], [history], group_of) for ranked, history in zip(lists, histories)]
    return {group: sum(own[group] for own in each) / len(each) for group in each[0]}


def _mean_of_shares(sides: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    each = [_share([titles], group_of) for titles in sides]
    return {group: sum(own[group] for own in each) / len(each) for group in each[0]}


def _unfairness_by_list(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    recommended, chosen = _mean_of_shares(lists, group_of), _mean_of_shares(histories, group_of)
    return {group: recommended[group] - chosen[group] for group in recommended}


def _unfairness_ratio(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    recommended, chosen = _share(lists, group_of), _share(histories, group_of)
    return {group: recommended[group] / chosen[group] for group in recommended}


def _unfairness_of_distinct(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    def once(sides: Titles) -> Titles:
        return [list({title for own in sides for title in own})]

    return _unfairness(once(lists), once(histories), group_of)


def _unfairness_of_recommended(lists: Titles, histories: Titles, group_of: Mapping[str, str]) -> dict[str, float]:
    named = {group_of[title] for titles in lists for title in titles}
    return {group: gu for group, gu in _unfairness(lists, histories, group_of).items() if group in named}


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
            Mistake("An early stop can leave the user unread, as in the second case above. But in the first case the three "
                    "readers have the same loss after any number of epochs.", "d"),
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
            Mistake("Return the loss as a tensor that depends on token_losses, without .item() or float(), and detach "
                    "the weights alone. A plain number has no gradient to train with.",
                    _a_float),
            Mistake("In gdrt an absent group still takes part in the softmax: its loss is reported as 0, and it must get no "
                    "weight. Mask it before the softmax.", _absent_in_gdrt),
            Mistake("Your gdrt does not use tau: the losses are divided by it before the exponential.", _tau_forgotten),
            Mistake("The weights of your gdrt do not sum to one: divide the exponentials by their total.", _not_normalised),
            Mistake("Q(g) weighs the *mean* loss of a group; you multiply by the number of its tokens as well.",
                    _times_counts),
            Mistake("sft is the mean over tokens, not their sum: else long batches take longer steps.", _sum_over_tokens),
        ],
        after="the gradients are right, and training follows nothing else. The three objectives differ in their weights.",
    ),
    Exercise(
        "06.3", "The interval by hand", reference=_cluster_interval, cases=_bootstrap_cases, tolerance=1e-6,
        mistakes=[
            Mistake("you average within each user first. A drawn user brings all examples along, and each of them counts "
                    "once.",
                    _mean_of_users),
            Mistake("single examples are drawn. Those of one user are alike, so draw users, each with all their examples.",
                    _single_examples),
            Mistake("a user who is drawn twice counts twice: that is what drawing with repeats means.", _without_repeats),
            Mistake("95% in the middle leave 2.5% outside on either side, not 5%.", _ninety),
            Mistake("that is the normal formula on single examples; the bootstrap needs the draws, and draws users.",
                    _normal_interval),
            Mistake("the users are numbered in alphabetical order, and you number them as they appear.",
                    _order_of_appearance),
            Mistake("you take 1.96 standard deviations of the drawn means; take the quantiles of these means instead.",
                    _spread_of_means),
            Mistake("np.quantile takes shares between 0 and 1, so 2.5% is 0.025.", _in_per_cent),
        ],
        after="every interval over users in this course is made like this.",
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
            Mistake("You average the shares of single lists; take the share among all slots of all lists at once.",
                    _unfairness_by_list),
            Mistake("GU is a difference of two shares, and this is their ratio.", _unfairness_ratio),
            Mistake("A title that is recommended twice takes two slots: count slots, and not different titles.",
                    _unfairness_of_distinct),
            Mistake("A group that is never recommended has a GU as well: its share of the lists is zero.",
                    _unfairness_of_recommended),
        ],
        after="The values sum to zero: what one group gains another loses.",
    ),
    Exercise(
        "06.5", "How many groups still count?", reference=_effective,
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
            Mistake("The sign is turned: the entropy is minus the sum, so the result must be at least one.",
                    lambda weights: math.exp(-_entropy(weights))),
            Mistake("The logarithm is natural, so the exponential must be exp and not a power of two.",
                    lambda weights: 2 ** _entropy(weights)),
            Mistake("The entropy is a sum over the groups, and not a mean.",
                    lambda weights: math.exp(_entropy(weights) / len(weights))),
            Mistake("1 / max looks at the largest weight alone; the exponential of the entropy counts all.",
                    _inverse_of_the_largest),
        ],
        after="K means that all groups weigh the same, and 1 that one group has all the weight.",
    ),
]  # fmt: skip
