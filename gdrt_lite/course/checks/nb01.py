"""Checks of notebook 01."""

from __future__ import annotations

import math

import pandas as pd
import torch
from torch import Tensor

from gdrt_lite import attribution
from gdrt_lite.course.checks import Exercise, Mistake


def read_targets(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    """log P of each label: logits (n, V), labels (T,), the first label stands at position `first`; returns (T,)."""
    rows = logits[first - 1 : first - 1 + len(labels)]
    return rows.log_softmax(-1)[torch.arange(len(labels)), labels]


def _own_row(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    rows = logits[first : first + len(labels)]
    return rows.log_softmax(-1)[torch.arange(len(labels)), labels]


def _raw_logits(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    return logits[first - 1 : first - 1 + len(labels)][torch.arange(len(labels)), labels]


def _probabilities(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    return read_targets(logits, labels, first).exp()


def _every_pair(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    return logits[first - 1 : first - 1 + len(labels)].log_softmax(-1)[:, labels]


def _logit_cases() -> list[tuple[Tensor, Tensor, int]]:
    generator = torch.Generator().manual_seed(0)
    made = [(6, 5, [3, 0], 4), (7, 9, [8, 2, 2], 3)]  # a row is left after the last label, so that no mistake crashes
    return [(3 * torch.randn(n, v, generator=generator), torch.tensor(labels), first) for n, v, labels, first in made]


def _mean(frame: pd.DataFrame, segment: str) -> float:
    return float(frame[frame.segment == segment].attribution.abs().mean())


def _signed(frame: pd.DataFrame) -> float:
    mean = frame.groupby("segment").attribution.mean().abs()
    return float((mean["TASK"] + mean["PREFIX"]) / mean["HISTORY"])


def _zeros(frame: pd.DataFrame) -> float:
    return attribution.bias_ratio(frame.fillna({"attribution": 0.0}))


def _task_only(frame: pd.DataFrame) -> float:
    return _mean(frame, "TASK") / _mean(frame, "HISTORY")


def _upside_down(frame: pd.DataFrame) -> float:
    return 1 / attribution.bias_ratio(frame)


def _over_tokens(frame: pd.DataFrame) -> float:
    return (_mean(frame, "TASK") + _mean(frame, "PREFIX")) / _mean(frame, "HISTORY")


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


def _same_length(prompt: Prompt, segment: str, how: str, neutral: int, donor: Prompt) -> list[int]:
    pool = [i for own, ids in donor if own == segment for i in ids]
    return leave_out([(own, ids if own != segment or how != "resample" else pool[: len(ids)]) for own, ids in prompt],
                     "" if how == "resample" else segment, how, neutral, donor)  # fmt: skip


def _always_the_first(prompt: Prompt, segment: str, how: str, neutral: int, donor: Prompt) -> list[int]:
    return leave_out(prompt, segment, how, neutral, [piece for piece in donor if piece[0] == segment][:1])


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

_TWO_USERS = pd.concat(
    [
        attribution_frame([0.5, -0.2, 0.1], [0.3, -0.4, 0.2], [2.0, -1.0]),
        attribution_frame([2.0, 0.3], [0.2, -0.1], [5.0], user="b"),
    ],
    ignore_index=True,
)

EXERCISES = [
    Exercise(
        "01.1",
        "Read the right row",
        reference=read_targets,
        cases=_logit_cases,
        mistakes=[
            Mistake("you read the row of the token itself. A causal model predicts a token in the row before it.", _own_row),
            Mistake(
                "these are logits, not log-probabilities. Normalise over the vocabulary first (log_softmax).", _raw_logits
            ),
            Mistake("these are probabilities; the logarithm is missing.", _probabilities),
            Mistake(
                "you picked every label in every row, shape (T, T). Pair row t with label t: index with an arange.",
                _every_pair,
            ),
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
                "resample keeps your prompt's length; a donor's title comes whole, be it longer or shorter.", _same_length
            ),
            Mistake(
                "every title became the donor's first; the second place takes the second title, and so on.",
                _always_the_first,
            ),
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
        cases=[(_TWO_USERS,), (attribution_frame([1.0, 0.4], [-0.1, 0.6], [3.0]),)],
        mistakes=[
            Mistake("take |A| before the mean: here positive and negative attributions cancel.", _signed),
            Mistake(
                "the prefix does not exist at t = 0. NaN means 'no value', not zero: "
                "take means without these rows (not sums).",
                _zeros,
            ),
            Mistake("every token counts alike here; take the mean within each user first, then over users.", _over_tokens),
            Mistake("where is PREFIX? It belongs to the auxiliary tokens, beside TASK.", _task_only),
            Mistake("upside down: the auxiliary tokens stand above the fraction bar.", _upside_down),
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
        ],
        tolerance=2e-2,
        after="It leans on the task description. It does not follow that this is wrong: that needs a signed look.",
    ),
]
