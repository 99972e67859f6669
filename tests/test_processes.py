"""Several processes against one: the same steps, weights and scores. torchrun runs this file in each process."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerCallback

from gdrt_lite import data, decoding, dro, lm, relevance, training
from gdrt_lite.objectives import OBJECTIVES, Objective
from gdrt_lite.study import trial
from gdrt_lite.study.cell import Cell
from gdrt_lite.study.config import Config
from gdrt_lite.study.workspace import Workspace
from gdrt_lite.system import processes
from gdrt_lite.system.processes import over_processes, sharing, warn_of_one_process

# 19 examples in steps of 16: the last step has 3, so that with two processes one of them holds fillers alone.
SCENARIOS = {
    "gdrt": dict(objective="gdrt", tau=0.2),
    "balanced": dict(objective="balanced"),
    "sft": dict(objective="sft"),
    "running mean": dict(objective="gdrt", ema=0.9),
    "one example a process": dict(objective="gdrt", batch_size=2, max_steps=3),
    "accumulation": dict(objective="gdrt", tau=0.2, gradient_accumulation_steps=2),
    "accumulation, sft": dict(objective="sft", gradient_accumulation_steps=4),
    "resumed": dict(objective="gdrt", ema=0.9, kill=3),
    "growing windows": dict(objective="gdrt", part="growing"),
    "batches of similar length": dict(objective="gdrt", part="many", max_steps=3),
    "adapter": dict(objective="gdrt", lora=True),
}


CATALOGUE = data.load_movielens(500).titles


class Gradients(TrainerCallback):
    """Keeps the gradient of the first step; raises at the step `kill`, as Ctrl-C would."""

    def __init__(self, kill=None):
        self.kill, self.first = kill, None

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        if self.first is None:
            self.first = [p.grad.clone() for p in model.parameters() if p.grad is not None]

    def on_step_end(self, args, state, control, **_):
        if state.global_step == self.kill:
            raise KeyboardInterrupt


def setting():
    splits = data.load_movielens(500).split(history=5)
    pocket = lm.pocket(splits.catalogue)
    parts = {
        "few": data.sample(splits.train, 19, seed=1),
        "growing": splits.train[:19],
        "many": data.sample(splits.train, 100, seed=2),
    }
    return pocket, parts, training.make_groups("gdrt", pocket, sum(parts.values(), []))


def train(
    pocket, parts, groups, folder, objective, tau=1.0, ema=None, kill=None, left=None, lora=False, part="few", **settings
):
    """One training; what is compared of it, as tensors. `kill`: killed at a step, then resumed; `left`: resumed there."""
    examples = parts[part]
    if lora:
        pocket = lm.LanguageModel(pocket.model, pocket.tokenizer, pocket.prompt, "small")
    rest = dict(groups=groups, progress=False)
    settings = (
        dict(batch_size=16, epochs=2, optim="adamw_torch" if lora else "sgd", learning_rate=1e-3 if lora else 0.1) | settings
    )
    args = training.arguments(pocket, output=folder if kill else left, save_every=2, **settings)
    own, watch = Objective(objective, tau=tau, ema=ema), Gradients(kill)
    if kill:
        with pytest.raises(KeyboardInterrupt):
            training.finetune(pocket, examples, own, args, callbacks=[watch], **rest)
        left = Path(shutil.copytree(folder, folder.with_name(f"{folder.name}, left"), dirs_exist_ok=True))
        watch.kill = None
    run = training.finetune(pocket, examples, own, args, callbacks=[watch], resume=bool(left), **rest)
    return {
        "gradient": torch.cat([g.flatten() for g in watch.first]),
        "losses": torch.tensor(run.history[["loss", *(f"loss_g{g}" for g in range(5))]].to_numpy()),
        "weights": torch.tensor(run.history[[f"weight_g{g}" for g in range(5)]].to_numpy()),
        "model": torch.cat([p.detach().flatten() for p in run.lm.model.parameters() if p.requires_grad]),
        "processes": torch.tensor([run.settings["processes"], run.settings["batch_size"]]),
    }


def scores(pocket, examples):
    prompts = [pocket.encode(e.history, e.target) for e in examples]
    return torch.cat(lm.target_logprobs(pocket, prompts, batch_tokens=200))


def cells(folder):
    """A cell of the untuned model and one of a tuned model, written into a folder that all processes share."""
    splits = data.load_movielens(100).split(history=5)
    sizes = dict(model="pocket", train_examples=32, test_examples=5, faa_examples=3, list_length=5, ablations=("token",))
    config = Config(**sizes, curve_examples=2)
    bench = Workspace(config, splits)
    bench.relevance = relevance.token_relevance(bench.base, splits.catalogue)
    own = [dataclasses.replace(config, method=method) for method in ("pre-trained", "gdrt")]
    return [trial.run_cell(config, folder, bench, progress=False) for config in own]


def work(folder):
    """What one process of several does."""
    pocket, parts, groups = setting()
    examples = parts["few"]
    rank = int(os.environ["RANK"])
    found = {name: train(pocket, parts, groups, folder / name, **own) for name, own in SCENARIOS.items()}
    found["groups"] = torch.tensor([g for e in examples for g in groups.of(e.target)])
    seen = []
    with sharing():
        found["scores"] = scores(pocket, examples)
        found["order"] = over_processes(lambda part: [seen.append(x) or x * x for x in part], range(7))
        found["few"] = over_processes(lambda part: part, [5])
        ranked = decoding.rank_catalogue(pocket, [e.history for e in examples[:2]], CATALOGUE, k=3)
        found["ranked"] = [[*map(list, own)] for own in ranked]
    found["seen"] = seen
    found["cells"] = [dataclasses.asdict(cell) | {"config": None} for cell in cells(folder / "cells")]
    if rank == 0:  # outside of `sharing` one process may work alone
        found["alone"] = scores(pocket, examples)
    torch.save(found, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, one after the other."""
    folder = tmp_path_factory.mktemp("two")
    here = Path(__file__).resolve()
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(here),
        str(folder),
    ]
    path = os.pathsep.join([str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert not done.returncode, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) | {"folder": str(folder)} for rank in (0, 1)]


