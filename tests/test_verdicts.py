"""The registered analysis: gate, effects, Holm and verdicts, on cells whose truth is known."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from helpers import make_cell
from scipy import stats

from gdrt_lite import data
from gdrt_lite.study import grid, report, verdicts
from gdrt_lite.study.cell import Cell, read_cells


def constant(value: float, n: int = 30) -> report.Metric:
    return report.Metric(np.full((n, 1), value), [f"u{i}" for i in range(n)], lambda means: means[..., 0])


def cell(method: str, seed: int, luck: float, **fields) -> Cell:
    made = make_cell(seed, luck, method=method, seed=seed, model="pocket", baseline=method == "popularity", ranking="exact")
    return dataclasses.replace(made, **fields)


def test_an_effect_with_seeds_alone_is_students_t_over_them():
    """Users all alike: differences 1, 2 and 6, whose standard error and t are worked out by scipy."""
    one = {seed: {"NLL": constant(value)} for seed, value in enumerate((1.0, 2.0, 6.0))}
    found = verdicts.effect(one, {seed: {"NLL": constant(0.0)} for seed in range(3)}, "NLL")
    expected = stats.ttest_1samp([1, 2, 6], 0)
    assert (found.value, found.freedom, found.seeds) == (3, 2, 3)
    assert found.p == pytest.approx(expected.pvalue)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval()))


def test_other_users_widen_the_interval_of_equal_seeds():
    rng = np.random.default_rng(0)
    rows = rng.normal(1, 1, (400, 1))
    metric = report.Metric(rows, [f"u{i}" for i in range(400)], lambda means: means[..., 0])
    still = {"NLL": dataclasses.replace(metric, rows=0 * rows)}
    found = verdicts.effect({0: {"NLL": metric}, 1: {"NLL": metric}}, {0: still, 1: still}, "NLL")
    assert found.error == pytest.approx(rows.std() / 20, rel=0.08)


def test_only_a_method_without_seeds_is_compared_with_every_seed():
    found = {"sft": {seed: {"NLL": constant(float(seed))} for seed in range(3)}}
    found |= {"popularity": {0: {"NLL": constant(0.0)}}, "random": {0: {"NLL": constant(0.0)}}, "item": {7: {}}}
    assert verdicts.between(found, "sft", "popularity", "NLL").seeds == 3
    assert verdicts.between(found, "sft", "random", "NLL").seeds == 1
    assert verdicts.between(found, "sft", "item", "NLL") is None
    assert verdicts.between(found, "sft", "balanced", "NLL") is None


def test_places_have_equal_weight():
    over = verdicts.pooled([verdicts.Effect(1, 0.3, 4, 10, 3), verdicts.Effect(3, 0.4, 4, 90, 2)])
    assert (over.value, over.error, over.users, over.seeds) == (2, pytest.approx(0.25), 100, 2)
    assert over.freedom == pytest.approx(0.25**4 / (0.15**4 / 4 + 0.2**4 / 4))


def test_holm_by_hand():
    assert verdicts.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert verdicts.holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])


def known(gdrt: float, sft: float, forced: float = 0.1, reads: float = 0.5) -> list[Cell]:
    """Cells of three seeds in which a method hits with the given luck, and SFT reads its users by `reads` nats."""
    lucks = {"sft": sft, "gdrt": gdrt, "balanced": 0.2, "random": 0.2, "forced": forced}
    noise = np.random.default_rng(1).normal(0, 0.1, 40)
    return [
        cell(method, seed, luck, own_minus_stranger=(reads + noise).tolist(), ndcg_minus_stranger=[0.1] * 40)
        for method, luck in lucks.items()
        for seed in (0, 1, 2)
    ] + [cell("popularity", 0, 0.0)]


def verdict_of(cells: list[Cell], name: str) -> str:
    return next(row["verdict"] for row in verdicts.judge(cells)["hypotheses"] if row["id"] == name)


def test_a_clear_gain_is_supported_and_a_clear_loss_contradicted():
    better, worse = known(0.95, 0.3), known(0.3, 0.95)
    assert verdicts.judge(better)["gates"][0]["passed"]
    assert (verdict_of(better, "H3"), verdict_of(worse, "H3")) == ("supported", "contradicted")
    assert verdict_of(better, "H4") == "undecided"  # both read their users alike
    assert verdict_of(better, "H1") == "not tested"  # there is no pre-trained model here


def test_beating_all_controls_but_one_is_not_enough():
    assert verdict_of(known(0.95, 0.3), "H6") == "supported"
    assert verdict_of(known(0.95, 0.3, forced=0.95), "H6") == "undecided"


def test_a_place_below_the_gate_gives_no_verdict():
    unread = known(0.95, 0.3, reads=0.0)
    assert not verdicts.judge(unread)["gates"][0]["passed"] and verdict_of(unread, "H3") == "not tested"
    poor = [cell("popularity", 0, 0.9), *known(0.95, 0.3)[:-1]]
    assert not verdicts.judge(poor)["gates"][0]["passed"]


def test_the_places_stand_beside_their_mean():
    def moved(own: Cell) -> Cell:
        return dataclasses.replace(own, config=dataclasses.replace(own.config, model="another"))

    alone = [one for one in known(0.6, 0.4) if one.config.seed == 0]
    told = verdicts.judge([*known(0.95, 0.3), *map(moved, alone)])
    row = next(row for row in told["hypotheses"] if row["id"] == "H3")
    (first, *_, many), (second, *_, one) = row["places"].values()
    assert first > second > 0 and row["effect"] == pytest.approx((first + second) / 2) and (many, one) == (3, 1)
    assert verdicts.table(told).verdict[2].endswith("(one seed in a place)")
    shown = verdicts.places(told).set_index("").loc["H3"]
    assert [text.rpartition(", ")[2] for text in shown.iloc[2:]] == ["3 seeds", "1 seed"]
    assert shown.iloc[2].startswith(f"{first:+.1%} [")
    assert not len(verdicts.places(verdicts.judge(known(0.95, 0.3)))), "one place has no mean to take apart"


def test_verdicts_and_figure_are_written(tmp_path):
    told = verdicts.write(known(0.95, 0.3), tmp_path)
    assert json.loads((tmp_path / "verdicts.json").read_text()) == told
    assert (tmp_path / "forest.png").read_bytes()[1:4] == b"PNG"
    assert verdicts.table(told).verdict.tolist()[2] == "supported"


GRID = """
- set: {model: pocket, part: valid, top_items: 100}
  vary: {method: [sft, gdrt], learning_rate: [0.001, 0.002]}
