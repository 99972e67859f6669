"""Faults put in on purpose: kills, full disks, damaged files, two processes, foreign folders. Nothing lost, one sentence."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gdrt_lite import __main__ as cli
from gdrt_lite import lm, objectives, relevance, training
from gdrt_lite.data import Example, Splits
from gdrt_lite.study import grid, run, trial
from gdrt_lite.study.cell import Cell
from gdrt_lite.study.config import Config
from gdrt_lite.study.evaluate import evaluate, in_float32
from gdrt_lite.study.workspace import Workspace
from gdrt_lite.system import files
from gdrt_lite.system.errors import GdrtError
from gdrt_lite.training.checkpoints import newest_checkpoint

ROOT = Path(__file__).resolve().parents[1]
TINY = dict(
    model="pocket", train_examples=24, test_examples=6, faa_examples=3, batch_size=4, list_length=3, ablations=("attention",)
)


def small_data(names: str = "film") -> Splits:
    titles = [f"The {names} {i}" for i in range(20)]
    examples = [Example(f"u{i}", tuple(titles[(i + j) % 20] for j in range(3)), titles[(i + 3) % 20], i) for i in range(40)]
    return Splits(examples[:24], examples[24:32], examples[32:], titles, {}, "small")


@pytest.fixture(scope="module")
def bench():
    found = Workspace(Config(**TINY), small_data())
    found.relevance = relevance.token_relevance(found.base, found.splits.catalogue)
    return found


@pytest.fixture
def quick(monkeypatch, bench):
    """`run` and `study` on twenty titles, with the untrained model's relevance."""
    monkeypatch.setattr(run, "Workspace", lambda *_: bench)
    monkeypatch.setattr(grid, "Workspace", lambda *_: bench)


def tune(bench: Workspace, folder: Path, resume: bool = False, train=None, objective="sft", **settings):
    args = training.arguments(
        bench.base, **({"epochs": 1, "batch_size": 4, "save_every": 2} | settings), output=folder, save_total_limit=9
    )
    return training.finetune(
        bench.base, train or bench.splits.train, objective, args, groups=None, resume=resume, progress=False
    )


@pytest.fixture(scope="module")
def trained(bench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return folder, tune(bench, folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


DAMAGES = {
    "empty folder": lambda folder: [path.unlink() for path in folder.iterdir()],
    "no state": lambda folder: (folder / "trainer_state.json").unlink(),
    "state cut": lambda folder: cut(folder / "trainer_state.json"),
    "state of another step": lambda folder: (folder / "trainer_state.json").write_text('{"global_step": 2}'),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "weights cut": lambda folder: cut(folder / "model.safetensors"),
    "weights empty": lambda folder: (folder / "model.safetensors").write_bytes(b""),
    "no optimizer": lambda folder: (folder / "optimizer.pt").unlink(),
    "optimizer cut": lambda folder: cut(folder / "optimizer.pt"),
    "optimizer zeroed": lambda folder: (folder / "optimizer.pt").write_bytes(bytes(9_000)),
    "no scheduler": lambda folder: (folder / "scheduler.pt").unlink(),
    "random state cut": lambda folder: cut(folder / "rng_state.pth"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_half_written_checkpoint_is_passed_over(damage, trained, tmp_path):
    folder = Path(shutil.copytree(trained[0], tmp_path / "run"))
    assert newest_checkpoint(folder) == str(folder / "checkpoint-6")
    DAMAGES[damage](folder / "checkpoint-6")
    assert newest_checkpoint(folder) == str(folder / "checkpoint-4")


def test_a_training_goes_on_from_the_whole_checkpoint_to_the_same_weights(bench, trained, tmp_path):
    folder = Path(shutil.copytree(trained[0], tmp_path / "run"))
    cut(folder / "checkpoint-6" / "optimizer.pt")
    shutil.rmtree(folder / "checkpoint-4")
    (folder / "checkpoint-99").mkdir()  # a kill left it
    again = tune(bench, folder, resume=True)
    for one, other in zip(again.lm.model.parameters(), trained[1].lm.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert again.history["loss"].tolist() == trained[1].history["loss"].tolist()


@pytest.mark.parametrize(
    "other, named",
    [
        ({"learning_rate": 5e-4}, "learning_rate was 0.002 and is 0.0005"),
        ({"epochs": 2}, "epochs was 1"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"objective": objectives.Objective("sft", tau=2.0)}, "tau was 1.0 and is 2.0"),
        ({"train": "changed"}, "examples was"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(other, named, bench, trained):
    if other == {"train": "changed"}:
        first, *rest = bench.splits.train
        other = {"train": [dataclasses.replace(first, target=bench.splits.catalogue[0]), *rest]}
    for resume in (True, False):
        with pytest.raises(GdrtError, match=named):
            tune(bench, trained[0], resume=resume, **other)


def test_a_checkpoint_of_other_weights_is_refused(bench, trained):
    other = Workspace(bench.config, bench.splits)
    other.base = lm.pocket(bench.splits.catalogue, seed=5)
    with pytest.raises(GdrtError, match="weights was"):
        tune(other, trained[0], resume=True)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos; PytorchStreamWriter failed writing file"),
        RuntimeError("SafetensorError: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_disk_that_fills_up_while_checkpointing_is_one_sentence_and_the_run_goes_on(
    error, bench, trained, tmp_path, monkeypatch
):
    write = torch.save
    left = [2]

    def full(value, path, *args, **kwargs):
        write(value, path, *args, **kwargs)
        left[0] -= 1
        if left[0] < 0:
            Path(path).write_bytes(b"half")
            raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(GdrtError, match="the disk of .* is full"):
        tune(bench, tmp_path)
    monkeypatch.setattr(torch, "save", write)
    again = tune(bench, tmp_path, resume=True)
    assert again.history["loss"].tolist() == trained[1].history["loss"].tolist()


def test_a_clock_set_back_costs_no_figure(bench, trained, tmp_path):
    folder = Path(shutil.copytree(trained[0], tmp_path / "run"))
    shutil.rmtree(folder / "checkpoint-6")
    later = time.time() + 9e6
    os.utime(folder / "checkpoint-2", (later, later))
    assert tune(bench, folder, resume=True).history["loss"].tolist() == trained[1].history["loss"].tolist()


def study_folder(tmp_path: Path, bench: Workspace, name: str = "a study") -> Path:
    """A folder as `study` leaves it: one cell under a key of its own, and what else may lie there."""
    folder = tmp_path / name
    config = Config(**TINY, method="popularity", seed=7)
    trial.run_cell(config, folder / "cells", bench, progress=False)
    files.write_text(folder / "cells" / "notes" / "mine.txt", "kept")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.mark.parametrize("resume", [True, False])
def test_a_run_deletes_and_adds_nothing_where_a_study_lies(resume, quick, bench, tmp_path):
    folder = study_folder(tmp_path, bench)
    before = contents(folder)
    with pytest.raises(GdrtError, match="holds 1 cell that no run made here.*Name another folder"):
        run.run(("sft",), out=folder, resume=resume, progress=False, **TINY)
    assert contents(folder) == before


def test_a_run_replaces_no_report_that_it_did_not_make(quick, tmp_path):
    files.write_text(tmp_path / "report.md", "mine")
    with pytest.raises(GdrtError, match="report.md, which no run made"):
        run.run(("sft",), out=tmp_path, progress=False, **TINY)
    assert (tmp_path / "report.md").read_text() == "mine"


def test_runs_with_other_settings_keep_their_cells_and_share_no_report(quick, tmp_path):
    run.run(("sft", "gdrt"), out=tmp_path, progress=False, **TINY)
    files.write_text(tmp_path / "cells" / "notes.txt", "kept")
    left = files.write_text(tmp_path / ".report.md-ab_c1234", "left by a kill")
    first = {name: text for name, text in contents(tmp_path).items() if name.startswith("cells")}
    run.run(("sft",), out=tmp_path, progress=False, **TINY, tau=3.0)
    second = contents(tmp_path)
    assert first.items() <= second.items()
    assert json.loads(second["report.json"])["config"]["tau"] == 3.0
    assert "training-gdrt.png" not in second and "training-sft.png" in second
    assert not left.exists()


def test_an_empty_name_of_a_folder_is_refused(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--out", ""])
    assert "a folder has a name" in capsys.readouterr().err


def test_a_folder_in_use_is_refused_and_free_again_after_a_kill(quick, tmp_path):
    code = (
        "import sys, time\nfrom gdrt_lite.system import files\n"
        "with files.locked(sys.argv[1]):\n print('held', flush=True)\n time.sleep(60)"
    )
    (tmp_path / "cells").mkdir()
    other = subprocess.Popen([sys.executable, "-c", code, tmp_path / "cells"], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"held\n"
        plan = files.write_text(
            tmp_path / "grid.yaml", "- set: {model: pocket, list_length: 3}\n  vary: {method: [popularity]}\n"
        )
        for call in (lambda: run.run(("sft",), out=tmp_path, **TINY), lambda: grid.main(plan, tmp_path / "cells")):
            with pytest.raises(GdrtError, match="another process is writing into .*cells"):
                call()
    finally:
        other.kill()
        other.wait()
    with files.locked(tmp_path / "cells"):
        pass


def test_processes_launched_together_share_the_lock(tmp_path, monkeypatch):
    with files.locked(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with files.locked(tmp_path):
            pass


@pytest.fixture(scope="module")
def cell(bench, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cells")
    config = Config(**TINY, method="pre-trained")
    trial.run_cell(config, folder, bench, progress=False)
    return config, folder / f"{config.key}.json"


def damaged(values: dict, **changes) -> str:
    return json.dumps(values | changes)


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda v: json.dumps(v)[:-50], "delimiter|Expecting|Unterminated"),
        (lambda v: "", "Expecting value"),
        (lambda v: "{}", "train_windows"),
        (lambda v: "[]", "train_windows"),
        (lambda v: "5", "not iterable"),
        (lambda v: damaged(v, config=None), "no attribute"),
        (lambda v: damaged(v, users=v["users"][:-1]), "targets has 6 entries for 5 examples"),
        (lambda v: damaged(v, targets=[20, *v["targets"][1:]]), "outside of the catalogue of 20"),
        (lambda v: damaged(v, lists=[[-1, 2, 3], *v["lists"][1:]]), "outside of the catalogue"),
        (lambda v: damaged(v, nll=[None, *v["nll"][1:]]), "no finite number"),
        (lambda v: damaged(v, config=v["config"] | {"seed": 3}), "holds the cell"),
    ],
)
def test_a_damaged_or_renamed_cell_is_named_before_the_work(damage, said, cell, bench, tmp_path):
    config, source = cell
    path = files.write_text(tmp_path / source.name, damage(json.loads(source.read_text())))
    with pytest.raises(GdrtError, match=f"(?s){source.name}.*({said}).*move"):
        trial.run_cell(config, tmp_path, bench)
    assert path.exists()


def test_a_cell_with_a_number_that_is_not_finite_is_not_written(cell, tmp_path):
    broken = dataclasses.replace(Cell.read(cell[1]), nll=[float("nan")] * 6)
    with pytest.raises(ValueError, match="no finite number"):
        broken.write(tmp_path / "cell.json")
    assert not list(tmp_path.iterdir())


def test_changed_data_is_told_from_the_data_of_a_cell(cell, bench, tmp_path):
    config, source = cell
    shutil.copy(source, tmp_path)
    assert trial.run_cell(config, tmp_path, bench) == Cell.read(source)
    changed = Workspace(config, small_data("book"))
    with pytest.raises(GdrtError, match="measured on other data"):
        trial.run_cell(config, tmp_path, changed)
    values = json.loads(source.read_text())
    del values["fingerprint"]  # as in the cells of earlier versions
    files.write_json(tmp_path / source.name, values)
    assert trial.run_cell(config, tmp_path, changed).users == Cell.read(source).users


@pytest.mark.parametrize(
    "block, said",
    [
        ("- set: {model: pocket}\n  vary: [seed]\n", "block 1 .* a block needs `set`"),
        ("- set: {model: pocket}\n  vary: x\n", "a block needs `set`"),
        ("- set: {model: pocket}\n  vary:\n", "a block needs `set`"),
        ("- 5\n", "a block needs `set`"),
        ("set: {}\n", "a list of blocks"),
        ("- set: {model: pocket}\n  vary: {seed: 1}\n", "needs a list of values for 'seed'"),
        ("- set: {model: pocket}\n  vary: {seed: []}\n", "needs a list of values"),
        ("- set: {model: pocket}\n  vary: {seed: [0]}\n  vray: {tau: [1]}\n", "has vray"),
        ("- set: {model: 5}\n  vary: {seed: [0]}\n", "model=5 must be text"),
        ("- set: {data: null}\n  vary: {seed: [0]}\n", "data=None must be text"),
        ("- set: {exclude_history: 'no'}\n  vary: {seed: [0]}\n", "exclude_history='no' must be true or false"),
        ("- set: {learning_rate: 0.0}\n  vary: {seed: [0]}\n", "learning_rate=0 is out of range"),
        ("- set: {epochs: x}\n  vary: {seed: [0]}\n", "epochs='x' must be a number"),
        ("- set: {tau: true}\n  vary: {seed: [0]}\n", "tau=True must be a number"),
        ("- set: {ablations: []}\n  vary: {seed: [0]}\n", "ablations=.. must be a list, and not empty"),
        ("- set: {ablations: attention}\n  vary: {seed: [0]}\n", "ablations='attention' must be a list"),
        ("- set: {parameters: [1]}\n  vary: {seed: [0]}\n", "parameters=.* must be names with values"),
        ("- set: {model: pocket}\n  vary: {seed: [zero]}\n", "seed='zero' must be a whole number"),
        ("- set: {model: pocket}\n  vary: {seed: [-1]}\n", "seed=-1 must be a whole number"),
        ("- set: {model: pocket}\n  vary: {seed: [4294967296]}\n", "seed=4294967296 is out of range"),
        ("- set: {n_groups: 99999999999999}\n  vary: {seed: [0]}\n", "n_groups=99999999999999 is out of range"),
        ("[" * 5_000, "malformed"),
        ("- !!python/object/apply:os.system [exit]\n", "malformed"),
    ],
)
def test_a_grid_is_checked_whole_before_a_cell_runs(block, said, tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "run_cell", lambda *_: pytest.fail("work has begun"))
    good = "- set: {model: pocket}\n  vary: {method: [popularity]}\n" if block.startswith("- ") else ""
    plan = files.write_text(tmp_path / "grid.yaml", good + block)
    with pytest.raises(GdrtError, match=said.replace("block 1", "block 2")):
        grid.main(plan, tmp_path / "cells")


def test_lists_longer_than_the_catalogue_are_refused_before_a_cell_runs(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "run_cell", lambda *_: pytest.fail("work has begun"))
    plan = files.write_text(
        tmp_path / "grid.yaml", "- set: {model: pocket}\n  vary: {list_length: [3, 21], method: [popularity]}\n"
    )
    with pytest.raises(ValueError, match="list_length=21 is more than the 20 titles"):
        grid.main(plan, tmp_path / "cells")


def test_a_long_name_of_a_folder_makes_a_name_that_every_disk_holds(tmp_path):
    key = Config(data="amazon/" + "å" * 110, model="m" * 220).key
    assert len(key.encode()) < 200
    files.write_text(tmp_path / f"{key}.json", "")


def test_bytes_that_the_locale_could_not_read_stay_as_they_were(tmp_path):
    name = "Bücher".encode().decode("ascii", "surrogateescape")
    assert files.write_text(tmp_path / "report.md", name).read_text(encoding="utf-8") == "Bücher"
    assert Config(data=name).key.startswith("B??cher-")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_the_work_as_ctrl_c_does(name, monkeypatch, capsys):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # under nohup the tests themselves ignore SIGHUP
    try:
        monkeypatch.setattr(run, "run", lambda **_: (os.kill(os.getpid(), number), time.sleep(5)))
        assert cli.main(["run"]) == 128 + number
        assert "--resume continues from there" in capsys.readouterr().err
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_an_ignored_signal_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        monkeypatch.setattr(run, "run", lambda **_: os.kill(os.getpid(), signal.SIGHUP))
        assert cli.main(["run"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "error, said",
    [
        (PermissionError(errno.EACCES, "Permission denied", "x/REPORT.md"), "x/REPORT.md: Permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x/report.json"), "x/report.json: Is a directory"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(error, said, monkeypatch, capsys):
    def refused(*_):
        raise error

    monkeypatch.setattr(grid, "registered", refused)
    assert cli.main(["study"]) == 1
    assert capsys.readouterr().err == f"gdrt_lite: {said}. What was finished is kept.\n"


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and /dev/full are of POSIX")
@pytest.mark.parametrize("sink, said", [("broken pipe", "nobody reads the output"), ("/dev/full", "No space left")])
def test_an_output_that_nobody_takes_is_one_sentence(sink, said):
    code = (
        "import sys, time\nfrom gdrt_lite import __main__ as cli\nfrom gdrt_lite.study import run\n"
        "run.run = lambda **_: [(print('x' * 9000, flush=True), time.sleep(.1)) for _ in range(9)]\n"
        "sys.exit(cli.main(['run']))"
    )
    if sink == "broken pipe":
        reader, output = os.pipe()
        os.close(reader)
    else:
        output = os.open(sink, os.O_WRONLY)
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True)
    os.close(output)
    assert found.returncode == 1 and said in found.stderr and "Traceback" not in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1


def test_the_c_locale_prints_any_title():
    code = (
        "from gdrt_lite import __main__ as cli\nfrom gdrt_lite.study import run\n"
        "run.run = lambda **_: print('Am\\u00e9lie', '\\u6620\\u753b')\nraise SystemExit(cli.main(['run']))"
    )
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=plain, capture_output=True)
    assert found.returncode == 0 and b"lie" in found.stdout, found.stderr


def test_scores_of_a_study_do_not_depend_on_who_else_is_in_the_batch(bench):
    config, test = Config(**TINY), bench.splits.test
    model = dataclasses.replace(bench.base, model=lm.pocket(bench.splits.catalogue, seed=1).model.to(torch.bfloat16))
    before = {name: p.clone() for name, p in model.model.named_parameters()}
    together = evaluate(model, test, bench.splits, config)
    alone = [evaluate(model, [example], bench.splits, config) for example in test]
    assert together.dtype == "float32" and model.model.dtype == torch.bfloat16
    assert together.lists == [own.lists[0] for own in alone]
    assert together.nll == pytest.approx([own.nll[0] for own in alone], abs=2e-4)
    assert all(torch.equal(before[name], p) for name, p in model.model.named_parameters())


def test_weights_are_as_before_when_the_measuring_fails(bench):
    model = torch.nn.Linear(2, 2).to(torch.bfloat16)
    with pytest.raises(KeyboardInterrupt), in_float32(model):
        assert model.weight.dtype == torch.float32
        raise KeyboardInterrupt
    assert model.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("root, name", [("", "notebooks/lesson"), ("notebooks", "lesson")])
def test_a_notebook_is_paired_whatever_the_root_of_the_server(root, name, tmp_path):
    jupytext = pytest.importorskip("jupytext")
    nbformat = pytest.importorskip("nbformat")
    from jupyter_server.services.contents.largefilemanager import LargeFileManager
    from jupytext.sync_contentsmanager import build_sync_jupytext_contents_manager_class as with_pairs

    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "jupytext.toml", tmp_path / "notebooks")
    source = files.write_text(tmp_path / "notebooks" / "lesson.py", "# %%\n1 + 1\n")
    page = jupytext.read(source)
    page.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    page.cells[0].outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "2"}, execution_count=1)]
    nbformat.write(page, source.with_suffix(".ipynb"))

    manager = with_pairs(LargeFileManager)(root_dir=str(tmp_path / root))
    model = manager.get(f"{name}.ipynb", type="notebook", content=True)
    assert model["content"]["cells"][0]["outputs"][0]["data"] == {"text/plain": "2"}
    model["content"]["cells"][0]["source"] = "1 + 2"
    manager.save(model, f"{name}.ipynb")
    assert "# %%\n1 + 2\n" in source.read_text()
    assert len(nbformat.read(source.with_suffix(".ipynb"), 4).cells[0].outputs) == 1
    files.write_text(source, source.read_text().replace("1 + 2", "1 + 1"))  # in an editor
    os.utime(source, (time.time() + 9, time.time() + 9))
    paired = manager.get(f"{name}.py", type="notebook", content=True)["content"]["cells"][0]
    assert paired["source"] == "1 + 1"


def whole_run(out: Path) -> None:
    """A run of five cells that writes a checkpoint at every other step, so that many kills hit one; no report."""
    often = functools.partial(training.arguments, save_every=2)
    scorer = functools.partial(training.train_relevance_scorer, max_steps=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "arguments", often)
        patch.setattr(training, "train_relevance_scorer", scorer)
        for module, name in ((run.report, "comparison"), (run, "_write_report")):
            patch.setattr(module, name, lambda *_: None)
        settings = TINY | dict(epochs=2, curve_examples=2)
        run.run(("sft", "gdrt"), out=out, resume=True, progress=False, splits=small_data(), **settings)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is of POSIX")
def test_ten_kills_at_random_moments_change_no_figure(tmp_path, monkeypatch):
    """Also while a checkpoint is written, and between the last one and the result."""
    context = multiprocessing.get_context("forkserver")  # imports once, not in each of the processes
    context.set_forkserver_preload([__name__])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(ROOT)]))  # where it finds them

    def start(out: str, seconds: float | None = None) -> float:
        """Run in a process of its own, killed after so many seconds; the seconds it took."""
        process, began = context.Process(target=whole_run, args=(tmp_path / out,)), time.monotonic()
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        if process.exitcode == 0 and out == "killed" and seconds is not None:
            shutil.move(tmp_path / "killed", tmp_path / f"done {began}")
        return time.monotonic() - began if process.exitcode == 0 else 0.0

    start("first")  # the server starts with it
    seconds, draw, killed = start("whole"), random.Random(0), 0
    while killed < 10:
        killed += start("killed", draw.uniform(0, 0.5) * seconds) == 0
    assert start("killed")

    def figures(folder: Path) -> dict:
        cells = {path.name: json.loads(path.read_text()) for path in (folder / "cells").glob("*.json")}
        timed = ("seconds", "training_seconds", "peak_memory_gib")
        return {name: {key: value for key, value in cell.items() if key not in timed} for name, cell in cells.items()}

    def names(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.name.endswith(".checkpoints")}

    for folder in [*tmp_path.glob("done*"), tmp_path / "killed"]:
        assert figures(folder) == figures(tmp_path / "whole") and len(figures(folder)) == 5
        assert names(folder) == names(tmp_path / "whole")
