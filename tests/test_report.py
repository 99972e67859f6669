"""Tables computed from cells: pairing, the ratio of means, and what a baseline leaves empty."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pandas as pd
import pytest
from helpers import CATALOGUE, GENRES, POPULARITY, USERS, make_cell

from gdrt_lite import metrics
from gdrt_lite.data import Example, Splits
from gdrt_lite.study import report
from gdrt_lite.study.cell import Cell
from gdrt_lite.system import files


@pytest.fixture(scope="module")
def cells() -> dict[str, Cell]:
    return {"sft": make_cell(1, 0.3), "gdrt": make_cell(2, 0.9), "popularity": make_cell(3, 0.1, baseline=True)}


def test_metrics_of_a_cell_are_those_of_the_metrics_module(cells):
    cell = cells["sft"]
    found = report.cell_metrics(cell)
    lists = [[CATALOGUE[i] for i in ranked] for ranked in cell.lists]
    histories = [[CATALOGUE[i] for i in own] for own in cell.histories]
    targets = [CATALOGUE[i] for i in cell.targets]
    assert found["NDCG@5"].value == pytest.approx(metrics.ndcg_at_k(lists, targets, 5).mean())
    assert found["HR@10"].value == pytest.approx(metrics.hit_rate_at_k(lists, targets, 10).mean())
    assert found["NLL"].value == pytest.approx(np.mean(cell.nll))
    popularity = {title: {name: 1.0} for title, name in POPULARITY.items()}
    assert found["MGU@5 popularity"].value == pytest.approx(metrics.mgu(lists, histories, popularity, 5))
    genres = metrics.fractional_credit(GENRES)
    assert found["DGU@10 genre"].value == pytest.approx(metrics.dgu(lists, histories, genres, 10))


def test_bias_ratio_is_a_ratio_of_means():
    cell = make_cell(1, 0.5)
    cell.faa = {"token": {"user": ["a", "b"], "TASK": [1, 5], "PREFIX": [1, 1], "HISTORY": [1, 4]}}
    measured = report.cell_metrics(cell)["bias token"]
    assert measured.value == pytest.approx((3 + 1) / 2.5)  # the mean of the users' ratios would be 1.75
    interval = measured.interval()
    assert (interval.low, interval.high) == pytest.approx((6 / 4, 2 / 1))


def test_identical_cells_differ_by_exactly_nothing(cells):
    one, two = report.cell_metrics(cells["sft"]), report.cell_metrics(make_cell(1, 0.3))
    for name, measured in one.items():
        assert measured.minus(two[name]) == (0, 0, 0), name


def test_differences_are_paired():
    """A model better by the same amount for everybody: no doubt is left, whatever users differ by."""
    worse = make_cell(1, 0.5)
    better = dataclasses.replace(worse, nll=[value - 1.0 for value in worse.nll])
    a, b = report.cell_metrics(better)["NLL"], report.cell_metrics(worse)["NLL"]
    assert a.minus(b) == pytest.approx((-1, -1, -1))
    assert a.interval().high - a.interval().low > 0.5


def test_intervals_draw_users_not_examples(cells):
    cell = cells["sft"]
    measured = report.cell_metrics(cell)["NLL"]
    expected = metrics.bootstrap(cell.nll, USERS, n=report.DRAWS, bca=True)
    assert measured.interval() == pytest.approx(tuple(expected))
    assert measured.interval() != pytest.approx(tuple(metrics.bootstrap(cell.nll, n=report.DRAWS, bca=True)))


def test_other_examples_cannot_be_paired(cells):
    other = dataclasses.replace(make_cell(1, 0.3), users=[f"x{i}" for i in range(40)])
    with pytest.raises(ValueError, match="different test examples"):
        report.cell_metrics(cells["sft"])["NLL"].minus(report.cell_metrics(other)["NLL"])


def test_comparison_refers_every_metric_to_sft(cells):
    table = report.comparison(cells).set_index(["model", "metric"])
    assert table.loc["sft", "difference"].isna().all()
    row = table.loc[("gdrt", "NDCG@10")]
    assert row.difference == pytest.approx(row.estimate - table.loc[("sft", "NDCG@10"), "estimate"])
    assert 0 < row.difference_low < row.difference < row.difference_high
    assert row.low < row.estimate < row.high
    assert ("popularity", "NLL") not in table.index and ("popularity", "bias attention") not in table.index
    covered = {i for ranked in cells["gdrt"].lists for i in ranked}
    assert table.loc[("gdrt", "coverage@10"), "estimate"] == len(covered)


def test_headline_has_a_dash_for_what_a_baseline_lacks(cells):
    table = report.headline(report.comparison(cells))
    assert table.model.tolist() == ["sft", "gdrt", "  minus SFT [95%]", "popularity", "  minus SFT [95%]"]
    popularity, spans = table.iloc[3], table.iloc[4]
    assert popularity["bias ratio"] == popularity["item NLL"] == spans["bias ratio"] == spans["item NLL"] == "-"
    assert spans["NDCG@10"].startswith("-0.") and spans["NDCG@10"].endswith("]") and spans["coverage"] == "-"
    assert table.iloc[0]["coverage"] == str(metrics.coverage(cells["sft"].lists))
    assert not table.isna().any().any()


@pytest.mark.parametrize("history", [[0.0] * 20, [0.0] * 18 + [1.0, 2.0]])
def test_a_ratio_over_nothing_has_a_dash_before_and_after_it_was_kept_as_json(cells, history, tmp_path):
    """Of all users, or of so many that some bootstrap samples hold no other: then there is no interval."""
    empty = dataclasses.replace(cells["gdrt"], faa={"attention": cells["gdrt"].faa["attention"] | {"HISTORY": history}})
    table = report.comparison({"sft": cells["sft"], "gdrt": empty, "reversed": empty})
    kept = files.write_json(tmp_path / "report.json", table.to_dict("records"))
    for found in (table, pd.DataFrame(json.loads(kept.read_text()))):
        shown = report.headline(found).set_index("model")
        assert shown["bias ratio"].iloc[2] == "-" and (shown["bias ratio"]["gdrt"] == "-") == (sum(history) == 0)
        assert shown["NDCG@10"].iloc[2].startswith("+0.")
    same = report.comparison({"sft": empty, "gdrt": empty})
    assert report.headline(same)["bias ratio"].iloc[2] == "-"


def test_headline_without_a_reference_has_no_difference_rows(cells):
    table = report.headline(report.comparison({"gdrt": cells["gdrt"]}))
    assert table.model.tolist() == ["gdrt"]


def test_warm_and_cold_targets_are_told_apart(cells):
    train = [Example("v", (CATALOGUE[i],), CATALOGUE[i + 1], i) for i in range(7)]
    splits = Splits(train, [], [], CATALOGUE, {}, "tiny")
    parts = report.warm_and_cold(cells["gdrt"], splits)
    warm = splits.warm()
    assert parts["warm"][1] == sum(CATALOGUE[i] in warm for i in cells["gdrt"].targets) > 0
    assert parts["warm"][1] + parts["cold"][1] == 40 and parts["cold"][1] > 0
    both = sum(gain * n for gain, n in parts.values()) / 40
    assert both == pytest.approx(report.cell_metrics(cells["gdrt"])["NDCG@10"].value)
    all_warm = Splits([Example("u", tuple(CATALOGUE), "t00", 0)], [], [], CATALOGUE, {}, "warm")
    gain, n = report.warm_and_cold(cells["gdrt"], all_warm)["cold"]
    assert math.isnan(gain) and n == 0


def test_no_genres_no_genre_metrics(cells):
    plain = dataclasses.replace(cells["sft"], item_groups={"popularity": cells["sft"].item_groups["popularity"]})
    assert not any("genre" in name for name in report.cell_metrics(plain))


def test_coverage_looks_at_the_top_only():
    assert metrics.coverage([[1, 2, 3], [1, 4, 5]], k=1) == 1
    assert metrics.coverage([[1, 2, 3], [1, 4, 5]], k=2) == 3
