"""Feature ablation attribution (FAA): how much does a target token's log-probability drop without a segment?

    A_g(t) = log P(y_t | x) - log P(y_t | x without g),   g in {TASK, HISTORY, PREFIX}

captum's `FeatureAblation` does the ablating: its input is a vector that says which features are present, and its forward
function builds the prompt that has just these. "Without" has several meanings, see `ablation`.
Source: arXiv 2510.10978, section 2. Derived in notebook 01, sections 2 to 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from captum.attr import FeatureAblation

from gdrt_lite import prompts
from gdrt_lite.ablation import ABLATIONS, FEATURES, ablate
from gdrt_lite.data import Example
from gdrt_lite.lm import LanguageModel, target_logprobs
from gdrt_lite.prompts import PREFIX, SEGMENT_NAMES, Encoded


def feature_ablation(
    lm: LanguageModel,
    examples: Sequence[Example],
    ablation: str = "attention",
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = False,
) -> pd.DataFrame:
    """FAA of the three segments on every target token.

    Args:
        lm: the model with its prompt.
        examples: at least two for "resample", whose donors are drawn among them.
        ablation: one of `ABLATIONS`.
        seed: random seed for drawing donors.
        batch_size: examples handed to captum at once, those of a user together: what their prompts share is read once.
        progress: show a progress bar.

    Returns:
        One row per example, target token and segment: example (index), user, position (t, from 0), token, segment (name),
        attribution (nats; positive: the segment helps; NaN for PREFIX at t = 0, where there is none), logprob (nats, with
        nothing ablated), n_tokens (length of the segment).

    Raises:
        ValueError: no example, an unknown ablation, an empty history, or a single example with "resample".
    """
    if ablation not in ABLATIONS:
        raise ValueError(f"ablation={ablation!r} is unknown; choose one of {', '.join(ABLATIONS)}.")
    if not examples:
        raise ValueError("examples is empty: attribution needs at least one example.")
    if ablation == "resample" and len(examples) < 2:
        raise ValueError("ablation='resample' needs two examples or more: the segments come from each other.")
    for i, example in enumerate(examples):
        if not example.history:
            raise ValueError(f"examples[{i}] (user {example.user}) has an empty history: there is nothing to ablate.")
    from tqdm.auto import tqdm

    encoded = [lm.encode(example.history, example.target) for example in examples]
    donors = _donors(len(examples), seed)
    by_user = sorted(range(len(examples)), key=lambda i: (examples[i].user, i))
    frames = {}
    for start in tqdm(range(0, len(examples), batch_size), desc=f"FAA ({ablation})", disable=not progress):
        index = by_user[start : start + batch_size]
        rows = [encoded[i] for i in index]
        others = [encoded[donors[i]] for i in index]
        attributions, logprobs = _captum_ablation(lm, rows, others, ablation)
        for i, row, attribution, logprob in zip(index, rows, attributions, logprobs, strict=True):
            frames[i] = _tidy(lm, i, examples[i].user, row, attribution, logprob)
    return pd.concat([frames[i] for i in range(len(examples))], ignore_index=True)


def segment_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Per segment: mean |A|, signed mean A, and mean |A| per token of the segment, in nats per target token."""
    known = frame.dropna(subset="attribution")
    rows = known.assign(abs=known.attribution.abs(), per_token=known.attribution.abs() / known.n_tokens)
    table = rows.groupby("segment")[["abs", "attribution", "per_token"]].mean()
    table.columns = ["mean_abs", "mean_signed", "mean_abs_per_token"]
    return table.reindex([SEGMENT_NAMES[s] for s in FEATURES])


def bias_ratio(frame: pd.DataFrame) -> float:
    """(A_TASK + A_PREFIX) / A_HISTORY: above 1 the model leans on auxiliary tokens.

    A_g is the mean over users of each user's mean |A_g|, so that every user counts alike (see `mean_abs_per_user`).
    The paper reports more than 6 after SFT and a balance after GDRT. Derived in notebook 01, section 4.
    """
    mean = mean_abs_per_user(frame).mean()
    if mean["HISTORY"] == 0:
        return float("inf")
    return float((mean["TASK"] + mean["PREFIX"]) / mean["HISTORY"])


