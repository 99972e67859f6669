"""Checks of notebook 00."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from gdrt_lite.course.checks import Exercise, Mistake
from gdrt_lite.data.windows import Example

FIRST = ["Alien", "Heat", "Fargo", "Big"]
MOVED = ["Fargo", "Alien", "Speed", "Casino"]
LONG = [*FIRST, "Speed", "Casino", "Up", "Aliens"]
TRAIN = [
    ("u1", ("Alien", "Heat"), "Fargo"),
    ("u1", ("Heat", "Fargo"), "Big"),
    ("u2", ("Alien", "Heat"), "Fargo"),
    ("u3", ("Big", "Heat"), "Fargo"),
    ("u3", ("Alien", "Fargo"), "Heat"),
]
WINDOWS = [Example(user, history, target, 0) for user, history, target in TRAIN]


def survival(before: Sequence[str], after: Sequence[str]) -> float:
    """Share of the titles in `before` that are still in `after`."""
    return len(set(before) & set(after)) / len(before)


def _same_place(before: Sequence[str], after: Sequence[str]) -> float:
    return sum(b == a for b, a in zip(before, after, strict=False)) / len(before)


def _jaccard(before: Sequence[str], after: Sequence[str]) -> float:
    return len(set(before) & set(after)) / len(set(before) | set(after))


def _dice(before: Sequence[str], after: Sequence[str]) -> float:
    return 2 * len(set(before) & set(after)) / (len(before) + len(after))


def _as_text(before: Sequence[str], after: Sequence[str]) -> float:
    return sum(title in " ".join(after) for title in before) / len(before)


def _gone(before: Sequence[str], after: Sequence[str]) -> float:
    return 1 - survival(before, after)


def _count(before: Sequence[str], after: Sequence[str]) -> float:
    return float(len(set(before) & set(after)))


def _by_after(before: Sequence[str], after: Sequence[str]) -> float:
    return len(set(before) & set(after)) / len(after)


def _by_ten(before: Sequence[str], after: Sequence[str]) -> float:
    return len(set(before) & set(after)) / 10


def _by_four(before: Sequence[str], after: Sequence[str]) -> float:
    return len(set(before) & set(after)) / 4


def _percent(before: Sequence[str], after: Sequence[str]) -> float:
    return 100 * survival(before, after)


def ndcg(ranked: Sequence[str], target: str) -> float:
    """1 / log2(rank + 2), rank from 0; 0 when the target is not in the list."""
    return 1 / math.log2(ranked.index(target) + 2) if target in ranked else 0.0


def _reciprocal(ranked: Sequence[str], target: str) -> float:
    return 1 / (ranked.index(target) + 1) if target in ranked else 0.0


def _natural(ranked: Sequence[str], target: str) -> float:
    return 1 / math.log(ranked.index(target) + 2) if target in ranked else 0.0


def _shifted(ranked: Sequence[str], target: str) -> float:
    return 1 / math.log2(ranked.index(target) + 3) if target in ranked else 0.0


def _not_inverted(ranked: Sequence[str], target: str) -> float:
    return math.log2(ranked.index(target) + 2) if target in ranked else 0.0


def _rank_plus_one(ranked: Sequence[str], target: str) -> float:
    return 1 / math.log2(ranked.index(target) + 1) if target in ranked else 0.0


def _hit(ranked: Sequence[str], target: str) -> float:
    return float(target in ranked)


def followed(train: Sequence[Example]) -> Counter[tuple[str, str]]:
    """How many windows have the first title in the history and the second as the target."""
    return Counter((title, example.target) for example in train for title in example.history)


def _backwards(train: Sequence[Example]) -> Counter[tuple[str, str]]:
    return Counter((example.target, title) for example in train for title in example.history)


def _last_only(train: Sequence[Example]) -> Counter[tuple[str, str]]:
    return Counter((example.history[-1], example.target) for example in train)


def _both_ways(train: Sequence[Example]) -> Counter[tuple[str, str]]:
    return followed(train) + _backwards(train)


def _once(train: Sequence[Example]) -> Counter[tuple[str, str]]:
    return Counter(set(followed(train)))


def _neighbours(train: Sequence[Example]) -> Counter[tuple[str, str]]:
    steps = [(*example.history, example.target) for example in train]
    return Counter(pair for titles in steps for pair in zip(titles, titles[1:]))


Times = Sequence[Sequence[int]]


def _gaps(times: Times) -> list[int]:
    return [after - before for own in times for before, after in zip(own, own[1:])]


def within_a_minute(times: Times) -> float:
    """Share of the steps from one rating of a user to the next that take less than 60 seconds."""
    gaps = _gaps(times)
    return sum(gap < 60 for gap in gaps) / len(gaps)


def _across_users(times: Times) -> float:
    return within_a_minute([[time for own in times for time in own]])


def _mean_of_the_users(times: Times) -> float:
    shares = [within_a_minute([own]) for own in times if len(own) > 1]
    return sum(shares) / len(shares)


def _of_all_ratings(times: Times) -> float:
    return within_a_minute(times) * sum(len(own) - 1 for own in times) / sum(map(len, times))


def _minutes(times: Times) -> float:
    gaps = _gaps(times)
    return sum(gap < 1 for gap in gaps) / len(gaps)


def _never_zero(times: Times) -> float:
    return sum(0 < step < 60 for step in _gaps(times)) / len(_gaps(times))


def _up_to_60(times: Times) -> float:
    return sum(step <= 60 for step in _gaps(times)) / len(_gaps(times))


def _counted(times: Times) -> float:
    return sum(step < 60 for step in _gaps(times))


def _negative(times: Times) -> float:
    return sum(-gap < 60 for gap in _gaps(times)) / len(_gaps(times))


def _from_the_first(times: Times) -> float:
    gaps = [after - own[0] for own in times for after in own[1:]]
    return sum(gap < 60 for gap in gaps) / len(gaps)


EXERCISES = [
    Exercise(
        "00.1",
        "How much survives",
        reference=survival,
        cases=[
            (FIRST, MOVED),
            (FIRST, list(reversed(FIRST))),
            (FIRST, MOVED[:2]),
            (FIRST, ["Speed", "Heat", "Casino", "Up"]),
            (FIRST[:3], MOVED),
            (list("abcdefghij"), list("jklmabc")),
            (["Alien", "Heat"], ["Aliens", "Heat", "Up"]),
        ],
        mistakes=[
            Mistake("you compare place by place. A title that moved within the list has survived.", _same_place),
            Mistake("you divide by the union of both lists; divide by the length of the first.", _jaccard),
            Mistake("you divide by the titles of both lists; divide by the length of the first.", _dice),
            Mistake("compare whole titles: Alien does not survive because Aliens stands there.", _as_text),
            Mistake("this is the share that is gone; the question is what stays.", _gone),
            Mistake("this is a number of titles; divide by the length of the list to get a share.", _count),
            Mistake("you divide by the second list; the share is of the first one's titles.", _by_after),
            Mistake("lists need not hold ten titles; divide by the length of the first.", _by_ten),
            Mistake("four is the length of the example's list; divide by the length of the list that is given.", _by_four),
            Mistake("a share from 0 to 1 is asked for, not a percentage.", _percent),
        ],
        after="One number for: did the list notice that the user changed?",
    ),
    Exercise(
        "00.2",
        "What survival means",
        reference="c",
        mistakes=[
            Mistake("a model that reads the user gives another list to another user: little would survive.", "a"),
            Mistake("a list can be bad and personal. Survival compares a list with a list, not with the truth.", "b"),
            Mistake("a random list would change with every user too, and almost nothing would survive.", "d"),
        ],
        after="Survival alone says nothing about accuracy. That is why accuracy is next.",
    ),
    Exercise(
        "00.3",
        "Look at the clock",
        reference=within_a_minute,
        cases=[([[0, 5, 30, 400], [1000, 1010]],), ([[0, 60, 119, 119, 5000], [7], [7, 8, 9], [100, 90_000]],)],
        mistakes=[
            Mistake("the step from one user's last rating to the next user's first is no step of anybody.", _across_users),
            Mistake("take the share over all steps; a user with many ratings has many steps.", _mean_of_the_users),
            Mistake("divide by the number of steps: n ratings of a user have n - 1 steps between them.", _of_all_ratings),
            Mistake("the times are in seconds; a minute has sixty.", _minutes),
            Mistake(
                "two ratings in the same second are a step of zero seconds, which takes less than a minute.", _never_zero
            ),
            Mistake(
                "a step of exactly sixty seconds does not take less than a minute: compare with < and not <=.", _up_to_60
            ),
            Mistake(
                "this is the share of the steps that take a minute or longer.", lambda times: 1 - within_a_minute(times)
            ),
            Mistake("take the earlier time from the later one: your steps are negative, so all are below 60.", _negative),
            Mistake("this is a number of steps: divide by the number of all steps.", _counted),
            Mistake("a share from 0 to 1 is asked for, and no percentage.", lambda times: 100 * within_a_minute(times)),
            Mistake("take the time since the rating before, not since the user's first rating.", _from_the_first),
        ],
        after="a film lasts longer than a minute, so the order of these ratings is not an order of watching.",
    ),
    Exercise(
        "00.4",
        "NDCG with one target",
        reference=ndcg,
        cases=[(FIRST, "Alien"), (FIRST, "Fargo"), (FIRST, "Big"), (FIRST, "Speed"), (LONG, "Aliens")],
        mistakes=[
            Mistake(
                "this is the reciprocal rank. NDCG discounts by a logarithm, which punishes lower places less.", _reciprocal
            ),
            Mistake("the logarithm is to base 2, so that the first place is worth one.", _natural),
            Mistake("the first place must be worth one: with ranks from 0 it is log2(rank + 2).", _shifted),
            Mistake("NDCG is one divided by this logarithm: lower places must earn less.", _not_inverted),
            Mistake("log2 of one is zero: the rank counts from 0, so it is log2(rank + 2).", _rank_plus_one),
            Mistake("look at the whole list: a target at the eighth place counts too.", lambda r, t: ndcg(r[:5], t)),
            Mistake("this is the hit rate: it does not ask where in the list the target stands.", _hit),
        ],
        after="Averaged over users, this is NDCG@k.",
    ),
    Exercise(
        "00.5",
        "Count what followed what",
        reference=followed,
        cases=[(WINDOWS,), (WINDOWS[:2],)],
        mistakes=[
            Mistake("the pairs are the wrong way round: first the title from the history, then the target.", _backwards),
            Mistake("only the last title of each history is counted; every title of the history makes a pair.", _last_only),
            Mistake("a pair counts one way only. What comes before and what comes after is information.", _both_ways),
            Mistake(
                "you count each step within a window; only the step to the target counts, from every title before.",
                _neighbours,
            ),
            Mistake("each pair counts once here; count in how many windows it occurs.", _once),
        ],
        after="That table is all that the neighbour method knows.",
    ),
]
