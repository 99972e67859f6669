"""The benchmarks compare equal answers, and the study's cells travel to another machine and back."""

from __future__ import annotations

import json
import sys

import pytest
import torch
import yaml

from benchmarks import __main__ as main
from benchmarks import common, exact_ranking, growth, train_target, windows
from gdrt_lite import decoding
from gdrt_lite.prompts import Encoded
from gdrt_lite.study.grid import read_grid

sys.path.insert(0, str(main.__file__).rsplit("/", 2)[0] + "/scripts")
import device_cells  # noqa: E402

TINY = {
    "set": {"model": "pocket", "data": "movielens", "top_items": 50, "history": 3, "test_examples": 4},
    "vary": {"method": ["popularity", "item-transitions"]},
}


def test_distinct_tokens_by_hand():
    def prompt(ids, label):
        return Encoded(ids, (0,) * len(ids), (len(ids) - 1,), (label,), (1,) * len(ids))

    # 1 2 3, 1 2 4 5: the shared 1 2, then 3, then 4 5. A token behind the last label is not read.
    assert common.distinct_tokens([prompt((1, 2, 3), 9), prompt((1, 2, 4, 5), 9)]) == 5
    assert common.distinct_tokens([Encoded((1, 2, 3), (0,) * 3, (1,), (3,), (1,) * 3)]) == 2


@pytest.mark.parametrize("lora", train_target.LORA)
def test_both_ways_of_training_have_one_loss_and_gradient(pocket, lora):
    rows = [pocket.encode(e.history, e.target) for e in common.whole_chunks(1)[4:8]]
    found = train_target.differences(pocket, train_target.LORA[lora], rows)
    assert found["loss_difference_fp32"] < 1e-5 and found["gradient_difference_fp32"] < 1e-4


def test_both_ways_of_ranking_give_one_score(pocket, splits):
    titles, history = splits.catalogue[:20], tuple(splits.catalogue[30:34])
    theirs = exact_ranking.one_by_one(pocket, history, titles)
    ours = dict(decoding.score_catalogue(pocket, history, titles))
    torch.testing.assert_close(
        torch.tensor([ours[t] for t in titles]), torch.tensor([theirs[t] for t in titles]), atol=1e-4, rtol=0
    )


def test_growing_and_sliding_windows_are_trained_on_the_same_targets():
    growing, sliding = (windows.train_on(kind, 60, seed=1) for kind in (True, False))
    assert [(e.user, e.target, e.time) for e in growing] == [(e.user, e.target, e.time) for e in sliding]
    assert all(len(a.history) <= len(b.history) for a, b in zip(growing, sliding, strict=True)) and growing != sliding


def test_synthetic_titles_are_distinct():
    assert len(set(growth.synthetic_titles(5000))) == 5000


def test_the_table_shows_every_measured_step():
    row = {"ours_s": 1.0, "peer_s": 12.0, "ratio": 12.0, "roofline": 0.5}
    text = main.table({name: row | {"all_linear": row} for name in main.NAMES})
    assert len(text.splitlines()) == 2 + len(main.ROWS) and text.count("| 12.00 |") == len(main.ROWS)
    assert len(main.table({}).splitlines()) == 2


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A grid of two cells, packed into a folder."""
    monkeypatch.setattr(sys, "path", list(sys.path))  # the script puts the unpacked code in front
    grid = tmp_path / "grid.yaml"
    grid.write_text(yaml.safe_dump([TINY]))
    device_cells.pack(tmp_path / "there", grid, tmp_path / "cells", [])
    return tmp_path


def test_a_pack_holds_the_code_and_the_data_and_a_damaged_part_is_refused(packed):
    there = packed / "there"
    assert all(part.stat().st_size < 64 * 2**20 for part in there.glob("part-*"))
    tree = device_cells.unpack(there)
    assert (tree / "gdrt_lite/study/grid.py").exists() and (tree / "data/movielens/SHA256SUMS").exists()
    with (there / "part-000").open("ab") as part:
        part.write(b"more")
    assert device_cells.unpack(there) == tree  # it is there already
    (tree / "made-of").unlink()
    with pytest.raises(SystemExit, match="missing or damaged"):
        device_cells.unpack(there)


@pytest.mark.slow
def test_a_slice_runs_the_missing_cells(packed, capsys):
    keys = {config.key for config in read_grid(packed / "grid.yaml")}
    device_cells.run_slice(packed / "there", jobs=1, minutes=0)
    assert "2 waiting" in capsys.readouterr().out
    device_cells.run_slice(packed / "there", jobs=2, minutes=5)
    cells = list((packed / "there" / "cells").glob("*.json"))
    assert {path.stem for path in cells} == keys and all(json.loads(path.read_text()) for path in cells)
    device_cells.run_slice(packed / "there", jobs=1, minutes=5)
    assert "nothing to do" in capsys.readouterr().out