def mean_abs_per_user(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean |A| per user (rows) and segment (columns), in nats per target token: what a bootstrap over users resamples."""
    known = frame.dropna(subset="attribution")
    return known.assign(a=known.attribution.abs()).pivot_table(index="user", columns="segment", values="a", aggfunc="mean")


def token_attribution(lm: LanguageModel, example: Example) -> pd.DataFrame:
    """FAA of every single prompt token on the whole target: each in turn becomes the neutral token.

    Returns:
        One row per prompt token: token, segment (name), attribution in nats, summed over the target tokens.
    """
    whole = lm.encode(example.history, example.target)
    n = whole.predict_at[0] + 1
    neutral = neutral_id(lm)

    def forward(present: torch.Tensor) -> torch.Tensor:
        rows = [
            replace(
                whole, ids=tuple(i if keep else neutral for i, keep in zip(whole.ids, row, strict=False)) + whole.ids[n:]
            )
            for row in present.bool().tolist()
        ]
        return torch.stack([scores.sum() for scores in target_logprobs(lm, rows)])

    attribution = FeatureAblation(forward).attribute(torch.ones(1, n), perturbations_per_eval=n)[0]
    tokens = [lm.tokenizer.decode([i]) for i in whole.ids[:n]]
    return pd.DataFrame(
        {"token": tokens, "segment": [SEGMENT_NAMES[s] for s in whole.segments[:n]], "attribution": attribution.numpy()}
    )


def neutral_id(lm: LanguageModel) -> int:
    """The neutral token that replaces an ablated one, see `prompts.neutral_id`."""
    return prompts.neutral_id(lm.tokenizer)


def _captum_ablation(
    lm: LanguageModel, rows: list[Encoded], donors: list[Encoded], ablation: str
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Attributions (T, 3) and log-probabilities (T,) of each prompt, through captum's FeatureAblation."""
    neutral = neutral_id(lm)
    longest = max(len(row.labels) for row in rows)

    def prompt_with(present: Sequence[bool], i: int) -> Encoded:
        gone = [segment for segment, keep in zip(FEATURES, present, strict=True) if not keep]
        return ablate(rows[i], gone[0], ablation, neutral, donors[i]) if gone else rows[i]

    # captum asks for one set of features after another. Scored together, prompts that begin alike are read as one tree.
    one_gone = [[segment != gone for segment in FEATURES] for gone in FEATURES]
    wanted = {prompt_with(present, i): None for i in range(len(rows)) for present in [[True] * len(FEATURES), *one_gone]}
    scored = dict(zip(wanted, target_logprobs(lm, list(wanted)), strict=True))

    def forward(present: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        # (N, 3) flags of present segments and (N,) indices of examples -> (N, T) log-probabilities, padded with 0
        asked = [scored[prompt_with(flags, i)] for flags, i in zip(present.bool().tolist(), index.tolist(), strict=True)]
        return torch.stack([torch.nn.functional.pad(row, (0, longest - len(row))) for row in asked])

    index = torch.arange(len(rows))
    whole = forward(torch.ones(len(rows), len(FEATURES)), index)
    drop = FeatureAblation(forward).attribute(
        torch.ones(len(rows), len(FEATURES)), additional_forward_args=(index,), perturbations_per_eval=len(FEATURES)
    )
    drop = drop.reshape(len(rows), longest, len(FEATURES))
    lengths = [len(row.labels) for row in rows]
    return [d[:n] for d, n in zip(drop, lengths, strict=True)], [w[:n] for w, n in zip(whole, lengths, strict=True)]


def _tidy(
    lm: LanguageModel, index: int, user: str, row: Encoded, attribution: torch.Tensor, logprob: torch.Tensor
) -> pd.DataFrame:
    t = np.arange(len(row.labels))
    tokens = [lm.tokenizer.decode([i]) for i in row.labels]
    columns = []
    for column, segment in enumerate(FEATURES):
        values = attribution[:, column].numpy().astype(float)
        if segment == PREFIX:
            values = np.where(t == 0, np.nan, values)
        n_tokens = t if segment == PREFIX else np.full(len(t), len(row.positions(segment)))
        columns.append(
            pd.DataFrame(
                {
                    "example": index,
                    "user": user,
                    "position": t,
                    "token": tokens,
                    "segment": SEGMENT_NAMES[segment],
                    "attribution": values,
                    "logprob": logprob.numpy(),
                    "n_tokens": n_tokens,
                }
            )
        )
    return pd.concat(columns, ignore_index=True)


def _donors(n: int, seed: int) -> list[int]:
    """For each example the index of another one: a random cycle through all of them."""
    order = np.random.default_rng(seed).permutation(n)
    donors = np.empty(n, dtype=int)
    donors[order] = np.roll(order, -1)
    return donors.tolist()
