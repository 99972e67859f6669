"""Feature ablation attribution (FAA): how much does a target token's log-probability drop without a segment?

    A_g(t) = log P(y_t | x) - log P(y_t | x without g),   g in {TASK, HISTORY, PREFIX}

"Without" has several meanings, see `ablation`. The result is that of captum's `LLMAttribution`.
Source: arXiv 2510.10978, section 2. Derived in notebook 01, sections 2 to 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

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
        examples: at least two for "resample", whose donors are drawn among them by `seed`.
        ablation: one of `ABLATIONS`.
        batch_size: examples scored at once, those of a user together: what their prompts share is read once.

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
    encoded, neutral = [lm.encode(example.history, example.target) for example in examples], neutral_id(lm)
    order = np.random.default_rng(seed).permutation(len(examples))
    donors = dict(zip(order.tolist(), np.roll(order, -1).tolist(), strict=True))  # a random cycle through all examples
    by_user = sorted(range(len(examples)), key=lambda i: (examples[i].user, i))
    frames = {}
    for start in tqdm(range(0, len(examples), batch_size), desc=f"FAA ({ablation})", disable=not progress):
        index = by_user[start : start + batch_size]
        without = {i: [ablate(encoded[i], g, ablation, neutral, encoded[donors[i]]) for g in FEATURES] for i in index}
        # Scored together, prompts that begin alike are read as one tree.
        asked = list(dict.fromkeys(prompt for i in index for prompt in (encoded[i], *without[i])))
        scored = dict(zip(asked, target_logprobs(lm, asked), strict=True))
        for i in index:
            whole = scored[encoded[i]]
            drops = [whole - scored[prompt] for prompt in without[i]]
            frames[i] = _tidy(lm, encoded[i], whole, drops).assign(example=i, user=examples[i].user)
    columns = ["example", "user", "position", "token", "segment", "attribution", "logprob", "n_tokens"]
    return pd.concat([frames[i] for i in range(len(examples))], ignore_index=True)[columns]


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
    whole, neutral = lm.encode(example.history, example.target), neutral_id(lm)
    n = whole.predict_at[0] + 1
    rows = [replace(whole, ids=(*whole.ids[:p], neutral, *whole.ids[p + 1 :])) for p in range(n)]
    reference, *scores = [float(found.sum()) for found in target_logprobs(lm, [whole, *rows])]
    return pd.DataFrame(
        {
            "token": [lm.tokenizer.decode([i]) for i in whole.ids[:n]],
            "segment": [SEGMENT_NAMES[s] for s in whole.segments[:n]],
            "attribution": [reference - score for score in scores],
        }
    )


def neutral_id(lm: LanguageModel) -> int:
    """The neutral token that replaces an ablated one, see `prompts.neutral_id`."""
    return prompts.neutral_id(lm.tokenizer)


def _tidy(lm: LanguageModel, row: Encoded, logprob: torch.Tensor, drops: list[torch.Tensor]) -> pd.DataFrame:
    """One prompt's rows of `feature_ablation`, from what its T log-probabilities lose without each segment, (T,) each."""
    t, frames = np.arange(len(row.labels)), []
    shared = {"position": t, "token": [lm.tokenizer.decode([i]) for i in row.labels], "logprob": logprob.numpy()}
    for segment, drop in zip(FEATURES, drops, strict=True):
        values = drop.numpy().astype(float)
        own = values if segment != PREFIX else np.where(t == 0, np.nan, values)
        n_tokens = t if segment == PREFIX else len(row.positions(segment))
        frames.append(pd.DataFrame(shared | {"segment": SEGMENT_NAMES[segment], "attribution": own, "n_tokens": n_tokens}))
    return pd.concat(frames, ignore_index=True)
