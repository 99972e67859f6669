"""What GDRT costs over SFT: seconds a step of both objectives, relevance and grouping included."""

from __future__ import annotations

import statistics

from benchmarks.common import examples, seconds
from gdrt_lite import lm, training

STEPS = 2


def run() -> dict:
    """Ratio of GDRT to SFT for an epoch of 10,000 windows: relevance and K-means once, then the steps."""
    model, n, batch = lm.load(device="cpu"), 10_000, 16
    some = examples(STEPS * batch)
    all_ = examples(n)
    groups_s = seconds(lambda: training.make_groups("gdrt", model, all_))
    groups = training.make_groups("gdrt", model, some)
    pairs = []
    for _ in range(3):
        pairs.append(
            [
                training.finetune(
                    model, some, objective, training.arguments(model, batch_size=batch), groups=groups, progress=False
                ).seconds
                / len(some)
                for objective in ("sft", "gdrt")
            ]
        )
    sft, gdrt = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {"ours_s": gdrt + groups_s / n, "peer_s": sft, "ratio": (gdrt + groups_s / n) / sft, "groups_s": groups_s}
