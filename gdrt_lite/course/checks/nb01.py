"""Checks of notebook 01."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import cycle, islice

import pandas as pd
import torch
from torch import Tensor

from gdrt_lite import attribution
from gdrt_lite.course.checks import Exercise, Mistake


def read_targets(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    """log P of each label: logits (n, V), labels (T,), the first label stands at position `first`; returns (T,)."""
    rows = logits[first - 1 : first - 1 + len(labels)]
    return rows.log_softmax(-1)[torch.arange(len(labels)), labels]


def _raw_logits(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    return logits[first - 1 : first - 1 + len(labels)][torch.arange(len(labels)), labels]


def _over_positions(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    return _raw_logits(logits.log_softmax(0), labels, first)


def _over_targets(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    return _raw_logits(logits[first - 1 : first - 1 + len(labels)].log_softmax(0), labels, 1)


def _every_pair(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    return logits[first - 1 : first - 1 + len(labels)].log_softmax(-1)[:, labels]


def _likeliest(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    return logits[first - 1 : first - 1 + len(labels)].log_softmax(-1).amax(-1)


def _logit_cases() -> list[tuple[Tensor, Tensor, int]]:
    generator = torch.Generator().manual_seed(0)
    made = [(6, 5, [3, 0], 4), (7, 9, [8, 2, 2], 3)]  # a row is left after the last label, so that no mistake crashes
    return [(3 * torch.randn(n, v, generator=generator), torch.tensor(labels), first) for n, v, labels, first in made]


def _means(frame: pd.DataFrame, absolute: bool = True, pooled: bool = False) -> pd.DataFrame:
    """Mean |A| or A, users in rows and segments in columns; pooled: TASK and PREFIX as one segment, "AUXILIARY"."""
    segment = frame.segment.replace({"TASK": "AUXILIARY", "PREFIX": "AUXILIARY"}) if pooled else frame.segment
    values = frame.attribution.abs() if absolute else frame.attribution
    return values.groupby([frame.user, segment]).mean().unstack()


def _over(mean: pd.Series) -> float:
    return float((mean["TASK"] + mean["PREFIX"]) / mean["HISTORY"])


def _all_as_one(answer: Callable[[pd.DataFrame], float]) -> Callable[[pd.DataFrame], float]:
    """The answer in which every token counts alike, as if all were of one user."""
    return lambda frame: answer(frame.assign(user="all"))


def _signed(frame: pd.DataFrame) -> float:
    return _over(_means(frame, absolute=False).mean())


def _abs_at_last(frame: pd.DataFrame) -> float:
    return _over(_means(frame, absolute=False).mean().abs())


def _abs_of_users(frame: pd.DataFrame) -> float:
    return _over(_means(frame, absolute=False).abs().mean())


def _zeros(frame: pd.DataFrame) -> float:
    return attribution.bias_ratio(frame.fillna({"attribution": 0.0}))


def _sums(frame: pd.DataFrame) -> float:
    return _over(frame.attribution.abs().groupby(frame.segment).sum())


def _task_only(frame: pd.DataFrame) -> float:
    mean = _means(frame).mean()
    return float(mean["TASK"] / mean["HISTORY"])


def _of_each_user(frame: pd.DataFrame) -> float:
    return float(_means(frame).apply(_over, axis=1).mean())


def _pooled(frame: pd.DataFrame) -> float:
    mean = _means(frame, pooled=True).mean()
    return float(mean["AUXILIARY"] / mean["HISTORY"])


def _no_brackets(frame: pd.DataFrame) -> float:
    mean = _means(frame).mean()
    return float(mean["TASK"] + mean["PREFIX"] / mean["HISTORY"])


def attribution_frame(task: list[float], history: list[float], prefix: list[float], user: str = "a") -> pd.DataFrame:
    """One example's attributions as `attribution.feature_ablation` returns them; the prefix has none at t = 0."""
    columns = {"TASK": task, "HISTORY": history, "PREFIX": [math.nan, *prefix]}
    rows = [
        {"user": user, "segment": name, "position": t, "attribution": a, "n_tokens": t if name == "PREFIX" else 4}
        for name, values in columns.items()
        for t, a in enumerate(values)
    ]
    return pd.DataFrame(rows)


