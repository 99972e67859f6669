"""Fine-tuning: the objectives, determinism, resuming, and what happens when the loss breaks."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from helpers import Kill
from peft import LoraConfig
from transformers import TrainerCallback

from gdrt_lite import data, dro, lm, training
from gdrt_lite.groups import LEVELS, fit
from gdrt_lite.objectives import OBJECTIVES, Objective
from gdrt_lite.relevance import token_relevance
from gdrt_lite.training.batches import SeededChunks


def weights_of(run):
    return list(run.lm.model.state_dict().values())


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(weights_of(one), weights_of(other), strict=True))


@pytest.fixture(scope="module")
def examples(splits):
    return data.sample(splits.train, 96, seed=1)


@pytest.fixture(scope="module")
def groups(pocket, examples):
    return training.make_groups("gdrt", pocket, examples, n_groups=3)


def tune(pocket, examples, objective="gdrt", **settings):
    own = {name: settings.pop(name) for name in ("tau", "prior", "ema", "n_groups") if name in settings}
    rest = {name: settings.pop(name) for name in ("groups", "lora", "resume", "callbacks") if name in settings}
    args = training.arguments(pocket, **{"batch_size": 16} | settings)
    return training.finetune(pocket, examples, Objective(objective, **{"n_groups": 3} | own), args, progress=False, **rest)


TOKEN_LOSSES = torch.tensor([1.0, 3.0, 0.5, 0.1])
GROUPS = torch.tensor([0, 0, 1, 2])  # L = 2.0, 0.5, 0.1


@pytest.mark.parametrize(
    "name, expected",
    [
        ("sft", 4.6 / 4),
        ("balanced", 2.6 / 3),
        (
            "gdrt",
            float((dro.group_weights(torch.tensor([2.0, 0.5, 0.1]), 0.5) * torch.tensor([2.0, 0.5, 0.1])).sum()),
        ),
        (
            "reversed",
            float((torch.softmax(torch.tensor([-4.0, -1.0, -0.2]), 0) * torch.tensor([2.0, 0.5, 0.1])).sum()),
        ),
    ],
)
def test_objectives_by_hand(name, expected):
    loss, log = Objective(name, 3, tau=0.5)(TOKEN_LOSSES, GROUPS)
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    assert [log[f"loss_g{g}"] for g in range(3)] == pytest.approx([2.0, 0.5, 0.1])
    assert sum(log[f"weight_g{g}"] for g in range(3)) == pytest.approx(1)


@pytest.mark.parametrize(
    "name, tilted",
    [
        ("gdrt", [1 * math.exp(2.0 / 0.5), 3 * math.exp(0.5 / 0.5), 6 * math.exp(0.1 / 0.5)]),
        ("reversed", [1 * math.exp(-2.0 / 0.5), 3 * math.exp(-0.5 / 0.5), 6 * math.exp(-0.1 / 0.5)]),
    ],
)
def test_a_prior_multiplies_the_weights(name, tilted):
    loss, log = Objective(name, 3, tau=0.5, prior=torch.tensor([1.0, 3.0, 6.0]))(TOKEN_LOSSES, GROUPS)
    weights = [value / sum(tilted) for value in tilted]
    assert [log[f"weight_g{g}"] for g in range(3)] == pytest.approx(weights, rel=1e-5)
    assert float(loss) == pytest.approx(sum(w * x for w, x in zip(weights, (2.0, 0.5, 0.1), strict=True)), rel=1e-5)


@pytest.mark.parametrize("name", [name for name, spec in OBJECTIVES.items() if not spec.token_loss])
def test_an_absent_group_has_no_weight_and_breaks_nothing(name):
    token_losses = TOKEN_LOSSES[:3].clone().requires_grad_()
    loss, log = Objective(name, 4, tau=0.5, sizes=[5, 6, 7, 8])(token_losses, GROUPS[:3])
    loss.backward()
    assert log["weight_g2"] == log["weight_g3"] == 0
    assert torch.isfinite(token_losses.grad).all() and float(token_losses.grad.sum()) == pytest.approx(1)


def test_the_running_mean_weighs_by_the_past():
    objective = Objective("gdrt", 2, tau=1.0, ema=0.5)
    ids = torch.tensor([0, 1])
    objective(torch.tensor([4.0, 0.0]), ids)
    _, log = objective(torch.tensor([0.0, 0.0]), ids)
    assert [log["estimate_g0"], log["estimate_g1"]] == [2.0, 0.0]
    assert log["weight_g0"] == pytest.approx(float(torch.sigmoid(torch.tensor(2.0))))


def test_finetuning_weighs_by_the_prior_it_is_given(pocket, examples, groups):
    first = tune(pocket, examples[:16], groups=groups, tau=2.0, prior=(0.7, 0.2, 0.1), max_steps=1).history.iloc[0]
    losses = torch.tensor([first[f"loss_g{g}"] for g in range(3)])
    weights = [first[f"weight_g{g}"] for g in range(3)]
    expected = dro.group_weights(losses, 2.0, torch.tensor([0.7, 0.2, 0.1]))
    assert weights == pytest.approx(expected.tolist(), rel=1e-4)
    assert max(abs(expected - dro.group_weights(losses, 2.0))) > 0.1  # and a uniform prior would show


def test_the_controls_differ_from_gdrt_in_their_groups_alone(pocket, examples):
    targets = [example.target for example in examples]
    made = {name: training.make_groups(name, pocket, examples, n_groups=3, seed=2) for name in ("gdrt", "random", "item")}
    by_token, by_item = (fit(token_relevance(pocket, targets), targets, n_groups=3, level=level, seed=2) for level in LEVELS)
    expected = {"gdrt": by_token, "random": by_token.shuffled(2), "item": by_item}
    assert not by_token.table().group.equals(by_token.shuffled(2).table().group)
    for name, found in made.items():
        assert found.table().equals(expected[name].table()) and found.level == expected[name].level
    assert all(len(set(made["item"].of(title))) == 1 for title in targets)
    assert any(len(set(made["gdrt"].of(title))) > 1 for title in targets)


@pytest.mark.parametrize("objective", [name for name, spec in OBJECTIVES.items() if not spec.legal])
def test_every_objective_trains(pocket, examples, objective):
    run = tune(pocket, examples[:32], objective, epochs=3)
    assert run.history.loss_g0.notna().all() and len(run.history) == 6
    first, last = (float(torch.cat(lm.target_logprobs(m, [m.encode(e.history, e.target) for e in examples[:32]])).mean())
                   for m in (pocket, run.lm))  # fmt: skip
    assert last > first + 0.05


def test_the_examples_of_a_chunk_come_one_after_the_other_in_an_order_of_seed_and_epoch():
    growing = data.load_movielens(500).split(history=6, growing=True).train
    chunks = data.chunks_of(data.sample(growing, 48, seed=1, whole_chunks=True))
    sampler = SeededChunks(chunks, seed=0, multiple=5)
    order = list(sampler)
    assert len(order) == len(sampler) == 50 and sorted(order) == list(range(50))  # the last two are fillers
    for chunk in chunks:
        start = order.index(chunk[0])
        assert order[start : start + len(chunk)] == chunk
    assert list(SeededChunks(chunks, seed=0, multiple=5)) == order != list(SeededChunks(chunks, seed=1, multiple=5))
    sampler.set_epoch(1)
    assert list(sampler) != order


def test_same_seed_same_weights_and_the_given_model_stays_as_it_is(pocket, examples):
    before = [p.clone() for p in pocket.model.parameters()]
    one, two, other = (tune(pocket, examples[:48], seed=s) for s in (0, 0, 1))
    assert same(one, two) and not same(one, other)
    assert all(torch.equal(a, b) for a, b in zip(before, pocket.model.parameters(), strict=True))


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_killed_training_resumes_to_the_same_weights(pocket, examples, groups, tmp_path, ema):
    settings = dict(groups=groups, epochs=2, ema=ema, save_every=3)
    whole = tune(pocket, examples, output=tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        tune(pocket, examples, output=tmp_path / "killed", callbacks=[Kill(8)], **settings)
    resumed = tune(pocket, examples, output=tmp_path / "killed", resume=True, **settings)
    assert same(whole, resumed)
    assert whole.history.loss.tolist() == resumed.history.loss.tolist()


class Poison(TrainerCallback):
    """Breaks the weights after a step."""

    def on_step_end(self, args, state, control, model, **_):
        if state.global_step == 4:
            next(model.parameters()).data.fill_(float("nan"))


def test_a_nan_loss_stops_names_the_step_and_keeps_the_checkpoint(pocket, examples, tmp_path):
    with pytest.raises(training.TrainingDiverged, match="at step 5.*checkpoint-3"):
        tune(pocket, examples, output=tmp_path, save_every=3, callbacks=[Poison()])
    assert (tmp_path / "checkpoint-3" / "model.safetensors").exists()


def test_lora_trains_adapters_only_and_reloads_to_the_same_scores(smollm2, examples, tmp_path):
    run = tune(smollm2, examples[:4], "sft", batch_size=2)
    folder = run.save(tmp_path / "adapter")
    size = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    assert 1e6 < size < 3e6
    assert json.loads((folder / "settings.json").read_text())["lora"]["target_modules"] == [
        "q_proj",
        "v_proj",
    ]
    again = lm.load("smollm2-135m", adapter=folder, dtype=torch.float32, device="cpu")
    rows = [again.encode(e.history, e.target) for e in examples[:2]]
    for a, b, c in zip(*(lm.target_logprobs(m, rows) for m in (run.lm, again, smollm2)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
        assert not torch.allclose(a, c, atol=1e-3)


def test_lora_shares_the_frozen_weights_and_leaves_them_as_they_are(smollm2, examples):
    before = [p.clone() for p in smollm2.model.parameters()]
    run = tune(smollm2, examples[:4], "sft", batch_size=2)
    assert all(torch.equal(a, b) for a, b in zip(before, smollm2.model.parameters(), strict=True))
    assert all(p.requires_grad for p in smollm2.model.parameters())
    ours = {p.data_ptr() for p in smollm2.model.parameters()}
    trained = {p.requires_grad for p in run.lm.model.parameters() if p.data_ptr() not in ours}
    shared = {p.requires_grad for p in run.lm.model.parameters() if p.data_ptr() in ours}
    assert (trained, shared) == ({True}, {False})


def test_biases_that_are_trained_are_not_shared(pocket, examples):
    layer = torch.nn.Linear(128, 128)
    biased = copy.deepcopy(pocket.model)
    biased.model.layers[0].self_attn.q_proj = layer
    before = layer.bias.clone()
    lora = LoraConfig(r=2, bias="all", task_type="CAUSAL_LM")
    run = tune(lm.LanguageModel(biased, pocket.tokenizer, pocket.prompt, "biased"), examples[:32], "sft", lora=lora)
    tuned = run.lm.model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.bias
    assert torch.equal(layer.bias, before) and not torch.equal(tuned, before)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(objective="dpo"), "unknown objective 'dpo'"),
        (dict(tau=0.0), "tau=0.0"),
        (dict(tau=float("nan")), "tau=nan"),
        (dict(tau=float("inf")), "tau=inf"),
        (dict(ema=1.0), "ema=1.0"),
        (dict(n_groups=10_000), "n_groups=10000 must be between"),
    ],
)
def test_bad_settings_are_named_before_any_training(pocket, examples, settings, message):
    with pytest.raises(ValueError, match=message):
        tune(pocket, examples, **settings)


def test_no_example_is_an_error(pocket):
    with pytest.raises(ValueError, match="examples is empty"):
        tune(pocket, [])


def test_the_history_free_twin_scores_titles_better_than_the_untrained_model(pocket, examples):
    twin = training.train_relevance_scorer(pocket, examples, max_steps=10)
    titles = [e.target for e in examples]
    before, after = (sum(float(s.sum()) for s in token_relevance(m, titles).values()) for m in (pocket, twin.lm))
    assert after > before
