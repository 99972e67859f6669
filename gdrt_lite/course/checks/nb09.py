"""Checks of notebook 09."""

from __future__ import annotations

from collections.abc import Mapping

from gdrt_lite.course.checks import Exercise, Mistake

Evidence = Mapping[str, tuple[float, float]]
SUBJECTS = {
    "accuracy": ("ndcg",),
    "reading": ("own minus stranger",),
    "a list that reads nobody": ("popularity", "best-sellers", "bestsellers"),
    "the claim": ("ratio",),
    "what a title costs": ("nll",),
    "other trainings": ("seed",),
    "how many users": ("user",),
}
LONGEST = 400  # words


def _decide(evidence: Evidence) -> str:
    admissible = [name for name in "AB" if evidence[f"{name} over popularity"][0] > 0]
    if len(admissible) < 2:
        return admissible[0] if admissible else "neither"
    low, high = evidence["B minus A"]
    return "B" if low > 0 else "A" if high < 0 else "undecided"


def _without_the_gate(evidence: Evidence) -> str:
    low, high = evidence["B minus A"]
    return "B" if low > 0 else "A" if high < 0 else "undecided"


def _by_the_ratio(evidence: Evidence) -> str:
    found = _decide(evidence)
    return ("B" if evidence["ratio"][1] < 0 else "A") if found == "undecided" else found


def _by_the_middle(evidence: Evidence) -> str:
    found = _decide(evidence)
    return ("B" if sum(evidence["B minus A"]) > 0 else "A") if found == "undecided" else found


def _absence_as_neither(evidence: Evidence) -> str:
    return _decide(evidence).replace("undecided", "neither")


def _one_suffices(evidence: Evidence) -> str:
    return "neither" if _decide(evidence) == "neither" else _without_the_gate(evidence)


def _case(a: tuple[float, float], b: tuple[float, float], difference: tuple[float, float], ratio: float) -> tuple[Evidence]:
    return ({"A over popularity": a, "B over popularity": b, "B minus A": difference, "ratio": (ratio - 1, ratio + 1)},)


_CASES = [
    _case((-0.02, 0.01), (-0.03, 0.0), (-0.02, 0.01), -5),
    _case((0.01, 0.05), (0.02, 0.06), (0.0, 0.02), -5),
    _case((0.01, 0.05), (0.02, 0.06), (-0.03, 0.01), -5),
    _case((0.01, 0.05), (0.02, 0.06), (0.004, 0.02), 3),
    _case((0.01, 0.05), (-0.01, 0.06), (0.001, 0.03), -4),
    _case((-0.04, -0.01), (0.01, 0.02), (-0.01, 0.06), 2),
    _case((0.02, 0.05), (0.01, 0.04), (-0.03, -0.01), -6),
    _case((-0.04, -0.01), (-0.02, 0.01), (0.01, 0.04), -6),
]


def _missing(page: str) -> set[str]:
    """The subjects of the rubric that a report lacks, and "brevity" where it is too long."""
    if not isinstance(page, str):
        return {"a text"}
    text = page.lower().replace("-", " ").replace("best sellers", "best-sellers")
    lacking = {name for name, words in SUBJECTS.items() if not any(word in text for word in words)}
    return lacking | ({"brevity"} if len(page.split()) > LONGEST else set())


_PAGE = "Neither: NDCG over best-sellers, own minus stranger, ratio, NLL; one seed, 64 users."

EXERCISES = [
    Exercise(
        "09.1", "Select the figures", reference={"b", "d", "f"},
        view=lambda chosen: {str(letter).lower() for letter in chosen},
        mistakes=[
            Mistake("c is the claim itself, and d is what it should have been tested with: a signed difference on "
                    "ordinary prompts.",
                    {"b", "c", "f"}),
            Mistake("h is absolute: a history that only disturbs counts as well. Which figure has a sign?", {"b", "f", "h"}),
            Mistake("what if both are worse than a list that reads nobody? One figure asks that.", {"b", "c", "d"}),
            Mistake("g tells lists apart, but a random list is varied too. Is either better than a list that reads nobody?",
                    {"b", "d", "g"}),
            Mistake("the loss of the training falls for every objective and says nothing of new users.", {"a", "b", "d"}),
        ],
        after="one figure for reading, one for the comparison, and one for whether either is worth shipping.",
    ),
    Exercise(
        "09.2", "Decide by rule", reference=_decide, cases=_CASES,
        mistakes=[
            Mistake("first ask who may be shipped at all: a model that does not beat best-sellers is not admissible.",
                    _without_the_gate),
            Mistake("the ratio is reported, and plays no part in the decision.", _by_the_ratio),
            Mistake("an interval that includes zero decides nothing, whatever its middle is.", _by_the_middle),
            Mistake("undecided is not neither: both may be shipped, and the evidence does not choose.", _absence_as_neither),
            Mistake("where only one is admissible, that one is the answer, even if the difference says otherwise.",
                    _one_suffices),
        ],
        after="a rule that is fixed beforehand cannot be bent by the figures.",
    ),
    Exercise(
        "09.3", "One page", reference=_PAGE, view=_missing,
        mistakes=[
            Mistake("the page rests on the ratio alone. Bring accuracy, reading, best-sellers, the NLL, seeds and users.",
                    "B has the lower ratio."),
            Mistake("the page does not compare with a list that reads nobody.",
                    "NDCG, own minus stranger, ratio, NLL; one seed, 64 users."),
            Mistake("reading is missing: say what own minus stranger shows.", "NDCG, popularity, ratio, NLL; one seed, 64 "
                    "users."),
            Mistake("what does a title cost in both? The ratio follows the NLL.",
                    "NDCG, popularity, own minus stranger, ratio; one seed, 64 users."),
            Mistake("no word on other trainings: one seed is one training.",
                    "NDCG, popularity, own minus stranger, ratio, NLL; 64 users."),
            Mistake("the head reads one page: at most 400 words.", _PAGE + " word" * 400),
        ],
        after="all subjects are there. Now grade it by the rubric, or let somebody else.",
    ),
]  # fmt: skip
