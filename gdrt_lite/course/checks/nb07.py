"""Checks of notebook 07."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special, stats

from gdrt_lite.course.checks import Exercise, Mistake

Window = tuple[tuple[str, ...], str]


_CHOICE = {"dro": "balanced", "hard": "reversed", "groups": "random", "tokens": "item", "progress": "sft at equal nll"}


def _words(choice: Mapping[str, str]) -> dict[str, str]:
    return {question: str(control).strip().lower() for question, control in choice.items()}


# --- 07.5: audit a run ---
Run = Mapping[
    str, Any
]  # weights: (steps, K) Q of the last steps; user: interval (low, high), nats; nll, blind: nats a title


def _audit(run: Run) -> set[str]:
    """The signatures of failure that a run shows."""
    weights = np.asarray(run["weights"], dtype=float)
    found = set()
    if not np.isfinite(weights).all():
        return {"diverged"}
    if np.exp(-special.xlogy(weights, weights).sum(1)).mean() < 1.5:
        found.add("one group has it all")
    if run["nll"] >= run["blind"]:
        found.add("undertrained")
    elif run["user"][0] <= 0:
        found.add("user not read")
    return found


def _by_the_mean_weights(run: Run) -> set[str]:
    weights = np.asarray(run["weights"], dtype=float).mean(0, keepdims=True)
    return _audit({**run, "weights": weights})


def _unread_though_undertrained(run: Run) -> set[str]:
    found = _audit(run)
    return found | {"user not read"} if "undertrained" in found and run["user"][0] <= 0 else found


def _by_the_middle_of_the_interval(run: Run) -> set[str]:
    return _audit({**run, "user": (sum(run["user"]) / 2, run["user"][1])})


def _first_only(run: Run) -> set[str]:
    return set(sorted(_audit(run))[:1])


def _goes_on(run: Run) -> set[str]:
    weights = np.asarray(run["weights"], dtype=float)
    return _audit({**run, "weights": np.nan_to_num(weights, nan=1 / weights.shape[1])})


_RUNS: list[Run] = [
    {"weights": [[0.3, 0.3, 0.4], [0.2, 0.5, 0.3]], "user": (0.1, 0.4), "nll": 3.9, "blind": 4.6},
    {"weights": [[0.98, 0.01, 0.01], [0.01, 0.98, 0.01], [0.01, 0.01, 0.98]], "user": (0.05, 0.2), "nll": 4.0, "blind": 4.6},
    {"weights": [[0.4, 0.3, 0.3]], "user": (-0.05, 0.3), "nll": 4.0, "blind": 4.6},
    {"weights": [[0.4, 0.3, 0.3]], "user": (-0.1, 0.1), "nll": 5.1, "blind": 4.6},
    {"weights": [[1.0, 0.0, 0.0]], "user": (-0.2, -0.1), "nll": 4.4, "blind": 4.6},
    {"weights": [[0.4, 0.3, 0.3], [math.nan] * 3], "user": (0.1, 0.2), "nll": 4.4, "blind": 4.6},
]


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
        "07.1", "Choose the control", reference=_CHOICE, view=_words,
        mistakes=[
            Mistake("you have balanced and random the wrong way round. balanced keeps the groups and drops the DRO; "
                    "random keeps the "
                    "DRO and drops the meaning of the groups.", _CHOICE | {"dro": "random", "groups": "balanced"}),
            Mistake("reversed changes which groups get the weight, so it tests the direction of the weights. For the DRO "
                    "itself keep the groups and give them equal weights.",
                    _CHOICE | {"dro": "reversed", "hard": "balanced"}),
            Mistake("item keeps the meaning of the groups and changes their grain. To ask whether meaning matters, deal "
                    "them at random.",
                    _CHOICE | {"groups": "item", "tokens": "random"}),
            Mistake("balanced is another objective, and it too may have got further or less far. Compare where both pay "
                    "the same "
                    "for a title.", _CHOICE | {"progress": "balanced"}),
            Mistake("a plain SFT has been trained as long, and may have got further. Stop it where both pay the same for "
                    "a title.",
                    _CHOICE | {"progress": "sft"}),
        ],
        after="a control changes one thing, and it is the thing that the claim names.",
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
            Mistake("An interval that ends exactly at zero includes it, so it decides nothing: compare with <=.",
                    _zero_at_the_edge),
            Mistake("The claim says which direction counts; 'lower' is supported by values below zero.", _always_higher),
            Mistake("An interval wholly on the wrong side contradicts the claim; say so.", _one_limit),
        ],
        after="Three words, and only one of them is 'supported'.",
    ),
    Exercise(
        "07.5", "Audit a run", reference=_audit, cases=[(run,) for run in _RUNS],
        mistakes=[
            Mistake("take the effective number at every step, then its mean. Weights that jump from group to group are "
                    "even on average.",
                    _by_the_mean_weights),
            Mistake("a model that pays more than blind guessing is undertrained, and says nothing about reading: name "
                    "only that.",
                    _unread_though_undertrained),
            Mistake("an interval that includes zero does not show that the user is read; look at its lower end.",
                    _by_the_middle_of_the_interval),
            Mistake("a run may fail in two ways at once; name them all.", _first_only),
            Mistake("a weight that is NaN means that the run has diverged, and then no other figure of it counts.",
                    _goes_on),
        ],
        after="the audit comes before the accuracy: a run that fails it has won or lost by luck.",
    ),
]  # fmt: skip