@pytest.fixture(scope="module")
def one():
    return setting()


def agree(ours, expected):
    """The two trainings are equal up to the rounding of float32."""
    away = (ours["gradient"] - expected["gradient"]).norm() / expected["gradient"].norm()
    assert away < 1e-5, f"the first gradient is off by {away:.1e} of its norm"
    for part, atol in dict(losses=1e-4, weights=1e-5, model=1e-5).items():
        torch.testing.assert_close(ours[part], expected[part], atol=atol, rtol=0, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_two_processes_train_as_one(one, two, name, tmp_path):
    settings = {k: v for k, v in SCENARIOS[name].items() if k not in ("kill", "gradient_accumulation_steps")}
    alone = train(*one, tmp_path, **settings)
    for found in two:
        agree(found[name], alone)
        assert found[name]["processes"].tolist() == [2, int(alone["processes"][1])]
    assert torch.equal(two[0][name]["model"], two[1][name]["model"])
    if name == "one example a process":  # and some group stands on one process alone, or on none
        assert (alone["weights"] == 0).any()


@pytest.mark.slow
def test_what_two_processes_left_one_finishes(one, two, tmp_path):
    settings = {k: v for k, v in SCENARIOS["resumed"].items() if k != "kill"}
    left = Path(two[0]["folder"]) / "resumed, left"
    whole, resumed = train(*one, tmp_path, **settings), train(*one, tmp_path, left=left, **settings)
    assert len(resumed["losses"]) == len(whole["losses"]) and torch.equal(
        resumed["losses"][:2], two[0]["resumed"]["losses"][:2]
    )
    agree(resumed | {"gradient": whole["gradient"]}, whole)


@pytest.mark.slow
def test_scores_are_shared_out_and_come_back_in_order_bit_for_bit(one, two):
    pocket, parts, groups = one
    examples = parts["few"]
    expected = scores(pocket, examples)
    for rank, found in enumerate(two):
        assert torch.equal(found["scores"], expected)
        assert found["order"] == [x * x for x in range(7)] and found["seen"] == [*range(7)][rank::2]
        assert found["few"] == [5]
        assert found["groups"].tolist() == [g for e in examples for g in groups.of(e.target)]
    assert torch.equal(two[0]["alone"], expected)


@pytest.mark.slow
def test_a_study_is_measured_by_two_processes_as_by_one(two, tmp_path):
    alone = cells(tmp_path)
    keys = {f"{cell.config.key}.json" for cell in alone}
    assert {path.name for path in (Path(two[0]["folder"]) / "cells").glob("*.json")} == keys
    for found in two:
        for ours, cell in zip(found["cells"], alone, strict=True):
            written = Cell.read(Path(found["folder"]) / "cells" / f"{cell.config.key}.json")
            assert (ours["processes"], written.processes, cell.processes) == (2, 2, 1)
            assert ours["lists"] == written.lists == cell.lists and ours["targets"] == cell.targets
            assert ours["nll"] == pytest.approx(cell.nll, abs=1e-3)
            assert ours["faa"]["token"]["TASK"] == pytest.approx(cell.faa["token"]["TASK"], abs=1e-3)
            assert [row["NLL"] for row in ours["curve"]] == pytest.approx([row["NLL"] for row in cell.curve], abs=1e-2)
    assert two[0]["cells"][0]["nll"] == alone[0].nll  # untuned: bit for bit


@pytest.mark.slow
def test_an_exact_ranking_is_shared_out_by_users(one, two):
    expected = decoding.rank_catalogue(one[0], [e.history for e in one[1]["few"][:2]], CATALOGUE, k=3)
    assert all([[tuple(pair) for pair in own] for own in found["ranked"]] == expected for found in two)


@pytest.mark.parametrize("rank, items", [(0, 7), (1, 7), (1, 1), (0, 0)])
def test_results_come_back_in_the_order_of_the_items(monkeypatch, rank, items):
    seen = []

    def work(part):
        seen.extend(part)
        return [x * x for x in part]

    monkeypatch.setattr(processes, "PartialState", lambda: SimpleNamespace(process_index=rank, num_processes=2))
    monkeypatch.setattr(processes.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(processes, "gather_object", lambda _: [[x * x for x in range(items)[r::2]] for r in (0, 1)])
    assert over_processes(work, range(items)) == [x * x for x in range(items)] and seen == [*range(items)]
    seen.clear()
    with sharing():
        assert over_processes(work, range(items)) == [x * x for x in range(items)]
    assert seen == [*range(items)][rank::2]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_shares_of_a_step_add_up_to_its_gradient(name):
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(40, generator=generator).requires_grad_()
    ids = torch.randint(4, (40,), generator=generator).sort().values  # so that parts lack groups
    objective = Objective(name, 5, tau=0.3, sizes=[30, 10, 20, 50, 40])
    whole, _ = objective(losses, ids)
    changed = objective.of_tokens(losses)
    parts = [slice(0, 3), slice(3, 30), slice(30, 30), slice(30, 40)]  # one of them has no token
    sums, counts = sum(torch.stack(dro.group_sums(changed.detach()[part], ids[part], 5)) for part in parts)
    step = objective.step(sums, counts)
    shares = [objective.share(changed[part], ids[part], step) for part in parts]
    assert float(sum(shares).detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
    exact, ours = (torch.autograd.grad(value, losses)[0] for value in (whole, sum(shares)))
    torch.testing.assert_close(ours, exact)


@pytest.mark.slow
@pytest.mark.parametrize("objective, ema", [("gdrt", None), ("gdrt", 0.9), ("balanced", None), ("sft", None)])
def test_micro_batches_change_nothing(one, tmp_path, objective, ema):
    whole, divided = (
        train(*one, tmp_path, objective, tau=0.2, ema=ema, epochs=1, gradient_accumulation_steps=n) for n in (1, 4)
    )
    agree(divided, whole)


def test_a_batch_that_cannot_be_divided_is_named(one):
    with pytest.raises(ValueError, match="batch_size=10 cannot be divided over 1 processes and 4 accumulation"):
        training.arguments(one[0], batch_size=10, gradient_accumulation_steps=4)


def test_a_launcher_that_started_one_process_is_named(monkeypatch, recwarn):
    warn_of_one_process()
    assert not recwarn
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    with pytest.warns(UserWarning, match="a single process.*torchrun"):
        warn_of_one_process()


if __name__ == "__main__":
    work(Path(sys.argv[1]))
