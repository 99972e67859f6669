"""Popularity and item-kNN against a worked example."""

from __future__ import annotations

import math
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdrt_lite import baselines
from gdrt_lite.data import Example


def window(history: str, target: str) -> Example:
    return Example("u", tuple(history), target, 0)


# a -> b three times, a -> c and d -> c once each; z is in no catalogue.
TRAIN = [window("a", "b")] * 3 + [window("a", "c"), window("dz", "c"), window("a", "z")]
CATALOGUE = ["d", "b", "c", "a"]
BOTH = [baselines.popularity, baselines.item_transitions]


def titles(lists: list[baselines.Ranked]) -> list[str]:
    return ["".join(title for title, _ in ranked) for ranked in lists]


def test_popularity_counts_targets_and_breaks_ties_by_title():
    assert baselines.popularity(TRAIN, CATALOGUE, [["a"], []], k=4) == [[("b", 3), ("c", 2), ("a", 0), ("d", 0)]] * 2


def test_item_knn_by_hand():
    b = 3 / (math.sqrt(4 * 3) + 10)
    c = 1 / (math.sqrt(4 * 2) + 10) + 1 / (math.sqrt(1 * 2) + 10)
    (ranked,) = baselines.item_transitions(TRAIN, CATALOGUE, [["a", "d"]], k=3)
    assert [title for title, _ in ranked] == ["b", "c", "a"]
    assert [score for _, score in ranked] == pytest.approx([b, c, 0], abs=1e-8)


def dense_item_knn(train, catalogue, history, shrinkage):
    """Every pair of titles in one dense matrix: the scores of one user, before popularity fills up."""
    number = {title: i for i, title in enumerate(catalogue)}
    followed = np.zeros((len(catalogue), len(catalogue)))
    for example in train:
        for title in example.history:
            if title in number and example.target in number:
                followed[number[title], number[example.target]] += 1
    norms = np.sqrt(np.outer(followed.sum(1), followed.sum(0))) + shrinkage
    similarity = np.divide(followed, norms, out=np.zeros_like(followed), where=norms > 0)
    return sum((similarity[number[title]] for title in history if title in number), np.zeros(len(catalogue)))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.text("abcdz", max_size=4), st.sampled_from("abcdz")), max_size=15),
    st.lists(st.text("abcdz", max_size=5), min_size=1, max_size=4),
    st.sampled_from([0.0, 10.0]),
)
def test_item_knn_equals_a_dense_computation(windows, histories, shrinkage):
    train = [window(h, t) for h, t in windows]
    lists = baselines.item_transitions(train, CATALOGUE, histories, k=4, shrinkage=shrinkage)
    for ranked, history in zip(lists, histories, strict=True):
        expected = dict(zip(CATALOGUE, dense_item_knn(train, CATALOGUE, history, shrinkage), strict=True))
        assert dict(ranked) == pytest.approx(expected, abs=1e-8)  # popularity adds 1e-9 at most


def test_item_knn_holds_the_pairs_that_met_and_no_square_of_the_catalogue():
    catalogue = [f"t{i:04}" for i in range(4000)]
    draw = random.Random(0)
    train = [Example("u", tuple(draw.sample(catalogue, 5)), draw.choice(catalogue), i) for i in range(1000)]
    tracemalloc.start()
    baselines.item_transitions(train, catalogue, [e.history for e in train[:100]])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(catalogue) ** 2 / 10  # bytes; a dense matrix is ten times that


def test_shrinkage_decides_whether_a_rare_pair_wins():
    train = [window("a", "b")] * 8 + [window("c", "b")] * 8 + [window("a", "d")]
    assert titles(baselines.item_transitions(train, CATALOGUE, [["a"]], k=1, shrinkage=0)) == ["b"]
    rare = [window("a", "b")] * 5 + [window("c", "b")] * 90 + [window("a", "d")]
    assert titles(baselines.item_transitions(rare, CATALOGUE, [["a"]], k=1, shrinkage=0)) == ["d"]
    assert titles(baselines.item_transitions(rare, CATALOGUE, [["a"]], k=1, shrinkage=10)) == ["b"]


def test_similarity_runs_from_history_to_target_only():
    assert titles(baselines.item_transitions([window("a", "b")], ["a", "b", "c"], [["b"]], k=3)) == [
        "bac"
    ]  # popularity alone


def test_without_known_history_item_knn_is_popularity():
    train = [*TRAIN, *[window("", "d")] * 9]
    expected = titles(baselines.popularity(train, CATALOGUE, [[]], k=4))
    assert expected == ["dbca"]
    assert titles(baselines.item_transitions(train, CATALOGUE, [[], ["z"]], k=4)) == expected * 2


@pytest.mark.parametrize("recommend", BOTH)
def test_history_can_be_left_out(recommend):
    assert "b" in titles(recommend(TRAIN, CATALOGUE, [["a", "b"]], k=2))[0]
    (kept,) = titles(recommend(TRAIN, CATALOGUE, [["a", "b"]], k=2, exclude_history=True))
    assert kept == "cd"
    (short,) = recommend(TRAIN, CATALOGUE, [["a", "b", "c"]], k=3, exclude_history=True)
    assert [title for title, _ in short] == ["d"]


@pytest.mark.parametrize("recommend", BOTH)
@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.text("abcd", max_size=3), st.sampled_from("abcd")), max_size=12),
    st.lists(st.text("abcd", max_size=3), min_size=1, max_size=4),
    st.permutations(list("abcd")),
)
def test_lists_are_sorted_distinct_and_blind_to_the_order_of_the_catalogue(recommend, windows, histories, catalogue):
    train = [window(h, t) for h, t in windows]
    lists = recommend(train, catalogue, histories, k=3)
    for ranked in lists:
        assert len({title for title, _ in ranked}) == len(ranked) == 3
        assert (np.diff([score for _, score in ranked]) <= 0).all()
    assert titles(lists) == titles(recommend(train, sorted(catalogue), histories, k=3))


@pytest.mark.parametrize("recommend", BOTH)
def test_nobody_gets_no_list(recommend):
    assert recommend(TRAIN, CATALOGUE, [], k=2) == []


@pytest.mark.parametrize("recommend", BOTH)
@pytest.mark.parametrize(
    ("catalogue", "k", "words"), [([], 1, "catalogue is empty"), (CATALOGUE, 5, "k=5"), (CATALOGUE, 0, "k=0")]
)
def test_bad_input_is_refused(recommend, catalogue, k, words):
    with pytest.raises(ValueError, match=words):
        recommend(TRAIN, catalogue, [["a"]], k=k)


def test_negative_shrinkage_is_refused():
    with pytest.raises(ValueError, match="shrinkage=-1"):
        baselines.item_transitions(TRAIN, CATALOGUE, [["a"]], k=1, shrinkage=-1)
