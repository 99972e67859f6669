"""Timing of two ways of doing one thing, and the model and the data that both work on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache

import torch

from gdrt_lite import data, lm
from gdrt_lite.data import Example
from gdrt_lite.prompts import Encoded

HISTORY = 20  # the most titles in a history of growing windows: a chunk is the 18 targets from the fourth title on
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def language_model(tiny: bool, dtype: torch.dtype | None = None) -> lm.LanguageModel:
    """SmolLM2, or with `tiny` the pocket model in its place."""
    model = lm.pocket(splits().catalogue) if tiny else lm.load(dtype=dtype, device=DEVICE)
    model.model.to(DEVICE)
    return model


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(
    ours: Callable[[list], object], peer: Callable[[list], object], our_units: list, peer_units: list, rounds: int = 3
) -> dict[str, float]:
    """Median seconds a unit of both sides over alternating rounds, after a warm-up with one unit each.

    Args:
        ours, peer: the two ways, functions of a list of units (users, examples, titles).
        our_units, peer_units: what each handles in one call; the slow side may do fewer.
        rounds: how often both are timed.
    """
    ours(our_units[:1]), peer(peer_units[:1])
    times = [
        (seconds(lambda: ours(our_units)) / len(our_units), seconds(lambda: peer(peer_units)) / len(peer_units))
        for _ in range(rounds)
    ]
    fast, slow = (statistics.median(side) for side in zip(*times, strict=True))
    return {"ours_s": fast, "peer_s": slow, "ratio": slow / fast}


@cache
def splits(history: int = 10, growing: bool = False, titles: int = 500) -> data.Splits:
    """MovieLens, its most rated titles, held-out users."""
    return data.load_movielens(titles).split(history=history, growing=growing)


def examples(n: int, history: int = 10) -> list[Example]:
    """Training windows with full histories, of many users."""
    return data.sample([e for e in splits(history).train if len(e.history) == history], n, seed=0)


def whole_chunks(n: int, history: int = HISTORY) -> list[Example]:
    """Growing windows: n whole chunks, of as many users."""
    train, size = splits(history, growing=True).train, history - 2
    whole = [chunk for chunk in data.chunks_of(train) if len(chunk) == size]
    users = {train[chunk[0]].user: chunk for chunk in whole}
    return [train[i] for _, chunk in sorted(users.items())[:n] for i in chunk]


@cache
def matmul_gflops(dtype: torch.dtype, n: int = 2048) -> float:
    """What this machine's matrix product reaches, best of five: the roofline of a transformer."""
    a, b = torch.randn(2, n, n, dtype=dtype, device=DEVICE)
    a @ b
    return 2e-9 * n**3 / min(seconds(lambda: a @ b) for _ in range(5))


def distinct_tokens(prompts: Sequence[Encoded]) -> int:
    """Tokens that a model must read at least once to predict every label: the beginnings that no two prompts share."""
    return len({prompt.ids[:end] for prompt in prompts for end in range(1, prompt.predict_at[-1] + 2)})


def roofline(model: lm.LanguageModel, tokens: float, labels: float, seconds: float, passes: int = 1) -> float:
    """Share of the matrix product's speed that was reached, attention left out of the count.

    Args:
        tokens, labels: tokens read and rows of the output layer, for which one pass has two operations a weight.
        seconds: what it took.
        passes: 1 forward; 2 with the gradient of the activations (LoRA trains no weight of the model itself).
    """
    head = model.model.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.model.parameters()) - head
    gflop = 2e-9 * passes * (body * tokens + head * labels)
    return gflop / seconds / matmul_gflops(model.model.dtype)
