"""Checks of notebook 02."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gdrt_lite.course.checks import Exercise, Mistake

Seen = Sequence[tuple[list[str], list[str]]]  # per example: the words of the segment, the words of the target

FIVE = [
    (["Next", "Alien", "Heat"], ["Aliens"]),
    (["Next", "Heat", "Fargo"], ["Casino"]),
    (["Next", "Alien", "Fargo"], ["Aliens"]),
    (["Next", "Big", "Heat"], ["Fargo"]),
    (["Next", "Alien", "Big"], ["Casino", "Aliens"]),
]


def _counts(seen: Seen, source: str, target: str) -> tuple[int, int, int]:
    both = sum(source in s and target in v for s, v in seen)
    return both, sum(source in s for s, _ in seen), sum(target in v for _, v in seen)


def rate(seen: Seen, source: str, target: str) -> float:
    """P(source in the segment | target word in the target), counted over examples."""
    both, _, targets = _counts(seen, source, target)
    return both / targets


def _other_way(seen: Seen, source: str, target: str) -> float:
    both, sources, _ = _counts(seen, source, target)
    return both / sources


def _first_word(seen: Seen, source: str, target: str) -> float:
    return rate([(words, targets[:1]) for words, targets in seen], source, target)


def _joint(seen: Seen, source: str, target: str) -> float:
    return _counts(seen, source, target)[0] / len(seen)


def _share_of_source(seen: Seen, source: str, target: str) -> float:
    return _counts(seen, source, target)[1] / len(seen)


def pmi(seen: Seen, source: str, target: str) -> float:
    """log P(source, target) / (P(source) P(target)), in nats; the pair occurs."""
    both, sources, targets = _counts(seen, source, target)
    return math.log(both * len(seen) / (sources * targets))


def _bits(seen: Seen, source: str, target: str) -> float:
    return pmi(seen, source, target) / math.log(2)


def _log_rate(seen: Seen, source: str, target: str) -> float:
    return math.log(rate(seen, source, target))


def _without_log(seen: Seen, source: str, target: str) -> float:
    return math.exp(pmi(seen, source, target))


def _raw_counts(seen: Seen, source: str, target: str) -> float:
    both, sources, targets = _counts(seen, source, target)
    return math.log(both / (sources * targets))


PAIRS = [("Next", "Aliens"), ("Big", "Aliens"), ("Heat", "Fargo"), ("Alien", "Aliens"), ("Alien", "Casino")]

EXERCISES = [
    Exercise(
        "02.1",
        "A rate by counting",
        reference=rate,
        cases=[(FIVE, *pair) for pair in PAIRS],
        mistakes=[
            Mistake("the condition is the other way round: divide by the examples that hold the target word.", _other_way),
            Mistake("you look at the first word of a target only; a target may hold several.", _first_word),
            Mistake("you divide by all examples; divide by those that hold the target word.", _joint),
            Mistake("the target word plays no part here. Count only the examples that hold it.", _share_of_source),
        ],
        after="'Next' has rate 1 with every target. Remember that for the next section.",
    ),
    Exercise(
        "02.2",
        "What a pair is worth",
        reference=pmi,
        cases=[(FIVE, *pair) for pair in PAIRS],
        mistakes=[
            Mistake("this is in bits; use the natural logarithm, as everywhere in the course.", _bits),
            Mistake("this is the log of the rate. Divide the rate by P(source) first: how common is it anyway?", _log_rate),
            Mistake("the logarithm is missing: a pair without any link should be worth zero, not one.", _without_log),
            Mistake("counts are not probabilities: the number of examples does not cancel. Divide by it.", _raw_counts),
        ],
        after="a word that is in every prompt has a PMI of exactly zero.",
    ),
    Exercise(
        "02.3",
        "What would refute it",
        reference="b",
        mistakes=[
            Mistake("that is what Mechanism 1 predicts: less co-occurrence, more history. It would support it.", "a"),
            Mistake("TASK falls under every theory when there is less TASK text. The question is what HISTORY does.", "c"),
            Mistake("PREFIX is the same in all arms, so neither explanation predicts that it moves.", "d"),
        ],
        after="a test of a claim needs a result that the claim forbids.",
    ),
    Exercise(
        "02.4",
        "Deleted, and missed",
        reference="a",
        mistakes=[
            Mistake("the text was the same in every example, so it cannot tell which movie comes next.", "b"),
            Mistake(
                "zero under resample is exact: the same text stands there. Nothing is left to measure more finely.", "c"
            ),
            Mistake("a large drop needs no user: the model falls apart because it never saw such a prompt.", "d"),
        ],
        after="Attribution by deletion mixes 'carries information' with 'was always there'.",
    ),
]
