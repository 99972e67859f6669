"""Accuracy, fairness and the bootstrap against hand-worked values and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import ndcg_score

from gdrt_lite import metrics
from gdrt_lite.data import Example

LISTS = [["a", "b", "c"], ["c", "d", "a"], ["b", "a", "d"]]
HISTORIES = [["a", "a"], ["b", "d"], ["c", "zz"]]
GROUPS = {"a": {"x": 1.0}, "b": {"x": 0.5, "y": 0.5}, "c": {"y": 1.0}}  # "d" and "zz" have none


def test_ndcg_and_hits_by_hand():
    targets = ["a", "a", "z"]
    np.testing.assert_allclose(metrics.ndcg_at_k(LISTS, targets, 3), [1.0, 1 / math.log2(4), 0.0])
    np.testing.assert_allclose(metrics.ndcg_at_k(LISTS, ["b", "a", "a"], 2), [1 / math.log2(3), 0.0, 1 / math.log2(3)])
    np.testing.assert_allclose(metrics.hit_rate_at_k(LISTS, targets, 3), [1, 1, 0])
    np.testing.assert_allclose(metrics.hit_rate_at_k(LISTS, targets, 2), [1, 0, 0])
    assert metrics.rank_of("c", LISTS[0]) == 2 and metrics.rank_of("z", LISTS[0]) is None


@given(st.permutations(list("abcdefgh")), st.sampled_from("abcdefgh"), st.integers(1, 8))
def test_ndcg_is_brute_force_dcg_over_ideal_dcg(ranked, target, k):
    gains = [float(title == target) for title in ranked[:k]]
    dcg = sum(gain / math.log2(place + 2) for place, gain in enumerate(gains))
    ideal = 1 / math.log2(2)
    assert metrics.ndcg_at_k([ranked], [target], k)[0] == pytest.approx(dcg / ideal)


def test_coverage_counts_distinct_titles_of_the_top():
    assert metrics.coverage(LISTS) == 4
    assert metrics.coverage(LISTS, k=1) == 3


def test_group_unfairness_by_hand():
    # Top 2: a b | c d | b a. x gets 1 + .5 + .5 + 1 = 3, y .5 + 1 + .5 = 2. Histories: x = 2 + .5, y = .5 + 1.
    gu = metrics.group_unfairness(LISTS, HISTORIES, GROUPS, k=2)
    assert gu.to_dict() == pytest.approx({"x": 3 / 5 - 2.5 / 4, "y": 2 / 5 - 1.5 / 4})
    assert metrics.mgu(LISTS, HISTORIES, GROUPS, 2) == pytest.approx(0.025)
    assert metrics.dgu(LISTS, HISTORIES, GROUPS, 2) == pytest.approx(0.05)


titles = st.sampled_from("abcde")


@given(st.lists(st.tuples(st.lists(titles, min_size=1, max_size=4), st.lists(titles, min_size=1, max_size=4)), min_size=1))
def test_unfairness_agrees_with_counting_slots_and_sums_to_zero(pairs):
    groups = {t: {"odd" if i % 2 else "even": 1.0} for i, t in enumerate("abcde")}
    lists, histories = [list(x) for x in zip(*pairs)]
    k = 3
    slots = [t for own in lists for t in own[:k]]
    taken = [t for own in histories for t in own]
    gu = metrics.group_unfairness(lists, histories, groups, k)
    assert gu.sum() == pytest.approx(0)
    for name in gu.index:
        share = [sum(name in groups[t] for t in side) / len(side) for side in (slots, taken)]
        assert gu[name] == pytest.approx(share[0] - share[1])
    means = metrics.share_rows(lists, histories, groups, k).mean(0)
    assert metrics.mgu(lists, histories, groups, k) == pytest.approx(metrics.mgu_of_means(means))
    assert metrics.dgu(lists, histories, groups, k) == pytest.approx(metrics.dgu_of_means(means))


def test_recommending_the_histories_is_fair():
    assert metrics.mgu(HISTORIES, HISTORIES, GROUPS, k=2) == 0


def test_popularity_bins_hold_equally_many_titles_rarest_first():
    catalogue = [f"t{i:02}" for i in range(11)]
    train = [Example("u", (), t, 0) for i, t in enumerate(catalogue) for _ in range(i)]
    groups = metrics.popularity_groups(train, catalogue, bins=5)
    sizes = {name: sum(name in own for own in groups.values()) for name in "12345"}
    assert max(sizes.values()) - min(sizes.values()) <= 1 and sum(sizes.values()) == 11
    assert groups["t00"] == {"1": 1.0} and groups["t10"] == {"5": 1.0}
    assert [int(*groups[t]) for t in catalogue] == sorted(int(*groups[t]) for t in catalogue)


def test_popularity_counts_targets_not_histories():
    train = [Example("u", ("b",) * 9, "a", 0)]
    assert metrics.popularity_groups(train, ["a", "b"], bins=2) == {"b": {"1": 1.0}, "a": {"2": 1.0}}


def test_genres_share_the_credit():
    assert metrics.fractional_credit({"a": ("War", "Drama"), "b": ("War",), "c": ()}) == {
        "a": {"War": 0.5, "Drama": 0.5}, "b": {"War": 1.0},
    }  # fmt: skip


def test_identical_models_differ_by_exactly_nothing():
    values = np.random.default_rng(0).random(50)
    assert metrics.paired_bootstrap(values, values) == (0, 0, 0)


def test_bootstrap_matches_the_normal_interval_of_a_large_sample():
    values = np.random.default_rng(0).normal(3, 2, size=2000)
    interval = metrics.bootstrap(values, n=4000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.high - interval.estimate == pytest.approx(half, rel=0.1)
    assert interval.estimate - interval.low == pytest.approx(half, rel=0.1)


def test_pairing_takes_out_what_users_share():
    rng = np.random.default_rng(1)
    user, noise = rng.normal(0, 5, 300), rng.normal(0, 0.1, 300)
    paired = metrics.paired_bootstrap(user + 0.2 + noise, user)
    assert 0.1 < paired.low < 0.2 < paired.high < 0.3


def test_clusters_are_drawn_whole():
    """Rows repeated within a user carry no information: only the interval over users admits it."""
    users = np.random.default_rng(0).normal(size=30)
    rows, names = np.repeat(users, 20), np.repeat([f"u{i}" for i in range(30)], 20)
    clustered, alone = metrics.bootstrap(rows, names, n=4000), metrics.bootstrap(users, n=4000)
    naive = metrics.bootstrap(rows, n=4000)
    width = clustered.high - clustered.low
    assert width == pytest.approx(alone.high - alone.low, rel=0.1)
    assert width > 3 * (naive.high - naive.low)


def test_resampled_means_agree_with_a_loop_over_users():
    rng = np.random.default_rng(0)
    rows, users = rng.random((7, 2)), ["b", "a", "b", "c", "a", "b", "c"]
    names = sorted(set(users))
    times = np.random.default_rng(5).multinomial(3, np.full(3, 1 / 3), size=40)
    found = metrics.resampled_means(rows, users, draws=40, seed=5)
    for drawn, mean in zip(times, found):
        sample = [row for name, n in zip(names, drawn) for _ in range(n) for row, u in zip(rows, users) if u == name]
        np.testing.assert_allclose(mean, np.mean(sample, axis=0))


def test_bootstrap_is_seeded():
    values = np.random.default_rng(0).random(40)
    assert metrics.bootstrap(values, seed=1) == metrics.bootstrap(values, seed=1) != metrics.bootstrap(values, seed=2)


def test_interval_prints_and_formats():
    interval = metrics.Interval(0.12345, -0.1, 0.2)
    assert str(interval) == f"{interval}" == "0.123 [-0.100, 0.200]"
    assert f"{interval:+.1%}" == "+12.3% [-10.0%, +20.0%]"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.ndcg_at_k(LISTS, ["a"], 3), "3 lists but 1 targets"),
        (lambda: metrics.hit_rate_at_k(LISTS, ["a"] * 3, 0), "k=0"),
        (lambda: metrics.group_unfairness(LISTS, HISTORIES[:1], GROUPS, 2), "3 lists but 1 histories"),
        (lambda: metrics.group_unfairness(LISTS, HISTORIES, GROUPS, 0), "k=0"),
        (lambda: metrics.group_unfairness([["d"]], [["a"]], GROUPS, 1), "no title in the lists"),
        (lambda: metrics.group_unfairness([["a"]], [["d"]], GROUPS, 1), "no title in the histories"),
        (lambda: metrics.popularity_groups([], ["a", "b"], bins=3), "bins=3"),
        (lambda: metrics.paired_bootstrap([1, 2], [1]), "same users"),
        (lambda: metrics.bootstrap([]), "empty"),
        (lambda: metrics.bootstrap([1, 2], ["u"]), "2 rows but 1 users"),
    ],
)
def test_bad_input_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_t_interval_by_hand():
    """Three values with standard deviation 1; the t quantile of two degrees of freedom is 4.302653."""
    half = 4.302653 / math.sqrt(3)
    assert metrics.t_interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.0 - half, 2.0 + half), abs=1e-6)
    with pytest.raises(ValueError, match="1 value"):
        metrics.t_interval([1.0])


# ------------------------------------------------------------------------------------- against references


@given(st.lists(st.permutations(range(8)), min_size=1, max_size=5), st.data(), st.integers(1, 8))
def test_ndcg_is_that_of_scikit_learn(lists, drawn, k):
    targets = [drawn.draw(st.integers(0, 7)) for _ in lists]
    truth = np.array([[float(title == target) for title in range(8)] for target in targets])
    scores = np.array([[-own.index(title) for title in range(8)] for own in lists], dtype=float)
    assert metrics.ndcg_at_k(lists, targets, k).mean() == pytest.approx(ndcg_score(truth, scores, k=k))


def skewed(n: int = 80) -> np.ndarray:
    return np.random.default_rng(3).exponential(size=n) ** 2


@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_bootstrap_is_that_of_scipy(method):
    """One row a user; 20,000 draws leave a Monte Carlo error of about a hundredth of the width."""
    x = skewed()
    reference = stats.bootstrap((x,), np.mean, n_resamples=20_000, method=method, random_state=0).confidence_interval
    found = metrics.bootstrap(x, n=20_000, bca=method == "BCa")
    assert found == pytest.approx((x.mean(), *reference), abs=0.02 * (reference.high - reference.low))


def test_bca_of_users_with_several_rows_is_that_of_scipy():
    x = skewed(300)
    users = np.random.default_rng(4).integers(0, 60, 300)
    names, sizes = np.unique(users, return_counts=True)
    sums = np.array([x[users == name].sum() for name in names])
    reference = stats.bootstrap(
        (sums, sizes), lambda s, n, axis=-1: s.sum(axis) / n.sum(axis), paired=True, vectorized=True, n_resamples=20_000,
        method="BCa", random_state=0,
    ).confidence_interval  # fmt: skip
    found = metrics.bootstrap(x, [str(u) for u in users], n=20_000, bca=True)
    assert found == pytest.approx((x.mean(), *reference), abs=0.02 * (reference.high - reference.low))
    mine = metrics.paired_bootstrap(x, np.zeros(300), [str(u) for u in users], n=20_000, bca=True)
    assert mine == found


def test_left_out_means_by_hand():
    rows = np.array([[1.0], [2.0], [6.0]])
    assert metrics.left_out_means(rows, ["a", "a", "b"]).tolist() == [[6.0], [1.5]]
    with pytest.raises(ValueError, match="one user alone"):
        metrics.left_out_means(rows, ["a", "a", "a"])


def test_bca_of_what_never_varies_is_a_point():
    assert metrics.bootstrap(np.full(20, 0.25), bca=True) == (0.25, 0.25, 0.25)


def test_the_t_interval_is_that_of_scipy():
    x = skewed(6)
    assert metrics.t_interval(x)[1:] == pytest.approx(stats.ttest_1samp(x, 0).confidence_interval(0.95))
    assert metrics.t_interval([2.0, 2.0, 2.0]) == (2.0, 2.0, 2.0)


# --------------------------------------------------------------------------------------- the fair floor


def test_a_fair_system_of_few_users_is_no_zero_and_inside_its_floor():
    """Lists and histories drawn from the same shares: MGU is about .03 at 64 users, .014 at 300, .007 at 1,000."""
    shares = np.array([0.04, 0.08, 0.14, 0.24, 0.5])
    groups = {g: {f"{g}": 1.0} for g in range(5)}
    for n, expected in ((64, 0.030), (300, 0.014), (1000, 0.007)):
        rng = np.random.default_rng(n)
        both = [[rng.choice(5, 5, p=tastes).tolist() for tastes in rng.dirichlet(3 * shares, n)] for _ in range(2)]
        floor = metrics.fair_floor(both[0], groups, k=5)
        assert floor.mgu.estimate == pytest.approx(expected, rel=0.15)
        assert 0 < floor.mgu.low < metrics.mgu(*both, groups, k=5) < floor.mgu.high
        assert 0 < floor.dgu.low < metrics.dgu(*both, groups, k=5) < floor.dgu.high
        assert metrics.mgu([[4] * 5] * n, both[0], groups, k=5) > 3 * floor.mgu.high
        assert metrics.fair_floor(both[0], groups, k=5) == floor


def test_the_floor_of_equal_users_is_zero():
    assert metrics.fair_floor([["a", "c", "zz"]] * 9, GROUPS, k=3).mgu == (0, 0, 0)
    assert metrics.fair_floor([["a"]] * 9, GROUPS, k=3).dgu == (0, 0, 0)


@pytest.mark.parametrize(
    ("histories", "k", "says"),
    [([], 1, "histories .0."), ([["a"]], 0, "k=0"), ([["zz"], []], 1, "no title in the histories")],
)
def test_a_floor_without_a_ground_is_refused(histories, k, says):
    with pytest.raises(ValueError, match=says):
        metrics.fair_floor(histories, GROUPS, k)


def test_full_credit_counts_a_title_for_each_of_its_genres():
    genres = {"a": ("War", "Drama"), "b": ("War",), "c": ()}
    full = metrics.full_credit(genres)
    assert full == {"a": {"War": 1.0, "Drama": 1.0}, "b": {"War": 1.0}}
    gu = metrics.group_unfairness([["a", "b"]], [["b"]], full, k=2)
    assert gu.to_dict() == pytest.approx({"Drama": 1 / 3, "War": 2 / 3 - 1})
