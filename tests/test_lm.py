"""The scoring core against a plain forward pass, and what it must not depend on."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Gemma2Config, GptOssConfig, LlamaConfig, MptConfig, T5Config, T5Model

from gdrt_lite import lm
from gdrt_lite.ablation import ablate
from gdrt_lite.lm import attention, packing
from gdrt_lite.prompts import HISTORY, PREFIX, TASK
from gdrt_lite.system.errors import GdrtError

TITLES = ("Toy Story (1995)", "Heat (1995)", "Alien (1979)", "Aliens (1986)", "Jumanji (1995)")


def naive(model: lm.LanguageModel, row) -> torch.Tensor:
    """One prompt, one forward pass, the whole vocabulary; differentiable."""
    positions = torch.arange(len(row))[None]
    logits = model.model(torch.tensor([row.ids]), attention_mask=torch.tensor([row.attend]), position_ids=positions).logits
    return logits[0].log_softmax(-1)[list(row.predict_at), list(row.labels)]


batches = st.lists(st.tuples(st.lists(st.sampled_from(TITLES), max_size=5), st.sampled_from(TITLES)), min_size=1, max_size=8)
# A history that begins with one of two long ones, a target, and perhaps a segment that is masked or replaced.
related = st.tuples(
    st.integers(0, 1), st.integers(0, 8), st.sampled_from(TITLES),
    st.sampled_from([None, "attention", "token", "delete"]), st.sampled_from([TASK, HISTORY, PREFIX]),
)  # fmt: skip


def prompts_of(model: lm.LanguageModel, drawn) -> list:
    """The prompts of `related` draws; an empty history stays whole."""
    prompts = []
    for which, n, target, ablation, segment in drawn:
        prompt = model.encode((TITLES * 2)[which : which + n], target)
        prompts.append(ablate(prompt, segment, ablation, 7) if ablation and n else prompt)
    return prompts


@given(batches)
@settings(max_examples=25, deadline=None)
def test_scores_equal_one_plain_forward_pass_each(pocket, batch):
    rows = [pocket.encode(history, target) for history, target in batch]
    with torch.no_grad():
        for row, scores in zip(rows, lm.target_logprobs(pocket, rows), strict=True):
            torch.testing.assert_close(scores, naive(pocket, row), atol=1e-5, rtol=1e-5)


def test_scores_do_not_depend_on_batch_size_or_order_on_the_real_model(smollm2):
    rows = [smollm2.encode(TITLES[:n], target) for n in (0, 1, 4) for target in TITLES[:2]]
    together = lm.target_logprobs(smollm2, rows)
    alone = [lm.target_logprobs(smollm2, [row], batch_tokens=1)[0] for row in rows]
    backwards = lm.target_logprobs(smollm2, rows[::-1])[::-1]
    for a, b, c, row in zip(together, alone, backwards, rows, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
        torch.testing.assert_close(a, c, atol=1e-4, rtol=0)
        torch.testing.assert_close(a, naive(smollm2, row).detach(), atol=1e-4, rtol=0)


@given(st.lists(related, min_size=1, max_size=12), st.sampled_from([40, 150, 2048]))
@settings(max_examples=40, deadline=None)
def test_a_tree_scores_as_one_plain_forward_pass_for_each_prompt(pocket, drawn, batch_tokens):
    prompts = prompts_of(pocket, drawn)
    with torch.no_grad():
        for prompt, scores in zip(prompts, lm.target_logprobs(pocket, prompts, batch_tokens), strict=True):
            torch.testing.assert_close(scores, naive(pocket, prompt), atol=1e-5, rtol=1e-5)


def forced_layouts(prompts) -> list[packing.Batch]:
    """One batch in several forms: as cut for the least cost, in two rows and in many, with trunks and without."""
    found = [packing.collate(prompts), packing.one_row_each(prompts), packing.unpacked(prompts, 0)]
    for parts, trunk_cost in ((2, 0), (12, 0), (12, 10_000)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(packing, "PARTS", (parts,))
            patch.setattr(packing, "TRUNK_COST", trunk_cost)
            patch.setattr(packing, "LAYERS_COST", 10**9)
            found.append(packing.collate(prompts))
    return found


@given(st.lists(related, min_size=1, max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=15, deadline=None)
def test_scores_and_gradients_of_every_layout_equal_those_of_plain_forward_passes(pocket, drawn, draw):
    prompts = prompts_of(pocket, drawn)
    weights = torch.tensor([draw.random() for prompt in prompts for _ in prompt.labels])
    plain, expected = loss_and_gradient(
        pocket, lambda: (weights * torch.cat([naive(pocket, prompt) for prompt in prompts])).sum()
    )
    for batch in forced_layouts(prompts):
        ours, gradient = loss_and_gradient(
            pocket, lambda batch=batch: (weights * lm.batch_logprobs(pocket.model, batch)).sum()
        )
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)
        assert (gradient - expected).norm() <= 1e-5 * expected.norm()


def growing(model: lm.LanguageModel, user: int = 0, n: int = 6) -> list:
    """The prompts of one user's growing windows."""
    titles = (TITLES * 3)[user : user + n + 1]
    return [model.encode(titles[:i], titles[i]) for i in range(1, n + 1)]