- set: {model: pocket, top_items: 100}
  vary: {method: [sft, gdrt]}
  chosen: {settings: [learning_rate], by: NDCG@10}
- set: {model: pocket, top_items: 100}
  vary: {method: [forced]}
  chosen: {settings: [learning_rate], by: NDCG@10, like: gdrt}
- set: {model: pocket, top_items: 100}
  vary: {method: [sft-at-nll]}
  chosen: {settings: [learning_rate], by: NLL, like: sft, of: gdrt}
"""


def test_the_best_trial_on_valid_users_chooses_the_settings(tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID)
    trials = grid.read_grid(tmp_path / "grid.yaml", tmp_path)
    assert [trial.part for trial in trials] == ["valid"] * 4  # the others wait
    lucks = {("sft", 0.001): 0.9, ("sft", 0.002): 0.2, ("gdrt", 0.001): 0.2, ("gdrt", 0.002): 0.9}
    nll = {("sft", 0.001): 3.0, ("sft", 0.002): 5.2, ("gdrt", 0.001): 9.0, ("gdrt", 0.002): 5.0}
    for trial in trials[:3]:
        place = trial.method, trial.learning_rate
        made = dataclasses.replace(make_cell(0, lucks[place]), nll=[nll[place]] * 40, config=trial)
        made.write(tmp_path / f"{trial.key}.json")
    assert len(grid.read_grid(tmp_path / "grid.yaml", tmp_path)) == 4  # one trial is still missing
    place = trials[3].method, trials[3].learning_rate
    dataclasses.replace(make_cell(0, lucks[place]), nll=[5.0] * 40, config=trials[3]).write(
        tmp_path / f"{trials[3].key}.json"
    )
    tests = grid.read_grid(tmp_path / "grid.yaml", tmp_path)[4:]
    assert {t.method: t.learning_rate for t in tests} == {"sft": 0.001, "gdrt": 0.002, "forced": 0.002, "sft-at-nll": 0.002}


def test_a_choice_without_trials_is_refused(tmp_path):
    (tmp_path / "grid.yaml").write_text(GRID.split("- set", 2)[0] + "- set" + GRID.split("- set", 2)[2])
    with pytest.raises(Exception, match="no trial of sft on valid users"):
        grid.read_grid(tmp_path / "grid.yaml", tmp_path)


def test_each_registered_cell_is_one_that_the_grid_declares():
    folder = data.data_folder() / "results"
    declared = {config.key for config in grid.read_grid(folder / "registered.yaml", folder / "registered")}
    found = {read.config.key: path.stem for path in (folder / "registered").glob("*.json") for read in [Cell.read(path)]}
    assert set(found) <= declared and all(key == name for key, name in found.items())


def test_the_verdicts_are_those_of_the_registered_cells(tmp_path):
    folder = data.data_folder() / "results"
    told = verdicts.write(read_cells(folder / "registered"), tmp_path)
    kept, now = (  # processors differ in the last digit of a sum
        json.loads((home / "verdicts.json").read_text(), parse_float=lambda text: f"{float(text):.9g}")
        for home in (folder, tmp_path)
    )
    assert kept == now, "run `python -m gdrt_lite study --report`"
    assert len(told["hypotheses"]) == 6


def test_the_cautions_state_the_differences_that_qualify_the_verdicts():
    costs, reads = {"gdrt": 5.0, "sft": 4.0, "sft-at-nll": 4.5}, "NDCG@10 own minus stranger"
    gaps = {0: {"gdrt": 0.1, "sft": 0.4, "sft-at-nll": 0.4}, 1: {"gdrt": 0.4, "sft": 0.4, "sft-at-nll": 0.4}}
    text = verdicts.cautions(
        {
            name: {
                seed: {"NLL": constant(cost), "MGU@5 popularity": constant(own[name]), reads: constant(0.0)}
                for seed, own in gaps.items()
            }
            for name, cost in costs.items()
        }
    )
    assert "MGU@5 of GDRT is 0.50 [" in text  # the geometric mean of 1/4 and 1
    assert "NLL is +0.50 [+0.50, +0.50] nats" in text and "changes by +1.00 [+1.00, +1.00] nats against SFT" in text
    assert "not measured" not in text and "H1" not in text and "gate" not in text  # what has no figure has no line


def test_a_yardstick_with_parameters_is_named_and_hides_no_other_caution():
    own = {"NDCG@10": constant(0.3), "own minus stranger": constant(1.0), "MGU@5 popularity": constant(0.1)}
    text = verdicts.cautions({label: {0: own} for label in ("gdrt", "sft", "balanced", "sasrec epochs=20")})
    assert "from SASRec by +0.000" in text and "H4 and H5 compare with SFT alone" in text and "MGU@5 by +0.000" in text
