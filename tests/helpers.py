"""What several test files build: a small cell of a study, a training that is interrupted."""

from __future__ import annotations

import numpy as np
from transformers import TrainerCallback

from gdrt_lite.study.cell import Cell
from gdrt_lite.study.config import Config

CATALOGUE = [f"t{i:02}" for i in range(12)]
USERS = [f"u{i // 2}" for i in range(40)]  # two examples per user
POPULARITY = {t: str(1 + i % 5) for i, t in enumerate(CATALOGUE)}
GENRES = {t: ("War", "Drama")[: 1 + i % 2] for i, t in enumerate(CATALOGUE)}


def make_cell(draw: int, luck: float, baseline: bool = False, **settings) -> Cell:
    rng = np.random.default_rng(draw)
    shared = np.random.default_rng(99)  # examples are the same for every model
    targets = shared.integers(0, 12, 40).tolist()
    histories = shared.integers(0, 12, (40, 3)).tolist()
    lists = []
    for target in targets:
        ranked = [i for i in rng.permutation(12).tolist() if i != target][:10]
        lists.append([target, *ranked[:9]] if rng.random() < luck else ranked)
    groups = {"popularity": [[POPULARITY[t]] for t in CATALOGUE], "genre": [list(GENRES[t]) for t in CATALOGUE]}
    known: dict = {}
    if not baseline:
        known["nll"] = rng.uniform(3, 9, 40).tolist()
        faa = {segment: rng.uniform(1, 5, 20).tolist() for segment in ("TASK", "HISTORY", "PREFIX")}
        known["faa"] = {"attention": {"user": sorted(set(USERS)), **faa}}
    return Cell("tiny", groups, USERS, targets, histories, lists, **known, config=Config(**settings), train_examples=60)


class Kill(TrainerCallback):
    """Ctrl-C at a step."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt
