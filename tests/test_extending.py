"""What a stranger adds takes one file of at most 40 lines (docs/extending): each is imported here and works in a cell."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gdrt_lite import ablation, data, objectives
from gdrt_lite.study import compare, methods, report
from gdrt_lite.study.config import Config
from gdrt_lite.study.trial import run_cell
from gdrt_lite.study.workspace import Workspace

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "extending"
EXTENSIONS = sorted(FOLDER.glob("*.py"))
TINY = dict(model="pocket", top_items=50, train_examples=48, test_examples=12, faa_examples=4, batch_size=16)


@pytest.fixture
def extend():
    """Imports an extension; the registries are as before when the test is over."""
    registries = (objectives.OBJECTIVES, methods.YARDSTICKS, report.FAMILIES, ablation.ABLATIONS, data.NAMED)
    before = [registry.copy() for registry in registries]

    def load(name: str) -> None:
        spec = importlib.util.spec_from_file_location(f"extending_{name}", FOLDER / f"{name}.py")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))

    yield load
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept) if isinstance(registry, dict) else registry.extend(kept)


def lines_of_code(path: Path) -> int:
    """Lines that are neither blank nor a docstring of the module."""
    return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("path", EXTENSIONS, ids=lambda path: path.stem)
def test_an_extension_is_one_short_file(path):
    assert lines_of_code(path) <= 40


def test_an_objective_with_a_parameter_of_its_own_is_trained_tabled_and_told_apart(extend, tmp_path):
    with pytest.raises(ValueError, match="unknown method 'cvar'"):
        Config(method="cvar")
    extend("objective")
    known = Config(**TINY, method="gdrt").key
    one, two = (Config(**TINY, method="cvar", parameters=own) for own in ({}, {"alpha": 0.2}))
    assert one.key != two.key and Config(**TINY, method="gdrt").key == known
    bench = Workspace(one)
    cells = [run_cell(config, tmp_path, bench, progress=False) for config in (one, two, Config(**TINY, method="sft"))]
    worst_two, worst_one = [[cell.history[f"weight_g{g}"][0] for g in range(5)] for cell in cells[:2]]
    assert sorted(worst_two) == [0, 0, 0, 0.5, 0.5] and sorted(worst_one) == [0, 0, 0, 0, 1]
    assert compare.table(cells).method.tolist() == ["sft", "cvar", "cvar alpha=0.2"]
    with pytest.raises(ValueError, match="method 'cvar' has no parameter 'beta'; its parameters are: alpha"):
        Config(method="cvar", parameters={"beta": 1.0})


def test_a_metric_reaches_cells_that_were_measured_before(extend, tmp_path):
    cell = run_cell(Config(**TINY, method="popularity"), tmp_path, progress=False)
    assert "MRR@10" not in report.cell_metrics(cell)
    extend("metric")
    found = report.cell_metrics(cell)["MRR@10"]
    assert report.cell_metrics(cell)["NDCG@10"].value >= found.value > 0


def test_a_trained_baseline_beats_popularity_on_what_it_was_trained_on(extend, tmp_path):
    extend("baseline")
    bench = Workspace(Config(**TINY))
    bench.splits.test[:] = bench.splits.train[:200]
    gains = {}
    for name in ("factors", "popularity"):
        cell = run_cell(Config(**(TINY | {"test_examples": 200}), method=name), tmp_path, bench, progress=False)
        gains[name] = report.cell_metrics(cell)["NDCG@10"].value
    assert gains["factors"] > gains["popularity"]


def test_an_ablation_and_a_data_set_work_in_a_cell_like_the_others(extend, tmp_path):
    with pytest.raises(ValueError, match="ablations='backwards' is unknown"):
        Config(ablations=("backwards",))
    extend("ablation"), extend("data_set")
    config = Config(**(TINY | {"top_items": 0}), method="pre-trained", data="radio", ablations=("backwards", "attention"))
    bench = Workspace(config)
    assert bench.splits.catalogue[0] == "Song No. 1" and "heard these songs" in bench.prompt.before
    cell = run_cell(config, tmp_path, bench, progress=False)
    backwards, attention = (cell.faa[name] for name in ("backwards", "attention"))
    assert max(backwards["TASK"]) < 1e-4 < min(attention["TASK"]) and max(backwards["HISTORY"]) > 1e-4
