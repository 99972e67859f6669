"""What GDRT costs over SFT: seconds a target of both objectives, relevance and grouping included."""

from __future__ import annotations

import statistics

from benchmarks.common import distinct_tokens, language_model, roofline, seconds, splits, whole_chunks
from gdrt_lite import relevance, training
from gdrt_lite.objectives import groups_for

EPOCH = 10_000  # targets of a training, over which relevance and K-means are spread


def run(tiny: bool = False) -> dict:
    """Ratio of GDRT to SFT: relevance of the catalogue and K-means once in 10,000 targets, then the steps."""
    model, some = language_model(tiny), whole_chunks(2)
    targets = [example.target for example in splits().train[:EPOCH]]
    titles = sorted(set(targets))[: 40 if tiny else None]
    scores: dict = {}
    groups_s = seconds(lambda: scores.update(relevance.token_relevance(model, titles)))
    groups_s += seconds(lambda: groups_for("gdrt", scores, [t for t in targets if t in scores], 5, 0))
    groups = training.make_groups("gdrt", model, some)

    def target_s(objective: str) -> float:
        args = training.arguments(model, batch_size=len(some) // 2)
        return training.finetune(model, some, objective, args, groups=groups, progress=False).seconds / len(some)

    pairs = [(target_s("sft"), target_s("gdrt")) for _ in range(1 if tiny else 4)][0 if tiny else 1 :]
    sft, gdrt = (statistics.median(side) for side in zip(*pairs, strict=True))
    ours, rows = gdrt + groups_s / EPOCH, [model.encode(e.history, e.target) for e in some]
    tokens, labels = distinct_tokens(rows) / len(rows), sum(len(row.labels) for row in rows) / len(rows)
    share = roofline(model, tokens, labels, ours, passes=2)
    return {"ours_s": ours, "peer_s": sft, "ratio": ours / sft, "roofline": share, "groups_s": groups_s}
