"""Checks of notebook 07."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from gdrt_lite import dro
from gdrt_lite.course.checks import Exercise, Mistake

Window = tuple[tuple[str, ...], str]


def _reversed(losses: Tensor, tau: float, prior: Tensor) -> Tensor:
    return dro.reversed_group_weights(losses, tau, prior)


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum()


_L1, _L2 = torch.tensor([0.5, 1.2, 2.0]), torch.tensor([3.0, 0.2, 0.9, 1.0])
_P1, _P2 = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.1, 0.4, 0.3, 0.2])


def _interval(values: Sequence[float], quantile: float, ddof: int, root: bool) -> tuple[float, float]:
    half = quantile * np.std(values, ddof=ddof) / (np.sqrt(len(values)) if root else 1.0)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def _t_interval(values: Sequence[float]) -> tuple[float, float]:
    return _interval(values, stats.t.ppf(0.975, len(values) - 1), 1, True)


def _normal(values: Sequence[float]) -> tuple[float, float]:
    return _interval(values, 1.959964, 1, True)


def _population(values: Sequence[float]) -> tuple[float, float]:
    return _interval(values, stats.t.ppf(0.975, len(values) - 1), 0, True)


def _no_root(values: Sequence[float]) -> tuple[float, float]:
    return _interval(values, stats.t.ppf(0.975, len(values) - 1), 1, False)


def _one_sided(values: Sequence[float]) -> tuple[float, float]:
    return _interval(values, stats.t.ppf(0.95, len(values) - 1), 1, True)


def _swap(windows: Sequence[Window], n: int) -> list[Window]:
    histories = [history for history, _ in windows]
    histories[:n] = histories[1:n] + histories[:1] if n else []
    return [(history, target) for history, (_, target) in zip(histories, windows)]


def _swap_targets_too(windows: Sequence[Window], n: int) -> list[Window]:
    return [*windows[1:n], *windows[:1], *windows[n:]] if n else list(windows)


def _swap_all(windows: Sequence[Window], n: int) -> list[Window]:
    return _swap(windows, len(windows)) if n else list(windows)


def _shuffled_within(windows: Sequence[Window], n: int) -> list[Window]:
    return [(history[::-1], target) for history, target in windows[:n]] + list(windows[n:])


def _emptied(windows: Sequence[Window], n: int) -> list[Window]:
    return [((), target) for _, target in windows[:n]] + list(windows[n:])


_WINDOWS = [(("a", "b"), "c"), (("d", "e"), "f"), (("g", "h"), "i"), (("j", "k"), "l")]


def _verdict(low: float, high: float, claim: str) -> str:
    if low <= 0 <= high:
        return "undecided"
    return "supported" if (low > 0) == (claim == "higher") else "contradicted"


def _by_the_middle(low: float, high: float, claim: str) -> str:
    return "supported" if ((low + high) / 2 > 0) == (claim == "higher") else "contradicted"


def _absence_as_evidence(low: float, high: float, claim: str) -> str:
    found = _verdict(low, high, claim)
    return "contradicted" if found == "undecided" else found


def _zero_at_the_edge(low: float, high: float, claim: str) -> str:
    return "undecided" if low < 0 < high else "supported" if (high > 0) == (claim == "higher") else "contradicted"


def _always_higher(low: float, high: float, claim: str) -> str:
    return _verdict(low, high, "higher")


def _one_limit(low: float, high: float, claim: str) -> str:
    met = low > 0 if claim == "higher" else high < 0
    return "supported" if met else "undecided"


EXERCISES = [
    Exercise(
        "07.1", "Weights turned round", reference=_reversed, cases=[(_L1, 0.5, _P1), (_L2, 2.0, _P2), (_L1, 1.5, _P1)],
        mistakes=[
            Mistake("That is GDRT itself: the exponent keeps its sign.",
                    lambda losses, tau, prior: dro.group_weights(losses, tau, prior)),
            Mistake("Turning the sign of the exponent is not the same as 1 minus the weight.",
                    lambda losses, tau, prior: _normalised(1 - dro.group_weights(losses, tau, prior))),
            Mistake("You turned the order of the groups; turn the sign of the exponent instead.",
                    lambda losses, tau, prior: dro.group_weights(losses, tau, prior).flip(0)),
            Mistake("1 / Q* turns the prior round as well; P(g) stays a factor.",
                    lambda losses, tau, prior: _normalised(1 / dro.group_weights(losses, tau, prior))),
            Mistake("The prior is missing: Q is proportional to P times the exponential.",
                    lambda losses, tau, prior: dro.reversed_group_weights(losses, tau)),
            Mistake("tau multiplies the losses; it divides them.",
                    lambda losses, tau, prior: _reversed(losses, 1 / tau, prior)),
        ],
        after="The same formula with one sign changed: a control costs nothing but the patience to run it.",
    ),
    Exercise(
        "07.2", "An interval over repetitions", reference=_t_interval,
        cases=[([0.01, 0.03, 0.02],), ([-0.5, 0.1, 0.4, 0.2],), ([1.0, 2.0],)],
        mistakes=[
            Mistake("1.96 belongs to large samples. With few repetitions take Student's t with n - 1 degrees of freedom.",
                    _normal),
            Mistake("Estimate the spread with n - 1 (ddof=1): the mean was taken from the same values.", _population),
            Mistake("That is the spread of single results. The mean of n is steadier by the root of n.", _no_root),
            Mistake("2.5% are cut off on either side: the quantile is 0.975.", _one_sided),
        ],
        after="With three repetitions the factor is above four, and with one there is no interval at all.",
    ),
    Exercise(
        "07.3", "Histories of strangers", reference=_swap,
        cases=[(_WINDOWS, 2), (_WINDOWS, 3), (_WINDOWS, 4), (_WINDOWS, 0)],
        mistakes=[
            Mistake("History and target moved together, so every window is as true as before. Move the histories alone.",
                    _swap_targets_too),
            Mistake("All windows are swapped; only the first n should be.", _swap_all),
            Mistake("The history is still the user's own, in another order. Give it somebody else's.", _shuffled_within),
            Mistake("An empty history is missing data, not noise, and it changes the length of the prompt.", _emptied),
        ],
        after="Lengths, titles and popularity are all as before; only the link from user to target is cut.",
    ),
    Exercise(
        "07.4", "From interval to verdict", reference=_verdict,
        cases=[(0.1, 0.3, "higher"), (-0.3, -0.1, "higher"), (-0.1, 0.3, "higher"), (-0.3, 0.1, "lower"),
               (-0.3, -0.1, "lower"), (0.1, 0.3, "lower"), (0.0, 0.2, "higher"), (-0.2, 0.0, "lower")],
        mistakes=[
            Mistake("You judge by the middle of the interval; one that includes zero decides nothing.", _by_the_middle),
            Mistake("Not shown is not the same as shown not to be: an interval that includes zero is 'undecided'.",
                    _absence_as_evidence),
            Mistake("An interval that ends exactly at zero includes it, so it decides nothing: compare with <=.", _zero_at_the_edge),
            Mistake("The claim says which direction counts; 'lower' is supported by values below zero.", _always_higher),
            Mistake("An interval wholly on the wrong side contradicts the claim; say so.", _one_limit),
        ],
        after="Three words, and only one of them is 'supported'.",
    ),
]  # fmt: skip
