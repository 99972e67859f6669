"""Accuracy at equal targets: the pocket model trained on growing windows against sliding ones, three seeds, valid users.

Both train on the same targets of the same users in the same number of steps; sliding windows have the longer histories. Both
are measured on the same sliding windows of users that took no part in the training.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.common import splits
from gdrt_lite import data, decoding, lm, metrics, plots, training
from gdrt_lite.lm import target_logprobs
from gdrt_lite.training.learning_curve import LearningCurve

SEEDS, TARGETS, EPOCHS, VALID = (0, 1, 2), 2000, 4, 300
SIZE = dict(history=10, titles=100)  # a catalogue from which the pocket model learns something in this time


def train_on(growing: bool, n: int, seed: int) -> list[data.Example]:
    """n training examples: whole chunks of growing windows, or the sliding windows with the same targets."""
    chosen = data.sample(splits(growing=True, **SIZE).train, n, seed, whole_chunks=True)
    if growing:
        return chosen
    sliding = {(e.user, e.target, e.time): e for e in splits(**SIZE).train}
    return [sliding[e.user, e.target, e.time] for e in chosen]


def run(tiny: bool = False) -> dict:
    """NDCG@10 and item NLL on valid users after each epoch; a row per kind of window, seed and epoch, written as CSV."""
    valid = data.sample(splits(**SIZE).valid, 4 if tiny else VALID, seed=0)
    histories, targets = [e.history for e in valid], [e.target for e in valid]

    def figures(model: lm.LanguageModel) -> dict[str, float]:
        lists = decoding.recommend(model, histories, splits(**SIZE).catalogue, exclude_history=True)
        ndcg = metrics.ndcg_at_k([[title for title, _ in ranked] for ranked in lists], targets, 10)
        scores = target_logprobs(model, [model.encode(e.history, e.target) for e in valid])
        return {"NDCG@10": float(ndcg.mean()), "NLL": -float(np.mean([float(score.sum()) for score in scores]))}

    rows = []
    for seed in SEEDS[: 1 if tiny else None]:
        for growing, name in ((False, "sliding"), (True, "growing")):
            model, train = lm.pocket(splits(**SIZE).catalogue, seed=seed), train_on(growing, 64 if tiny else TARGETS, seed)
            curve = LearningCurve(model, figures)
            args = training.arguments(model, epochs=1 if tiny else EPOCHS, batch_size=32, seed=seed)
            seconds = training.finetune(model, train, "sft", args, progress=False, callbacks=[curve]).seconds
            rows += [{"windows": name, "seed": seed, "targets": len(train), "seconds": seconds, **row} for row in curve.rows]
            print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    if not tiny:
        folder = data.data_folder() / "results"
        table.round(4).to_csv(folder / "windows.csv", index=False)
        plots.save(figure(table), folder / "windows.png")
    return {"rows": rows}


def sentence(table: pd.DataFrame) -> str:
    """What came out: the difference of the last epoch, with its 95% interval over seeds."""
    last = table[table.epoch == table.epoch.max()].pivot(index="seed", columns="windows")
    parts = []
    for metric, spec in (("NDCG@10", "+.3f"), ("NLL", "+.2f")):
        found = metrics.t_interval(last[metric, "growing"] - last[metric, "sliding"])
        parts.append(
            f"{metric} {last[metric, 'growing'].mean():.3f} and {last[metric, 'sliding'].mean():.3f} ({found:{spec}})"
        )
    return "growing and sliding windows: " + ", ".join(parts)


def figure(table: pd.DataFrame) -> Figure:
    """NDCG@10 on valid users after each epoch, one line for each kind of window, bars over seeds."""
    last = table[table.epoch == table.epoch.max()].pivot(index="seed", columns="windows", values="NDCG@10")
    gap = metrics.t_interval(last["growing"] - last["sliding"])
    title = f"Growing minus sliding windows, last epoch: {gap:+.3f} in NDCG@10"
    return plots.learning_curve(table, "epoch", "NDCG@10", "windows", "epoch", "NDCG@10 on valid users", title)