Prompt = list[tuple[str, list[int]]]  # pieces in order: segment, tokens


def leave_out(prompt: Prompt, segment: str, how: str, neutral: int, donor: Prompt) -> list[int]:
    """The tokens that the model reads once `segment` is left out by "token", "delete" or "resample"."""
    pool, read, place = [ids for own, ids in donor if own == segment], [], 0
    for own, ids in prompt:
        if own != segment:
            read += ids
        elif how == "token":
            read += [neutral] * len(ids)
        elif how == "resample":
            read += pool[place % len(pool)]
            place += 1
    return read


Pieces = list[list[int]]  # those of one segment


def _resampling(donated: Callable[[Pieces, Pieces], Pieces]) -> Callable[..., list[int]]:
    """`leave_out` with another resample: `donated` makes what is read of the segment from our pieces and the donor's."""

    def answer(prompt: Prompt, segment: str, how: str, neutral: int, donor: Prompt) -> list[int]:
        if how != "resample":
            return leave_out(prompt, segment, how, neutral, donor)
        ours, theirs = ([ids for own, ids in pieces if own == segment] for pieces in (prompt, donor))
        read = iter(donated(ours, theirs))
        return [i for own, ids in prompt for i in (next(read) if own == segment else ids)]

    return answer


def _token_by_token(ours: Pieces, theirs: Pieces) -> Pieces:
    tokens = cycle([i for ids in theirs for i in ids])
    return [list(islice(tokens, len(ids))) for ids in ours]


def _zipped(prompt: Prompt, segment: str, how: str, neutral: int, donor: Prompt) -> list[int]:
    pairs = list(zip(prompt, donor))
    swapped = [(own, theirs if own == segment and how == "resample" else ids) for (own, ids), (_, theirs) in pairs]
    return leave_out(swapped, "" if how == "resample" else segment, how, neutral, donor)


def _zipped_to_resample(prompt: Prompt, segment: str, how: str, neutral: int, donor: Prompt) -> list[int]:
    return (_zipped if how == "resample" else leave_out)(prompt, segment, how, neutral, donor)


def _counted_in_the_prompt(prompt: Prompt, segment: str, how: str, neutral: int, donor: Prompt) -> list[int]:
    pool = [ids for own, ids in donor if own == segment]
    read = [(own, pool[place % len(pool)] if own == segment else ids) for place, (own, ids) in enumerate(prompt)]
    return [i for _, ids in read for i in ids] if how == "resample" else leave_out(prompt, segment, how, neutral, donor)


def _all_the_rest(prompt: Prompt, segment: str, how: str, neutral: int, donor: Prompt) -> list[int]:
    turned = [("kept" if own == segment else segment, ids) for own, ids in prompt]
    return leave_out(turned, segment, how, neutral, [(segment, ids) for own, ids in donor if own != segment])


def _one_blank(prompt: Prompt, segment: str, how: str, neutral: int, donor: Prompt) -> list[int]:
    blank = [(own, [neutral] if own == segment else ids) for own, ids in prompt]
    return leave_out(blank if how == "token" else prompt, segment, how, neutral, donor)


def _the_donors_prompt(prompt: Prompt, segment: str, how: str, neutral: int, donor: Prompt) -> list[int]:
    return [i for _, ids in donor for i in ids] if how == "resample" else leave_out(prompt, segment, how, neutral, donor)


def _titles(*histories: list[int]) -> Prompt:
    return [("TASK", [1, 2]), *(piece for ids in histories for piece in [("HISTORY", ids), ("TASK", [3])]), ("TARGET", [9])]


_ABLATIONS = [
    (_titles([11, 12, 13], [14], [15, 16]), "HISTORY", how, 0, donor)
    for how in ("token", "delete", "resample")
    for donor in (_titles([21], [22, 23]), _titles([24, 25], [26, 27, 28], [29], [30]))
]

_LONG = attribution_frame([0.5, -0.2, 0.1], [0.3, -0.4, 0.2], [2.0, -1.0])
_TWO_USERS = pd.concat([_LONG, attribution_frame([2.0, 0.3], [0.2, -0.1], [5.0], user="b")], ignore_index=True)
_OTHER_SIGNS = pd.concat(  # means of either sign, within a user and over users
    [attribution_frame([0.2, -0.6], [-0.5, 0.1], [1.0]), attribution_frame([0.4, 0.9], [0.3, -0.2], [-2.5], user="b")],
    ignore_index=True,
)

