"""What the cells of a study say together: intervals over users and seeds, protocols, and what was tried."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers import make_cell

from gdrt_lite.study import compare, grid, protocols, report
from gdrt_lite.study.cell import Cell, read_cells
from gdrt_lite.system import files
from gdrt_lite.system.errors import GdrtError


def make(method: str, seed: int, luck: float, **settings) -> Cell:
    return make_cell(seed + 10 * len(method), luck, method=method, seed=seed, **settings)


def constant(value: float, n: int = 20) -> report.Metric:
    return report.Metric(np.full((n, 1), value), [f"u{i}" for i in range(n)], lambda means: means[..., 0])


def test_the_difference_over_one_seed_is_that_over_users():
    one, other = (report.cell_metrics(make(name, 0, luck)) for name, luck in (("gdrt", 0.9), ("sft", 0.3)))
    found = compare.difference({0: one}, {0: other}, "NDCG@10")
    assert found == pytest.approx(one["NDCG@10"].minus(other["NDCG@10"]))


def test_the_difference_over_seeds_draws_seeds_too():
    """Users all alike, so that only the seeds spread: 1, 2 and 3. Two draws of three give means from 1 to 3."""
    one = {seed: {"NLL": constant(float(seed))} for seed in (1, 2, 3)}
    other = {seed: {"NLL": constant(0.0)} for seed in (1, 2, 3, 4)}  # seed 4 has no partner
    found = compare.difference(one, other, "NLL")
    assert found.estimate == pytest.approx(2.0)
    assert found.low == pytest.approx(1.0) and found.high == pytest.approx(3.0)  # 1/9 of the draws each, over 2.5%


def test_one_seed_fewer_is_drawn_than_there_are():
    """Drawing all n of a few seeds would make the variance of their mean (n - 1) / n of what it is."""
    seeds = {seed: {"NLL": constant(float(seed == 3))} for seed in range(4)}
    found = compare.difference(seeds, {seed: {"NLL": constant(0.0)} for seed in range(4)}, "NLL")
    # Of three drawn, at least two are seed 3 in 10 of 64 cases and all three in 1 of 64, which is below 2.5%. With four
    # drawn, at least three of them would be in 13 of 256 cases: the interval would end at 3/4.
    assert (found.estimate, found.low) == (pytest.approx(0.25), 0)
    assert found.high == pytest.approx(2 / 3)


def test_without_a_shared_seed_there_is_no_difference():
    assert compare.difference({0: {"NLL": constant(1.0)}}, {1: {"NLL": constant(1.0)}}, "NLL") is None
    assert compare.difference({0: {"NLL": constant(1.0)}}, {0: {}}, "NLL") is None


def test_the_table_has_a_row_an_objective_in_the_order_of_the_course():
    cells = [make(name, seed, 0.5) for name in ("gdrt", "sft", "pre-trained") for seed in (0, 1)]
    table = compare.table(cells)
    assert table.method.tolist() == ["pre-trained", "sft", "gdrt"] and table.seeds.tolist() == [2, 2, 2]
    mean = np.mean([report.cell_metrics(cell)["NLL"].value for cell in cells[:2]])
    assert table.NLL[2].startswith(f"{mean:.3f} (") and "(" not in table.NLL[1]


def test_what_has_no_seed_stands_against_every_seed():
    cells = [make("sft", 0, 0.2), make("sft", 1, 0.8), make("popularity", 0, 0.5)]
    gains = [report.cell_metrics(cell)["NDCG@10"].value for cell in cells]
    row = compare.table(cells).set_index("method").loc["popularity"]
    assert row.seeds == 1 and row["NDCG@10"].startswith(f"{gains[2]:.3f} ({gains[2] - np.mean(gains[:2]):+.3f} [")


def test_a_protocol_is_all_settings_but_objective_and_seed():
    cells = [make("sft", 0, 0.5), make("gdrt", 1, 0.5), make("gdrt", 0, 0.5, tau=3.0), make("sft", 0, 0.5, part="valid")]
    found = protocols.by_protocol(cells)
    assert [(config.tau, len(own)) for config, own in found] == [(3.0, 2), (1.0, 2)]  # of two as large the larger tau


def test_what_has_no_use_for_a_setting_belongs_to_every_protocol_that_differs_in_it():
    cells = [
        make("sft", 0, 0.5, tau=9.0), make("balanced", 0, 0.5, tau=9.0), make("gdrt", 0, 0.5), make("gdrt", 0, 0.5, tau=3.0),
        make("gdrt", 1, 0.5, n_groups=10), make("sft", 1, 0.5, epochs=2),
    ]  # fmt: skip
    found = {
        (c.tau, c.n_groups, c.epochs): sorted(cell.config.method for cell in own) for c, own in protocols.by_protocol(cells)
    }
    assert found == {
        (1.0, 5, 1.0): ["balanced", "gdrt", "sft"], (3.0, 5, 1.0): ["balanced", "gdrt", "sft"],
        (1.0, 10, 1.0): ["gdrt", "sft"],
        (1.0, 5, 2.0): ["sft"],
    }  # fmt: skip


def test_what_is_not_trained_belongs_to_every_protocol_that_differs_in_training():
    """At other epochs, windows and batches, with dropout and a learning curve; but not at another history or fewer test
    examples."""
    trained = dict(epochs=2, train_examples=99, batch_size=4, dropout=0.1, curve_examples=7, learning_rate=0.5)
    untrained = ("pre-trained", "popularity", "item-transitions")
    cells = [
        make("sft", 0, 0.5, **trained),
        make("sft", 0, 0.5),
        make("sft", 0, 0.5, history=9),
        make("sft", 0, 0.5, test_examples=9),
    ]
    cells += [make(name, 0, 0.5) for name in untrained]
    found = {
        (c.epochs, c.history, c.test_examples): [cell.config.method for cell in own]
        for c, own in protocols.by_protocol(cells)
    }
    assert found == {
        (2.0, 5, 100): ["sft", *untrained], (1.0, 5, 100): ["sft", *untrained], (1.0, 9, 100): ["sft"], (1.0, 5, 9): ["sft"],
    }  # fmt: skip
    assert "learning rate" not in compare.table([*cells[:1], *cells[4:]])  # one rate among those that are trained


def test_counting_does_not_ask_how_tokens_are_attributed():
    cells = [make("sft", 0, 0.5, faa_examples=9, ablations=("token",))]
    found = protocols.by_protocol([*cells, make("popularity", 0, 0.5), make("pre-trained", 0, 0.5)])
    assert [[cell.config.method for cell in own] for _, own in found] == [
        ["sft", "popularity"],
        ["pre-trained", "popularity"],
    ]


def test_what_was_measured_twice_under_settings_it_has_no_use_for_counts_once():
    cells = [
        make(name, 0, 0.5, epochs=epochs, learning_rate=epochs)
        for epochs in (1, 2)
        for name in ("sft", "popularity", "pre-trained")
    ]
    for _, own in protocols.by_protocol(cells):
        assert sorted(compare.metrics_by_method(own)) == ["popularity", "pre-trained", "sft"] and len(own) == 3


def test_cells_on_different_test_examples_are_not_compared():
    """Other users may have other means, and cannot be drawn in pairs; one seed of two is enough."""
    cells = [make(name, seed, 0.5) for name in ("sft", "gdrt") for seed in (0, 1)]
    cells[3].users = [f"other {user}" for user in cells[3].users]
    one, other = (compare.metrics_by_method(cells)[name] for name in ("gdrt", "sft"))
    for contrast in (compare.difference, compare.relative_change):
        with pytest.raises(GdrtError, match="seed 1 have NDCG@10 on different test examples; run the older one again"):
            contrast(one, other, "NDCG@10")
        contrast({0: one[0]}, other, "NDCG@10")


def test_relative_change_is_that_of_the_means_over_shared_seeds():
    one = {0: {"NLL": constant(3.0)}, 1: {"NLL": constant(6.0)}, 2: {"NLL": constant(99.0)}}
    other = {0: {"NLL": constant(2.0)}, 1: {"NLL": constant(4.0)}}
    assert compare.relative_change(one, other, "NLL") == pytest.approx(0.5)
    with pytest.raises(ValueError, match="nothing to compare"):
        compare.relative_change(one, {}, "NLL")


def test_one_objective_and_seed_at_two_learning_rates_is_refused():
    cells = [make("sft", 0, 0.5, learning_rate=rate) for rate in (0.1, 0.2)]
    assert len(protocols.by_protocol(cells)) == 1
    with pytest.raises(GdrtError, match="two cells have method sft and seed 0, at two learning rates"):
        compare.table(cells)


def test_what_was_tried_shows_the_settings_that_differ_best_first():
    cells = [make("gdrt", 0, luck, tau=tau, part="valid") for tau, luck in ((1.0, 0.1), (2.0, 0.9), (4.0, 0.5))]
    table = compare.trials(cells)
    assert table.tau.tolist() == [2.0, 4.0, 1.0] and "learning_rate" not in table and "method" in table
    table = compare.trials([*cells, make("sft", 0, 0.5, tau=9.0, part="valid")])
    assert table.tau.tolist() == [2.0, 4.0, 1.0, "-"]


def test_a_file_that_is_no_cell_is_named(tmp_path):
    files.write_json(tmp_path / "a.json", {"config": {"colour": "red"}})
    with pytest.raises(GdrtError, match="a.json is no cell"):
        read_cells(tmp_path)


def test_the_report_shows_curves_and_what_was_tried(tmp_path):
    curve = [{"epoch": n, "step": 3 * n, "NDCG@10": 0.1 * n, "bias attention": 2.0, "coverage@10": 5} for n in (1, 2)]
    machine = {"environment": {"cpu_capability": "AVX2"}}
    dataclasses.replace(make("sft", 0, 0.5), curve=curve, **machine).write(tmp_path / "cells" / "a.json")
    make("gdrt", 0, 0.5, part="valid").write(tmp_path / "cells" / "b.json")
    text = grid.write_report(tmp_path / "cells", tmp_path)
    assert (tmp_path / "REPORT.md").read_text() == text and "2 cells" in text and "Tried on the valid part" in text
    shown = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(shown) == 3 and all((tmp_path / name).stat().st_size > 5000 for name in shown)
