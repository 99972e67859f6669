"""The scoring core against a plain forward pass, and what it must not depend on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Gemma2Config, GptOssConfig, LlamaConfig, MptConfig, T5Config, T5Model

from gdrt_lite import lm
from gdrt_lite.lm import attention, packing
from gdrt_lite.system.errors import GdrtError

TITLES = ("Toy Story (1995)", "Heat (1995)", "Alien (1979)", "Aliens (1986)", "Jumanji (1995)")


def naive(model: lm.LanguageModel, row) -> torch.Tensor:
    """One prompt, one forward pass, the whole vocabulary."""
    with torch.no_grad():
        logprobs = model.model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
    return torch.stack([logprobs[p, label] for p, label in zip(row.predict_at, row.labels, strict=True)])


batches = st.lists(st.tuples(st.lists(st.sampled_from(TITLES), max_size=5), st.sampled_from(TITLES)), min_size=1, max_size=8)


@given(batches)
@settings(max_examples=25, deadline=None)
def test_scores_equal_one_plain_forward_pass_each(pocket, batch):
    rows = [pocket.encode(history, target) for history, target in batch]
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
        torch.testing.assert_close(a, naive(smollm2, row), atol=1e-4, rtol=0)


@given(st.lists(st.tuples(st.sampled_from((1, 3)), st.sampled_from(TITLES)), min_size=2, max_size=8))
@settings(max_examples=25, deadline=None)
def test_prompts_that_share_a_row_score_as_if_alone(pocket, drawn):
    rows = [pocket.encode(TITLES[:n], target) for n, target in drawn]
    packs = packing.equal_up_to_the_target(rows)
    assert sorted(i for pack in packs for i in pack) == list(range(len(rows)))
    assert all(len({drawn[i][0] for i in pack}) == 1 for pack in packs)  # one history, one row
    for row, scores in zip(rows, lm.target_logprobs(pocket, rows), strict=True):
        torch.testing.assert_close(scores, naive(pocket, row), atol=1e-5, rtol=1e-5)


def test_a_row_holds_no_more_in_its_endings_than_before_them(pocket):
    prompt = pocket.encode(TITLES[:1], TITLES[2])
    before, ending = prompt.predict_at[0] + 1, len(prompt) - prompt.predict_at[0] - 1
    packs = packing.equal_up_to_the_target([prompt] * 40)
    assert {len(pack) for pack in packs[:-1]} == {before // ending} and before // ending > 1
    batch = packing.collate([prompt] * 40, 0, False, packs)
    assert batch["input_ids"].shape[0] == len(packs) and len(batch["labels"]) == 40 * len(prompt.labels)


def test_sharing_the_opening_changes_neither_loss_nor_gradient(pocket):
    rows = [pocket.encode(TITLES[:n], TITLES[n]) for n in (1, 2, 4)]
    gradients = []
    for share in (True, False):
        batch = packing.collate(rows, pocket.tokenizer.pad_token_id, share)
        assert bool(len(batch["prefix_ids"])) == share
        pocket.model.zero_grad()
        (-lm.batch_logprobs(pocket.model, batch).mean()).backward()
        gradients.append([p.grad.clone() for p in pocket.model.parameters()])
    pocket.model.zero_grad()
    for shared, plain in zip(*gradients, strict=True):
        assert (shared - plain).norm() <= 1e-5 * plain.norm()


@given(batches)
@settings(max_examples=15, deadline=None)
def test_the_loss_and_its_gradient_equal_the_full_vocabulary_loss(pocket, batch):
    rows = [pocket.encode(history, target) for history, target in batch]
    ours, gradient = loss_and_gradient(pocket, lambda: -lm.batch_logprobs(pocket.model, packing.collate(rows, 0)).mean())

    def full_vocabulary() -> torch.Tensor:
        losses = []
        for row in rows:
            logits = pocket.model(torch.tensor([row.ids])).logits[0]
            losses.append(
                torch.nn.functional.cross_entropy(logits[list(row.predict_at)], torch.tensor(row.labels), reduction="none")
            )
        return torch.cat(losses).mean()

    plain, expected = loss_and_gradient(pocket, full_vocabulary)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=0)
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()


def loss_and_gradient(model: lm.LanguageModel, loss) -> tuple[torch.Tensor, torch.Tensor]:
    """A loss and the gradient of all weights in one vector; the model is left without gradients."""
    model.model.zero_grad()
    value = loss()
    value.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.model.parameters()])
    model.model.zero_grad()
    return value.detach(), gradient


@pytest.mark.parametrize("heads, groups", [(4, 4), (6, 2), (9, 3)])
def test_grouped_attention_equals_torchs_own(heads, groups):
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(2, heads, 5, 8),
        torch.randn(2, groups, 7, 8),
        torch.randn(2, groups, 7, 8),
    )
    mask = torch.zeros(2, 1, 5, 7).masked_fill(torch.rand(2, 1, 5, 7) < 0.3, torch.finfo(torch.float32).min)
    ours, _ = attention.grouped_attention(torch.nn.Module().eval(), query, key, value, mask, scaling=0.5)
    theirs = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, scale=0.5, enable_gqa=True)
    torch.testing.assert_close(ours, theirs.transpose(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["softcap", "s_aux", "position_bias"])
def test_grouped_attention_refuses_what_it_does_not_compute(name):
    tensors = [torch.randn(1, 2, 3, 4) for _ in range(3)]
    with pytest.raises(ValueError, match=f"no '{name}'"):
        attention.grouped_attention(torch.nn.Module().eval(), *tensors, None, **{name: torch.ones(2)})
    attention.grouped_attention(torch.nn.Module().eval(), *tensors, None, **{name: None}, sliding_window=4)


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
        torch.testing.assert_close(scores, naive(reference, row), atol=1e-4, rtol=0)
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
    # ALiBi goes by the place of a token in the batch, so a shared opening or a left-out token would change its scores.
    alibi = AutoModelForCausalLM.from_config(MptConfig(**sizes, n_layers=1, n_heads=2))
    with pytest.raises(GdrtError, match="mpt' takes no position_ids"):
        lm.load(saved(alibi, pocket, tmp_path / "mpt"))


def test_an_empty_catalogue_gives_no_pocket_model():
    with pytest.raises(ValueError, match="titles is empty"):
        lm.pocket([])