EXERCISES = [
    Exercise(
        "01.1",
        "Read the right row",
        reference=read_targets,
        cases=_logit_cases,
        mistakes=[
            Mistake(
                "you read the row of the token itself. A causal model predicts a token in the row before it.",
                lambda logits, labels, first: read_targets(logits, labels, first + 1),
            ),
            Mistake(
                "these are logits, not log-probabilities. Normalise over the vocabulary first (log_softmax).", _raw_logits
            ),
            Mistake("these are probabilities; the logarithm is missing.", lambda *case: read_targets(*case).exp()),
            Mistake(
                "you picked every label in every row, shape (T, T). Pair row t with label t: index with an arange.",
                _every_pair,
            ),
            Mistake("the sign is turned: cross_entropy is -log P, a loss.", lambda *case: -read_targets(*case)),
            Mistake("this is one mean loss; return the log P of each token.", lambda *case: -read_targets(*case).mean()),
            Mistake(
                "this is the mean over the title; return one value per token.", lambda *case: read_targets(*case).mean()
            ),
            Mistake("this is the sum over the title; return one value per token.", lambda *case: read_targets(*case).sum()),
            Mistake("gather leaves a column, shape (T, 1); squeeze it.", lambda *case: read_targets(*case)[:, None]),
            Mistake("dim 0 of your rows runs over the tokens; normalise over the vocabulary, dim -1.", _over_targets),
            Mistake("dim 0 of the logits runs over the prompt; normalise over the vocabulary, dim -1.", _over_positions),
            Mistake("this is each row's largest value, that of the likeliest token; take the label's.", _likeliest),
        ],
        after="Every number of this course goes through this reading.",
    ),
    Exercise(
        "01.2",
        "Write the ablations",
        reference=leave_out,
        cases=_ABLATIONS,
        mistakes=[
            Mistake(
                "resample keeps your prompt's length; a donor's title comes whole, be it longer or shorter.",
                _resampling(lambda ours, theirs: [sum(theirs, [])[: len(ids)] for ids in ours]),
            ),
            Mistake(
                "resample cuts a donor's title to the length of ours; it comes whole.",
                _resampling(lambda ours, theirs: [new[: len(ids)] for ids, new in zip(ours, cycle(theirs))]),
            ),
            Mistake(
                "resample cuts or fills a donor's title to the length of ours; it comes whole, with nothing after it.",
                _resampling(
                    lambda ours, theirs: [[*new, *[0] * len(ids)][: len(ids)] for ids, new in zip(ours, cycle(theirs))]
                ),
            ),
            Mistake("resample fills our places token by token; take a donor's title whole.", _resampling(_token_by_token)),
            Mistake(
                "every title became the donor's first; the second place takes the second title, and so on.",
                _resampling(lambda ours, theirs: [theirs[0] for _ in ours]),
            ),
            Mistake(
                "all of the donor's titles stand at the first place; each place takes one.",
                _resampling(lambda ours, theirs: [sum(theirs, []), *([] for _ in ours[1:])]),
            ),
            Mistake(
                "where the donor has no title left, ours stays; begin again with the donor's first.",
                _resampling(lambda ours, theirs: [*theirs[: len(ours)], *ours[len(theirs) :]]),
            ),
            Mistake(
                "where the donor has no title left, the place stays empty; begin again with the donor's first.",
                _resampling(lambda ours, theirs: [*theirs[: len(ours)], *([] for _ in ours[len(theirs) :])]),
            ),
            Mistake(
                "where the donor has no title left, its last is repeated; begin again with its first.",
                _resampling(lambda ours, theirs: [*theirs[: len(ours)], *(theirs[-1] for _ in ours[len(theirs) :])]),
            ),
            Mistake("resample counts all pieces of the prompt; count the segment's alone.", _counted_in_the_prompt),
            Mistake("zip(prompt, donor) stops with the shorter, whatever `how` is. Walk over the whole prompt.", _zipped),
            Mistake("zip(prompt, donor) stops with the shorter; pair the segment's pieces alone.", _zipped_to_resample),
            Mistake("you left out everything but the segment; the segment goes, and the rest stays.", _all_the_rest),
            Mistake(
                "token puts one neutral token for the whole segment; put one for each token, so that the length stays.",
                _one_blank,
            ),
            Mistake(
                "resample took the donor's whole prompt; only the segment is the donor's, the rest is ours.",
                _the_donors_prompt,
            ),
        ],
        after="every ablation asks a question of its own, and this is where it is asked.",
    ),
    Exercise(
        "01.3",
        "The bias ratio",
        reference=attribution.bias_ratio,
        cases=[(_TWO_USERS,), (attribution_frame([1.0, 0.4], [-0.1, 0.6], [3.0]),), (_OTHER_SIGNS,)],
        mistakes=[
            Mistake("take |A| before the mean: here positive and negative attributions cancel.", _all_as_one(_abs_at_last)),
            Mistake("take |A| of each token, before the mean within a user and not after it.", _abs_of_users),
            Mistake("take |A| of each token, before the two means and not after them.", _abs_at_last),
            Mistake("the ratio is made of |A|; with their signs, helping and hurting tokens cancel.", _signed),
            Mistake("the ratio is made of |A|, and every user counts alike in it, not every token.", _all_as_one(_signed)),
            Mistake("the prefix does not exist at t = 0. NaN means 'no value', not zero: leave these rows out.", _zeros),
            Mistake("these are sums, or means with a zero at t = 0. Take means, and leave the NaN out.", _sums),
            Mistake("NaN: PREFIX has no value at t = 0, and np.mean passes that on. Leave its row out.", lambda _: math.nan),
            Mistake(
                "every token counts alike here; take the mean within each user first, then over users.",
                _all_as_one(attribution.bias_ratio),
            ),
            Mistake("this is the mean of the users' ratios; take the mean of each A_g, then divide once.", _of_each_user),
            Mistake("TASK and PREFIX are in one mean here; the formula adds the means of the two.", _pooled),
            Mistake("TASK and PREFIX are in one mean over tokens; add two means over users.", _all_as_one(_pooled)),
            Mistake("without brackets only PREFIX is divided by HISTORY; their sum should be.", _no_brackets),
            Mistake("where is PREFIX? It belongs to the auxiliary tokens, beside TASK.", _all_as_one(_task_only)),
            Mistake("where is PREFIX? It is an auxiliary token like TASK, and is added to it.", _task_only),
            Mistake("upside down: auxiliary tokens stand above the bar.", lambda frame: 1 / attribution.bias_ratio(frame)),
        ],
        after="Above one, the model leans on the auxiliary tokens.",
    ),
    Exercise(
        "01.4",
        "Moved, but where to",
        reference="b",
        mistakes=[
            Mistake("if it ignored the history, nothing would move, and mean |A| would be near zero too.", "a"),
            Mistake("then the true history would raise the target's probability, and the signed mean would be large.", "c"),
            Mistake("resample shows the model a real history of a real user: nothing about that prompt is strange.", "d"),
        ],
        after="Absolute attribution says 'it reacts'; only the sign says 'and it helps'.",
    ),
    Exercise(
        "01.5",
        "Ten against sixty",
        reference=math.log(0.4) / math.log(0.9),
        mistakes=[
            Mistake("this divides the drops. Attribution is a difference of logarithms: take the log of what is left.", 6.0),
            Mistake("upside down: auxiliary above, history below the fraction bar.", math.log(0.9) / math.log(0.4)),
            Mistake(
                "log of the drop; you want the log of the probability that is left after it.", math.log(0.6) / math.log(0.1)
            ),
            Mistake("the ratio of what is left needs logarithms above and below the bar.", 0.9 / 0.4),
            Mistake("what is left is right, 0.4 and 0.9; the logarithm of each is missing.", 0.4 / 0.9),
            Mistake("these are logarithms of the per cent; take those of what is left.", math.log(60) / math.log(10)),
            Mistake("this is a rise by 60% and by 10%; after a fall less than one is left.", math.log(1.6) / math.log(1.1)),
            Mistake("near. If you rounded, give one decimal; if not, compare logarithms of what is left.", 9.0),
        ],
        tolerance=2e-2,
        after="For this target the task description counts far more than the user. The last fold says what follows from it.",
    ),
]
