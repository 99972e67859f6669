"""Exact ranking of 500 titles: `decoding.rank_catalogue` against one forward pass per title, in batches."""

from __future__ import annotations

import torch

from benchmarks.common import DEVICE, compare, distinct_tokens, examples, language_model, roofline, seconds, splits
from gdrt_lite import decoding, lm
from gdrt_lite.trie import TitleTrie

BATCH = 16


def one_by_one(model: lm.LanguageModel, history: tuple[str, ...], titles: list[str]) -> dict[str, float]:
    """The peer: prompt and title in a row, 16 rows a batch, right padding, logits of the whole row."""
    scores = {}
    for start in range(0, len(titles), BATCH):
        chosen = titles[start : start + BATCH]
        rows = [model.encode(history, title) for title in chosen]
        width = max(map(len, rows))
        ids = torch.tensor([[*row.ids, *[0] * (width - len(row))] for row in rows], device=DEVICE)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=DEVICE)
        with torch.inference_mode():
            logits = model.model(input_ids=ids, attention_mask=mask).logits
        for title, row, own in zip(chosen, rows, logits, strict=True):
            logprobs = own[list(row.predict_at)].float().log_softmax(-1)
            scores[title] = float(logprobs[range(len(row.labels)), list(row.labels)].sum())
    return scores


def run(tiny: bool = False) -> dict:
    """Ratio, largest difference in float32 (nats a title), roofline; and beside it seconds a user of beam 10."""
    titles = splits().catalogue[: 40 if tiny else 500]
    history = examples(1)[0].history
    exact, model = language_model(tiny, torch.float32), language_model(tiny)
    mine, theirs = dict(decoding.score_catalogue(exact, history, titles)), one_by_one(exact, history, titles[:BATCH])
    found = compare(
        lambda units: decoding.score_catalogue(model, history, units), lambda units: one_by_one(model, history, units),
        titles, titles[:: len(titles) // (2 * BATCH) or 1], 2,
    )  # fmt: skip
    trie = TitleTrie(splits().catalogue, model.tokenizer)
    rows = [model.encode(history, title) for title in titles]
    labels = sum(len(row.labels) for row in rows) / len(rows)
    share = roofline(model, distinct_tokens(rows) / len(rows), labels, found["ours_s"])
    return {
        "ours_s": found["ours_s"] * len(titles),
        "peer_s": found["peer_s"] * len(titles),
        "ratio": found["ratio"],
        "roofline": share,
        "max_difference_fp32": max(abs(mine[title] - score) for title, score in theirs.items()),
        "titles": len(titles),
        "beam_10_s": min(seconds(lambda: decoding.recommend(model, [history] * 4, trie)) / 4 for _ in range(2)),
    }