def test_a_growing_window_is_read_once(pocket):
    prompts = growing(pocket)
    batch = packing.collate(prompts)
    endings = sum(len(prompt) - max(prompt.positions(HISTORY)) - 2 for prompt in prompts)  # each without its EOS
    stem = max(prompts[-1].positions(HISTORY)) + 1
    # The closing words begin with the token that begins a bullet, so each ending but the last has one token less.
    common = os.path.commonprefix([list(prompts[0].ids), list(prompts[-1].ids)])
    shared = len(common) - max(prompts[0].positions(HISTORY)) - 1
    assert batch["input_ids"].shape == (1, stem + endings - shared * (len(prompts) - 1))
    assert len(batch["trunk_ids"]) == 0 and len(batch["labels"]) == sum(len(prompt.labels) for prompt in prompts)


def test_many_targets_after_one_history_have_it_as_their_trunk(smollm2, splits):
    prompts = [smollm2.encode(TITLES, title) for title in splits.catalogue]
    batch = packing.collate(prompts)
    before = prompts[0].predict_at[0] + 1
    assert batch["trunk_ids"][:before].tolist() == list(prompts[0].ids[:before])
    assert batch["trunk_read"][0] == before - 1  # the first token of every title is predicted at one place
    rows, width = batch["input_ids"].shape
    assert rows > 4 and 0.9 * rows * width < (batch["position_ids"] > 0).sum()
    # Every row has tokens of its own only: a beginning is read again in a few rows at most.
    distinct = len({prompt.ids[: p + 1] for prompt in prompts for p in prompt.predict_at[1:]})
    assert (batch["position_ids"] > 0).sum() < 1.05 * distinct


def test_batches_hold_every_prompt_once_and_keep_neighbours_together(pocket):
    prompts = [prompt for user in range(4) for prompt in growing(pocket, user)][::-1]
    one_user = packing.collate(growing(pocket))["input_ids"].numel()
    found = list(packing.batches(prompts, int(1.4 * one_user)))
    assert sorted(i for batch in found for i in batch) == list(range(len(prompts)))
    assert len(found) == 4 and sorted(sorted(batch) for batch in found) == [[*range(i, i + 6)] for i in (0, 6, 12, 18)]
    assert [len(batch) for batch in packing.batches(prompts, 1)] == [1] * len(prompts)


def loss_and_gradient(model: lm.LanguageModel, loss) -> tuple[torch.Tensor, torch.Tensor]:
    """A loss and the gradient of all weights in one vector; the model is left without gradients."""
    model.model.zero_grad()
    value = loss()
    value.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.model.parameters()])
    model.model.zero_grad()
    return value.detach(), gradient


