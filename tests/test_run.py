"""The main job end to end on the pocket model: same figures twice, after a kill too; bad input on the command line."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re

import numpy as np
import pytest
import torch

from gdrt_lite import __main__ as cli
from gdrt_lite import data, dro, groups, lm, metrics, relevance, training
from gdrt_lite.study import grid, page, report, run, trial, workspace
from gdrt_lite.study.cell import read_cells
from gdrt_lite.study.config import Config
from gdrt_lite.study.evaluate import evaluate
from gdrt_lite.study.trial import group_prior
from gdrt_lite.system import files
from gdrt_lite.system.errors import GdrtError

TINY = dict(model="pocket", train_examples=64, test_examples=12, faa_examples=4, batch_size=16, ablations=("attention",))


@pytest.fixture(scope="module", autouse=True)
def short_twin():
    """The relevance scorer needs few steps where nothing depends on its quality."""
    patch = pytest.MonkeyPatch()
    whole = training.train_relevance_scorer
    patch.setattr(
        training, "train_relevance_scorer", lambda lm, examples, seed=0: whole(lm, examples, max_steps=2, seed=seed)
    )
    yield
    patch.undo()


def opened(config):
    return workspace.Workspace(config).splits


def report_of(folder):
    found = json.loads((folder / "report.json").read_text())
    return {key: value for key, value in found.items() if key not in ("seconds", "peak_memory_gib")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run.run(("sft", "gdrt"), out=folder, progress=False, **TINY)
    return folder


def test_the_report_holds_every_model_metric_and_interval(finished):
    found = report_of(finished)
    rows = {(row["model"], row["metric"]): row for row in found["metrics"]}
    for model in ("pre-trained", "sft", "gdrt", "popularity", "item-transitions"):
        row = rows[model, "NDCG@10"]
        assert row["low"] <= row["estimate"] <= row["high"]
    for metric in ("NDCG@10", "HR@10", "NLL", "MGU@5 popularity", "DGU@5 genre", "bias attention"):
        row = rows["gdrt", metric]
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]
        assert row["difference"] == pytest.approx(row["estimate"] - rows["sft", metric]["estimate"])
    assert found["config"]["seed"] == 0 and found["environment"]["torch"]
    text = (finished / "report.md").read_text()
    assert "not recommended again" in text and "unmasked" in text and "minus SFT" in text
    assert {p.name for p in finished.glob("*.png")} >= {"accuracy.png", "differences.png", "training-gdrt.png"}


def test_a_cell_carries_all_that_its_tables_need(finished):
    cell = read_cells(finished / "cells")[0]
    splits = opened(cell.config)
    bins = metrics.popularity_groups(splits.train, splits.catalogue)
    assert cell.train_examples == TINY["train_examples"] and cell.dtype == "float32"
    assert cell.data == splits.name == "MovieLens small, top 500, new_users"
    assert cell.item_groups["popularity"] == [list(bins[title]) for title in splits.catalogue]
    assert cell.item_groups["genre"] == [list(splits.genres[title]) for title in splits.catalogue]


def test_a_folder_is_split_as_asked_or_kept_as_published(tmp_path, monkeypatch):
    names = {str(i): f"thing {i}" for i in range(12)}
    files.write_json(tmp_path / "amazon" / "Tiny" / "id2name4Rec.json", names)
    rows = [f'{u},"{[(u + i) % 12 for i in range(6)]}",{10 * u}' for u in range(40)]
    for name in ("train_10000.csv", "test_5000.csv"):
        files.write_text(tmp_path / "amazon" / "Tiny" / name, "\n".join(["user_id,item_ids,timestamp", *rows]) + "\n")
    monkeypatch.setattr(data.sources, "data_folder", lambda: tmp_path)
    published = opened(Config(data="amazon/Tiny", split="published"))
    assert len(published.test) == 40 and published.name == "Amazon Tiny"
    ours = opened(Config(data="amazon/Tiny", top_items=10, history=3))
    assert ours.name == "Amazon Tiny, top 10, new_users" and len(ours.catalogue) == 10
    assert not {e.user for e in ours.train} & {e.user for e in ours.test}
    assert ours.name == opened(Config(data=str(tmp_path / "amazon" / "Tiny"), top_items=10, history=3)).name
    with pytest.raises(ValueError, match="unknown data set 'amazon/None'"):
        opened(Config(data="amazon/None"))


@pytest.mark.parametrize("history, fewest", [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_a_window_has_three_titles_or_as_many_as_a_shorter_history_holds(history, fewest):
    splits = opened(Config(history=history, top_items=50))
    lengths = {len(e.history) for part in (splits.train, splits.valid, splits.test) for e in part}
    assert lengths == set(range(fewest, history + 1))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"history": 0}, "history=0 must be a whole number, at least 1"),
        ({"n_groups": 0}, "n_groups=0 must be a whole number, at least 1"),
        ({"n_groups": 2.5}, "n_groups=2.5 must be"),
        ({"scorer": "some/folder"}, "scorer='some/folder' is unknown; choose one of pre-trained, sft"),
        ({"method": "gdtr"}, "unknown method 'gdtr'; choose one of pre-trained, sft, balanced, gdrt"),
        ({"part": "vaild"}, "part='vaild' is unknown; choose one of test, valid"),
        ({"split": "new_user"}, "split='new_user' is unknown"),
        ({"prior": "popular"}, "prior='popular' is unknown; choose one of uniform, counts, relevance"),
        ({"ablations": ("attention", "atention")}, "ablations='atention' is unknown"),
        ({"learning_rate": 0}, "learning_rate=0 is out of range: it must be above 0, and finite"),
        ({"dropout": 2}, "dropout=2 is out of range: it must be at least 0, and below 1"),
        ({"tau": math.nan}, "tau=nan is out of range"),
        ({"epochs": math.inf}, "epochs=inf is out of range"),
        ({"method": "gdrt", "parameters": {"alpha": 1.0}}, "method 'gdrt' has no parameter 'alpha'"),
    ],
)
def test_a_setting_that_no_cell_can_have_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)
    Config(model="pocket", scorer="sft", n_groups=1, history=1)  # this is sound


@pytest.fixture(scope="module")
def dealt():
    """A bench with relevance made up instead of scored, three numbers a title, and the windows and settings of a cell."""
    config = Config(**TINY, method="gdrt", seed=3)
    bench = workspace.Workspace(config)
    rng = np.random.default_rng(0)
    bench.relevance = {title: torch.tensor(rng.normal(size=3)) for title in bench.splits.catalogue}
    return bench, config, bench.train(config)


def test_random_has_the_groups_of_gdrt_shuffled_with_the_seed(dealt):
    bench, config, train = dealt
    fitted = groups.fit(bench.relevance, [e.target for e in train], n_groups=config.n_groups, seed=3)
    found = {name: bench.groups(dataclasses.replace(config, method=name), train) for name in ("gdrt", "random")}
    ids = {
        name: {title: own.tolist() for title, own in of.ids.items()}
        for name, of in (found | {"fitted": fitted, "dealt": fitted.shuffled(3)}).items()
    }
    assert ids["gdrt"] == ids["fitted"] and found["gdrt"].centers.tolist() == fitted.centers.tolist()
    assert ids["random"] == ids["dealt"] != ids["gdrt"]


def test_item_has_one_group_for_all_tokens_of_a_title(dealt):
    bench, config, train = dealt
    found = bench.groups(dataclasses.replace(config, method="item"), train)
    assert found.level == "item" and all(len(set(ids)) == 1 for ids in found.ids.values())
    assert len({ids[0] for ids in found.ids.values()}) == config.n_groups


@pytest.fixture(scope="module")
def grouped():
    """Six tokens in two groups, one title a target three times; group means -2.5 (4 tokens) and -0.25 (4 tokens)."""
    scores = {"a": [-2.0, -0.5], "b": [-4.0, 0.5], "c": [-9.0, -9.0]}
    return groups.fit(scores, ["a", "a", "a", "b"], n_groups=2)


def test_a_prior_by_counts_or_relevance_counts_training_tokens(grouped):
    assert group_prior(Config(prior="uniform"), grouped) is None
    assert group_prior(Config(prior="counts"), grouped) == pytest.approx([0.5, 0.5])
    low, high = group_prior(Config(prior="relevance", tau=3.0), grouped)
    assert low / high == pytest.approx(math.exp((-2.5 + 0.25) / 3))


def test_the_prior_by_relevance_weighs_by_the_loss_above_the_scorers(grouped):
    losses, floor, tau = torch.tensor([3.0, 1.0]), torch.tensor([2.5, 0.25]), 0.7
    prior = torch.tensor(group_prior(Config(prior="relevance", tau=tau), grouped))
    torch.testing.assert_close(dro.group_weights(losses, tau, prior), dro.group_weights(losses - floor, tau))


def test_a_group_without_a_training_token_has_no_prior(grouped):
    unseen = dataclasses.replace(
        grouped, ids={**grouped.ids, "a": np.array([1, 1]), "b": np.array([1, 1]), "c": np.array([0, 0])}
    )
    for prior in ("counts", "relevance"):
        assert group_prior(Config(prior=prior), unseen) == [0.0, 1.0]


def test_the_scorer_may_be_the_tuned_model():
    """Its relevance is that of plain SFT with the settings of the cell, and cells that differ in these share no bench."""
    config = Config(**{**TINY, "train_examples": 16}, scorer="sft", epochs=2.0, learning_rate=0.01)
    bench = workspace.Workspace(config)
    args = training.arguments(bench.base, epochs=2, batch_size=16, learning_rate=0.01)
    tuned = training.finetune(bench.base, bench.train(config), "sft", args, progress=False).lm
    titles = bench.splits.catalogue
    expected, twin = relevance.token_relevance(tuned, titles), workspace.Workspace(Config(**TINY)).relevance
    assert all(torch.equal(bench.relevance[title], expected[title]) for title in titles)
    assert not all(torch.equal(bench.relevance[title], twin[title]) for title in titles)
    other = dataclasses.replace(config, epochs=3.0)
    assert grid.workspace_key(other) != grid.workspace_key(config)
    assert grid.workspace_key(dataclasses.replace(other, scorer="pre-trained")) == grid.workspace_key(
        dataclasses.replace(config, scorer="pre-trained")
    )


def test_two_runs_with_one_seed_give_the_same_report(finished, tmp_path):
    run.run(("sft", "gdrt"), out=tmp_path, progress=False, **TINY)
    assert report_of(tmp_path) == report_of(finished)


def test_a_run_killed_half_way_and_resumed_gives_the_same_report(finished, tmp_path, monkeypatch):
    whole = evaluate
    calls = []

    def dies_at_the_second_model(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*args, **kwargs)

    monkeypatch.setattr(trial, "evaluate", dies_at_the_second_model)
    with pytest.raises(KeyboardInterrupt):
        run.run(("sft", "gdrt"), out=tmp_path, progress=False, **TINY)
    assert len(list((tmp_path / "cells").glob("*.json"))) == 1 and not (tmp_path / "report.json").exists()
    monkeypatch.setattr(trial, "evaluate", whole)
    run.run(("sft", "gdrt"), out=tmp_path, resume=True, progress=False, **TINY)
    assert report_of(tmp_path) == report_of(finished)


def test_another_seed_gives_other_figures(finished, tmp_path):
    run.run(("sft",), out=tmp_path, progress=False, seed=1, **TINY)
    nll = [
        next(row["estimate"] for row in report_of(folder)["metrics"] if (row["model"], row["metric"]) == ("sft", "NLL"))
        for folder in (finished, tmp_path)
    ]
    assert nll[0] != nll[1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--profile", "huge"], "unknown profile 'huge'"),
        (["--objectives", "sft,dpo"], "unknown objective 'dpo'"),
        (["--data", "netflix"], "unknown data set 'netflix'"),
        (["--model", "no/such-model"], "unknown model 'no/such-model'"),
        (["--tau", "0"], "tau=0 is out of range"),
        (["--tau", "nan"], "tau=nan is out of range"),
        (["--tau", "-1"], "tau=-1 is out of range"),
        (["--n-groups", "0"], "n_groups=0 must be"),
        (["--n_groups", "-1"], "n_groups=-1 must be"),
        (["--model", "pocket", "--n_groups", "100000", "--objectives", "gdrt"], "n_groups=100000 must be between"),
    ],
)
def test_a_bad_argument_ends_with_one_sentence_and_no_report(arguments, message, tmp_path, capsys, monkeypatch):
    small = {name: value for name, value in TINY.items() if name != "model"}
    monkeypatch.setitem(run.PROFILES, "quick", small)
    assert cli.main(["run", "--out", str(tmp_path / "out"), *arguments]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("gdrt_lite: ") and message in error
    assert not (tmp_path / "out" / "report.json").exists()


def test_a_folder_that_cannot_hold_the_report_is_named_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run, "Workspace", lambda *_: pytest.fail("work has begun"))
    monkeypatch.setattr(grid, "Workspace", lambda *_: pytest.fail("work has begun"))
    taken = files.write_text(tmp_path / "taken", "kept")
    plan = files.write_text(tmp_path / "grid.yaml", "- set: {model: pocket}\n  vary: {method: [popularity]}\n")
    for command in (["run", "--out", str(taken)], ["study", "--grid", str(plan), "--results", str(taken)]):
        assert cli.main(command) == 1
        assert "taken is no folder that can be written to" in capsys.readouterr().err
    assert taken.read_text() == "kept"


@pytest.mark.parametrize("value, profile", [("", "quick"), ("full", "full")])
def test_the_profile_is_that_of_the_environment_and_an_empty_one_is_quick(value, profile, monkeypatch):
    found = {}
    monkeypatch.setattr(run, "run", lambda **settings: found.update(settings))
    monkeypatch.setenv("GDRT_PROFILE", value)
    assert cli.main(["run"]) == 0 and found["profile"] == profile
    assert cli.main(["run", "--profile", "standard"]) == 0 and found["profile"] == "standard"


def test_ctrl_c_says_that_the_work_is_kept(monkeypatch, capsys):
    monkeypatch.setattr(run, "run", lambda **_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(["run"]) == 130
    assert "the same command with --resume continues from there" in capsys.readouterr().err
    monkeypatch.setattr(grid, "registered", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(["study"]) == 130
    assert "the same command continues from there" in capsys.readouterr().err


def test_the_study_leaves_out_what_it_has_no_data_for_and_says_so(tmp_path, capsys):
    plan = tmp_path / "grid.yaml"
    plan.write_text(
        "- set: {model: pocket, test_examples: 4}\n  vary: {data: [amazon/None, movielens], method: [popularity]}\n"
    )
    assert grid.main(plan, tmp_path / "cells") == 0
    assert "data is not here: amazon/None" in capsys.readouterr().out
    (cell,) = read_cells(tmp_path / "cells")
    assert cell.config.data == "movielens" and (tmp_path / "REPORT.md").exists()
    assert cell.train_examples == len(opened(cell.config).train)  # counted on all, not on a sample


def test_the_study_skips_what_is_done_and_reports_from_the_cells_alone(tmp_path, monkeypatch, capsys):
    plan = tmp_path / "grid.yaml"
    settings = ", ".join(f"{name}: {list(value) if isinstance(value, tuple) else value}" for name, value in TINY.items())
    plan.write_text(f"- set: {{{settings}}}\n  vary: {{method: [popularity, sft], seed: [0]}}\n")
    assert grid.main(plan, tmp_path / "cells") == 0
    before = {p.name: p.read_bytes() for p in (tmp_path / "cells").glob("*.json")}
    assert len(before) == 2
    monkeypatch.setattr(grid, "run_cell", lambda *_: pytest.fail("nothing is missing"))
    assert grid.main(plan, tmp_path / "cells") == 0
    assert grid.main(plan, tmp_path / "cells", report_only=True) == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "cells").glob("*.json")} == before
    assert not list((tmp_path / "cells" / ".checkpoints").glob("*")), "a later run of the cell would find old weights there"
    text = (tmp_path / "REPORT.md").read_text()
    assert "| popularity" in text and "| sft" in text and "2 cells" in text
    assert f"Computed on {torch.backends.cpu.get_cpu_capability()} float32." in text


@pytest.mark.parametrize("results", ["typo", "empty"])
def test_a_report_on_no_cell_is_refused_and_the_old_one_stays(results, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    old = files.write_text(tmp_path / "REPORT.md", "of a hundred cells")
    plan = ["--grid", str(tmp_path / "grid.yaml")]
    assert cli.main(["study", "--report", "--results", str(tmp_path / results)]) == 1
    assert "name the grid too" in capsys.readouterr().err
    assert cli.main(["study", "--report", *plan, "--results", str(tmp_path / results)]) == 1
    assert f"{results} holds no cell" in capsys.readouterr().err
    assert old.read_text() == "of a hundred cells" and not (tmp_path / "typo").exists()


@pytest.mark.parametrize(
    "text, message",
    [
        ("- set: {model: pocket}\n", "malformed"),
        ("- set: {colour: red}\n  vary: {seed: [0]}\n", "colour"),
        ("{", "malformed"),
    ],
)
def test_a_bad_grid_is_named(tmp_path, text, message):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(GdrtError, match=message):
        grid.read_grid(tmp_path / "grid.yaml")
    with pytest.raises(GdrtError, match="cannot be read"):
        grid.read_grid(tmp_path / "none.yaml")


def test_the_committed_grid_is_sound_and_its_keys_differ():
    configs = grid.read_grid(data.data_folder() / "results" / "archive" / "grid.yaml")
    assert len({config.key for config in configs}) == len(configs) > 50


def test_every_committed_cell_is_one_that_the_grid_declares():
    folder = data.data_folder() / "results" / "archive"
    declared = {config.key for config in grid.read_grid(folder / "grid.yaml")}
    for path, own in zip(sorted((folder / "cells").glob("*.json")), read_cells(folder / "cells"), strict=True):
        assert path.stem == own.config.key, f"{path.name} was renamed, or its settings changed"
        assert path.stem in declared, f"grid.yaml does not declare {path.name}"


def test_every_archived_rerun_is_of_an_archived_cell():
    folder = data.data_folder() / "results" / "archive"
    known = {path.name for path in (folder / "cells").glob("*.json")}
    again = {path.name for path in (folder / "reruns" / "cells").glob("*.json")}
    assert again and again <= known


def test_a_whole_number_names_the_same_cell_as_a_decimal_one():
    assert Config(epochs=1, tau=2).key == Config(epochs=1.0, tau=2.0).key
    assert Config(epochs=1).key != Config(epochs=2).key


def test_the_key_of_a_folder_is_one_file_name_on_every_system(monkeypatch):
    key = Config(data="amazon/Book").key
    assert key.startswith("Book-smollm2-135m-sft-s0-")
    monkeypatch.setattr(os, "sep", "\\")  # as on Windows, where "/" parts folders too
    assert Config(data="amazon/Book").key == key


# --- the page, and the first look -----------------------------------------------------------------


def test_the_page_says_what_the_run_found_and_loads_nothing(finished):
    text = (finished / "report.html").read_text()
    cells = {cell.method: cell for cell in read_cells(finished / "cells")}
    gap = report.cell_metrics(cells["sft"])["NDCG@10"].minus(report.cell_metrics(cells["popularity"])["NDCG@10"])
    assert f"the difference in NDCG@10 is {gap:+.3f} " in text
    assert "gdrt: the mean loss of the hardest group goes from" in text and "released adapters" not in text
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]+)"', text))
    assert len(re.findall(r'<img alt="[^"]{20,}"', text)) == text.count("<img") >= 2 and "<script" not in text


@pytest.mark.parametrize(
    "interval, words",
    [
        ((0.4, 0.1, 0.7), "lies above zero, so the model reads its users"),
        ((0.4, -0.1, 0.7), "includes zero, so it is not shown"),
        ((-0.4, -0.6, -0.1), "lies below zero, so it is not shown"),
        ((0.2, 0.0, 0.4), "includes zero"),
    ],
)
def test_a_sentence_on_the_user_follows_from_the_interval(interval, words):
    assert words in page.reading(metrics.Interval(*interval))


def test_a_first_look_trains_the_pocket_model_and_diagnoses_the_adapters(tmp_path, monkeypatch):
    """Where neither model nor data is named; the adapters' model is a pocket model here, of the same catalogue."""
    found = {}
    monkeypatch.setattr(run, "FIRST_LOOK", run.FIRST_LOOK | {**TINY, "ranking": "exact", "train_examples": 128})

    def load(name, adapter=None):
        found[name, adapter and adapter.name] = True
        return lm.pocket(data.load_movielens(500).split("new_users", history=5).catalogue, seed=len(found))

    monkeypatch.setattr(lm, "load", load)
    monkeypatch.setattr(page, "PEOPLE", 8)
    monkeypatch.setattr(page, "ATTRIBUTED", 3)
    run.run(("sft",), out=tmp_path, progress=False)
    assert set(found) == {("smollm2-135m", name) for name in (None, "movielens-sft", "movielens-gdrt")}
    text = (tmp_path / "report.html").read_text()
    assert "The released adapters of SmolLM2" in text and "of 10</b> titles in common" in text
    assert text.count("own minus stranger") == 4  # three models, and the one that was trained
    monkeypatch.setattr(lm, "load", lambda *_, **__: (_ for _ in ()).throw(GdrtError("no <model> here")))
    run.run(("sft",), out=tmp_path, resume=True, progress=False)
    assert "were not diagnosed: no &lt;model&gt; here" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    "profile, settings, model",
    [
        ("quick", {}, "pocket"),
        ("quick", {"seed": 3}, "pocket"),
        ("quick", {"model": "smollm2-135m"}, "smollm2-135m"),
        ("quick", {"data": "movielens-100k"}, "smollm2-135m"),
        ("standard", {}, "smollm2-135m"),
    ],
)
def test_only_a_quick_run_of_the_course_s_own_data_is_a_first_look(profile, settings, model, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        run, "Workspace", lambda config, splits: asked.append(config) or (_ for _ in ()).throw(GdrtError("stop"))
    )
    with pytest.raises(GdrtError, match="stop"):
        run.run(profile=profile, out=tmp_path, progress=False, **settings)
    (config,) = asked
    assert config.model == model and (config.ranking == "exact") == (model == "pocket")
    assert all(getattr(config, name) == value for name, value in settings.items())


@pytest.mark.parametrize(
    "place, screen",
    [
        ({"DISPLAY": ":0"}, True),
        ({}, False),
        ({"DISPLAY": ":0", "CI": "1"}, False),
        ({"DISPLAY": ":0", "SSH_CONNECTION": "x"}, False),
    ],
)
def test_the_page_opens_only_where_somebody_watches(place, screen, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(cli.webbrowser, "open", opened.append)
    monkeypatch.setattr(cli.sys, "platform", "linux")
    monkeypatch.setattr(cli.sys, "stdout", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(run, "run", lambda **_: None)
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "CI", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    assert cli.main(["run", "--out", str(tmp_path)]) == 0
    assert opened == ([(tmp_path / "report.html").as_uri()] if screen else [])
    assert cli.main(["run", "--out", str(tmp_path), "--no-open"]) == 0 and len(opened) == screen
