"""Token relevance of a training set: distinct titles with a shared opening, against one forward pass an example."""

from __future__ import annotations

import torch

from benchmarks.common import examples, seconds, splits
from gdrt_lite import lm, relevance


def one_by_one(model: lm.LanguageModel, targets: list[str]) -> list[torch.Tensor]:
    """The peer: every example on its own, the whole vocabulary."""
    scores = []
    for title in targets:
        row = model.encode((), title)
        with torch.inference_mode():
            logprobs = model.model(torch.tensor([row.ids])).logits[0].float().log_softmax(-1)
        scores.append(logprobs[list(row.predict_at), list(row.labels)])
    return scores


def run() -> dict:
    """Seconds for a training set of 10,000 windows on both sides; the peer's from 32 examples."""
    model, n = lm.load(device="cpu"), 10_000
    targets = [e.target for e in examples(n)]
    titles = splits().catalogue
    relevance.token_relevance(model, titles[:20]), one_by_one(model, targets[:2])
    ours = min(seconds(lambda: relevance.token_relevance(model, titles)) for _ in range(3))
    peer = min(seconds(lambda: one_by_one(model, targets[:32])) for _ in range(3)) / 32 * len(targets)
    exact = lm.load(dtype=torch.float32, device="cpu")
    found = relevance.token_relevance(exact, titles[:8])
    difference = max(
        float((a - found[t]).abs().max()) for t, a in zip(titles[:8], one_by_one(exact, titles[:8]), strict=True)
    )
    return {
        "ours_s": ours / n,
        "peer_s": peer / n,
        "ratio": peer / ours,
        "titles": len(titles),
        "windows": n,
        "max_difference_fp32": difference,
    }