@pytest.mark.parametrize("heads, groups", [(4, 4), (6, 2), (9, 3)])
def test_fused_attention_equals_the_formula(heads, groups):
    """Output and gradients, against softmax(Q K^T * scale + mask) V with keys and values copied once per query head."""
    torch.manual_seed(0)
    shapes = (2, heads, 5, 8), (2, groups, 7, 8), (2, groups, 7, 8)
    query, key, value = tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    mask = torch.zeros(2, 1, 5, 7, dtype=torch.float64).masked_fill(torch.rand(2, 1, 5, 7) < 0.3, -1e300)
    ours, _ = attention.fused_attention(torch.nn.Module().eval(), *tensors, mask, scaling=0.5)
    keys, values = (x.repeat_interleave(heads // groups, dim=1) for x in (key, value))
    theirs = ((query @ keys.transpose(-1, -2) * 0.5 + mask).softmax(-1) @ values).transpose(1, 2)
    torch.testing.assert_close(ours, theirs)
    for mine, known in zip(*(torch.autograd.grad(x.square().sum(), tensors) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(mine, known)


def test_fused_attention_rounds_to_16_bits_neither_with_nor_without_autocast():
    torch.manual_seed(0)
    tensors = [torch.randn(1, 2, 5, 8, requires_grad=True) for _ in range(3)]
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output, _ = attention.fused_attention(torch.nn.Module().eval(), *tensors, None)
        found.append((output, *torch.autograd.grad(output.square().sum(), tensors)))
    for without, within in zip(*found, strict=True):
        assert torch.equal(without, within)


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias"])
def test_fused_attention_refuses_what_it_does_not_compute(name):
    tensors = [torch.randn(1, 2, 3, 4) for _ in range(3)]
    with pytest.raises(ValueError, match=f"no '{name}'"):
        attention.fused_attention(torch.nn.Module().eval(), *tensors, None, **{name: torch.ones(2)})
    attention.fused_attention(torch.nn.Module().eval(), *tensors, None, **{name: None}, sliding_window=4)


def saved(model, pocket, folder):
    """An untrained model as a folder, with the pocket model's tokenizer."""
    model.save_pretrained(folder)
    pocket.tokenizer.save_pretrained(folder)
    return folder


SIZES = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
SIZES |= dict(head_dim=8, bos_token_id=None, eos_token_id=0, pad_token_id=1)
ODD_ATTENTION = {
    "softcap": (Gemma2Config, dict(query_pre_attn_scalar=8, attn_logit_softcapping=0.5, sliding_window=16)),
    "sinks": (GptOssConfig, dict(num_local_experts=2, num_experts_per_tok=1, sliding_window=16)),
    "plain": (LlamaConfig, {}),
}


@pytest.mark.parametrize("kind", ODD_ATTENTION)
def test_models_with_more_in_their_attention_are_scored_as_by_transformers_eager_code(pocket, tmp_path, kind):
    config_class, own = ODD_ATTENTION[kind]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config_class(vocab_size=len(pocket.tokenizer), **SIZES, **own))
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)  # far enough from 0 that an ignored cap or sink shows
    loaded = lm.load(saved(model, pocket, tmp_path), dtype=torch.float32, device="cpu")
    eager = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32, attn_implementation="eager").eval()
    reference = lm.LanguageModel(eager, pocket.tokenizer, pocket.prompt, "eager")
    rows = [loaded.encode(TITLES[:n], target) for n in (0, 4) for target in TITLES[:2]]
    for row, scores in zip(rows, lm.target_logprobs(loaded, rows), strict=True):
        torch.testing.assert_close(scores, naive(reference, row).detach(), atol=1e-4, rtol=0)
    assert loaded.model.config._attn_implementation == (attention.NAME if kind == "plain" else "eager")


def test_only_the_asked_rows_reach_the_output_layer_and_the_hook_is_gone_afterwards(pocket):
    ids = torch.tensor([pocket.encode(TITLES[:2], TITLES[3]).ids])
    with torch.no_grad():
        everything = pocket.model(ids).logits
        with lm.only_rows(pocket.model, torch.tensor([0, 0]), torch.tensor([3, 1])):
            two = pocket.model(ids).logits
        assert two.shape == (2, everything.shape[-1])
        torch.testing.assert_close(two, everything[0, [3, 1]])
        assert pocket.model(ids).logits.shape == everything.shape


def test_the_real_model_knows_its_geography(smollm2):
    ids = smollm2.tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = smollm2.model(**ids).logits[0, -1].argmax()
    assert smollm2.tokenizer.decode([int(best)]).strip() == "Paris"


def test_the_pocket_model_is_small_and_seeded(splits):
    one, two, other = (lm.pocket(splits.catalogue, seed=s) for s in (0, 0, 1))
    assert 0.5e6 < sum(p.numel() for p in one.model.parameters()) < 1.5e6
    first, second, third = (next(m.model.parameters()) for m in (one, two, other))
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_an_unknown_model_or_adapter_is_one_clear_sentence(tmp_path):
    with pytest.raises(GdrtError, match="unknown model 'no/such-model'"):
        lm.load("no/such-model")
    with pytest.raises(GdrtError, match="no usable LoRA adapter"):
        lm.load("smollm2-135m", adapter=tmp_path)


def test_a_model_that_is_there_but_does_not_fit_is_not_called_unknown(pocket, tmp_path):
    sizes = dict(vocab_size=len(pocket.tokenizer), d_model=16)
    encoder_decoder = saved(T5Model(T5Config(**sizes, num_layers=1, num_heads=2, d_ff=16)), pocket, tmp_path / "t5")
    with pytest.raises(GdrtError, match="t5' cannot be read as a causal language model.*T5Config"):
        lm.load(encoder_decoder)
    # ALiBi goes by the place of a token in the batch, so its prompts are read alone.
    alibi = AutoModelForCausalLM.from_config(MptConfig(**sizes, n_layers=1, n_heads=2))
    assert lm.load(saved(alibi, pocket, tmp_path / "mpt"), dtype=torch.float32, device="cpu").packed == 0


def test_an_empty_catalogue_gives_no_pocket_model():
    with pytest.raises(ValueError, match="titles is empty"):
        lm.pocket([])
