"""Timing of two ways of doing one thing, and the data both work on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from gdrt_lite import data, lm
from gdrt_lite.data import Example

ROUNDS = 3


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(ours: Callable[[], object], peer: Callable[[], object], n_ours: int, n_peer: int) -> dict[str, float]:
    """Median seconds per unit of both sides over alternating rounds, after one warm-up of each.

    Args:
        ours, peer: the two ways.
        n_ours, n_peer: units (users, examples) that one call of each handles; the slow side may do fewer.
    """
    ours(), peer()
    times = [(seconds(ours) / n_ours, seconds(peer) / n_peer) for _ in range(ROUNDS)]
    fast, slow = (statistics.median(side) for side in zip(*times, strict=True))
    return {"ours_s": fast, "peer_s": slow, "ratio": slow / fast}


def splits(history: int = 10) -> data.Splits:
    """MovieLens, 500 titles, held-out users."""
    return data.load_movielens(500).split(history=history)


def examples(n: int, history: int = 10) -> list[Example]:
    """Training windows with full histories."""
    return data.sample([e for e in splits(history).train if len(e.history) == history], n, seed=0)


def matmul_gflops(dtype: torch.dtype, n: int = 2048) -> float:
    """What this machine's matrix product reaches, best of five: the roofline of a transformer."""
    a, b = torch.randn(n, n, dtype=dtype), torch.randn(n, n, dtype=dtype)
    a @ b
    return 2e-9 * n**3 / min(seconds(lambda: a @ b) for _ in range(5))


def forward_gflop(model: lm.LanguageModel, tokens: float, labels: float) -> float:
    """Multiply-adds of a forward pass over `tokens` tokens with `labels` output rows, in GFLOP; attention left out."""
    head = model.model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.model.parameters()) - head
    return 2e-9 * (body * tokens + head * labels)
