"""SASRec learns an order that counting titles cannot see, keeps to the past, and returns lists as the baselines do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gdrt_lite import baselines
from gdrt_lite.data import Example
from gdrt_lite.sasrec import sasrec

CATALOGUE = [f"T{n:02}" for n in range(12)]
NEXT = dict(zip(CATALOGUE, np.roll(CATALOGUE, -5).tolist()))  # a chain through all titles: each leads to one other


def walk(start: str, steps: int) -> list[str]:
    return [start] if steps == 1 else [start, *walk(NEXT[start], steps - 1)]


def windows(n: int = 120, length: int = 4) -> list[Example]:
    rng = np.random.default_rng(0)
    walks = [walk(str(rng.choice(CATALOGUE)), length) for _ in range(n)]
    return [Example(f"u{i}", tuple(own[:-1]), own[-1], i) for i, own in enumerate(walks)]


def first(lists: list[baselines.Ranked]) -> list[str]:
    return [ranked[0][0] for ranked in lists]


def test_it_learns_a_chain_that_popularity_cannot():
    histories = [walk(title, 1 + n % 3) for n, title in enumerate(CATALOGUE)]
    expected = [NEXT[own[-1]] for own in histories]
    assert first(sasrec(windows(), CATALOGUE, histories, k=1, epochs=60, width=32)) == expected
    assert sum(a == b for a, b in zip(first(baselines.popularity(windows(), CATALOGUE, histories, k=1)), expected)) <= 1


def test_it_reads_the_order_of_a_history():
    """Two items, the same in both orders: what comes next hangs on the last, which sums over a history cannot see."""
    train = [Example("u", own, target, 0) for own, target in ((("a", "b"), "c"), (("b", "a"), "d"))] * 40
    both = [["a", "b"], ["b", "a"]]
    assert first(sasrec(train, ["a", "b", "c", "d"], both, k=1, epochs=40, width=32)) == ["c", "d"]
    counted = baselines.item_transitions(train, ["a", "b", "c", "d"], both, k=4)
    assert counted[0] == counted[1]


def short(histories, seed=0, **more) -> list[baselines.Ranked]:
    return sasrec(windows(20), CATALOGUE, histories, epochs=1, width=16, seed=seed, **more)


def test_the_same_seed_gives_the_same_lists_and_leaves_torch_as_it_was():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert short([["T00"]]) == short([["T00"]]) != short([["T00"]], seed=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_list_depends_neither_on_its_neighbours_nor_on_what_was_long_ago():
    alone, crowd = short([["T03", "T04"]], k=12)[0], short([["T01"], ["T03", "T04"], [], ["T07"] * 9], k=12)[1]
    assert dict(crowd) == pytest.approx(dict(alone), abs=1e-5)
    long, cut = (dict(short([own], k=12)[0]) for own in (["T09", "T01", "T02", "T03"], ["T01", "T02", "T03"]))
    assert long == pytest.approx(cut, abs=1e-5)  # no longer than the histories of the training


def test_scores_are_log_probabilities_of_distinct_titles_best_first():
    (ranked,) = short([["T01", "unknown"]], k=12)
    scores = [score for _, score in ranked]
    assert np.exp(scores).sum() == pytest.approx(1) and scores == sorted(scores, reverse=True)
    assert {title for title, _ in ranked} == set(CATALOGUE)
    (kept,) = short([["T01", "unknown"]], k=11, exclude_history=True)
    assert "T01" not in dict(kept) and len(kept) == 11 and short([], k=3) == []


@pytest.mark.parametrize(
    ("train", "catalogue", "k", "says"),
    [
        ([], CATALOGUE, 1, "no training window holds two titles"),
        ([Example("u", ("x",), "y", 0)], CATALOGUE, 1, "no training window holds two titles"),
        (windows(2), [], 1, "catalogue is empty"),
        (windows(2), CATALOGUE, 13, "k=13"),
    ],
)
def test_bad_input_is_refused(train, catalogue, k, says):
    with pytest.raises(ValueError, match=says):
        sasrec(train, catalogue, [["T00"]], k=k)
