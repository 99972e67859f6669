"""Constrained beam search against exhaustive scoring and against transformers' own."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from gdrt_lite import decoding, lm
from gdrt_lite.prompts import target_ids
from gdrt_lite.trie import TitleTrie


def histories_from(catalogue, n, seed=0):
    draw = random.Random(seed)
    return [draw.sample(catalogue, draw.randint(0, min(5, len(catalogue)))) for _ in range(n)]


def assert_same(ours, theirs, tolerance=1e-4):
    assert [title for title, _ in ours] == [title for title, _ in theirs]
    torch.testing.assert_close(
        torch.tensor([score for _, score in ours]),
        torch.tensor([score for _, score in theirs]),
        atol=tolerance,
        rtol=0,
    )


def generate(model, history, trie, beams):
    """The peer: model.generate with prefix_allowed_tokens_fn."""
    prompt = model.encode(history, None).ids
    eos = model.tokenizer.eos_token_id

    def allowed(_, ids):
        node = 0
        for token in ids[len(prompt) :].tolist():
            children = range(trie.first[node], trie.first[node + 1])
            node = next((child for child in children if trie.token[child] == token), None)
            if node is None:
                return [eos]
        return trie.token[trie.first[node] : trie.first[node + 1]].tolist() or [eos]

    output = model.model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), num_beams=beams,
        num_return_sequences=beams, max_new_tokens=60, prefix_allowed_tokens_fn=allowed, length_penalty=0.0,
        do_sample=False, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    titles = [model.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip() for ids in output.sequences]
    return list(zip(titles, output.sequences_scores.tolist(), strict=True))


@given(st.integers(0, 1000), st.integers(2, 60))
@settings(max_examples=10, deadline=None)
def test_a_beam_as_wide_as_the_catalogue_is_exhaustive(pocket, splits, seed, size):
    catalogue = random.Random(seed).sample(splits.catalogue, size)
    histories = histories_from(catalogue, 3, seed)
    lists = decoding.recommend(pocket, histories, catalogue, k=len(catalogue))
    for history, ranked in zip(histories, lists, strict=True):
        assert_same(ranked, decoding.score_catalogue(pocket, history, catalogue))


@given(st.integers(0, 1000), st.integers(2, 40), st.booleans())
@settings(max_examples=8, deadline=None)
def test_the_exact_ranking_equals_one_forward_pass_for_each_title(pocket, splits, seed, size, exclude):
    catalogue = random.Random(seed).sample(splits.catalogue, size)
    histories = [history[: size - 1] for history in histories_from(catalogue, 2, seed)]
    lists = decoding.rank_catalogue(pocket, histories, catalogue, k=size, exclude_history=exclude)
    for history, ranked in zip(histories, lists, strict=True):
        expected = []
        for title in catalogue:
            prompt = pocket.encode(history, title)
            with torch.no_grad():
                logprobs = pocket.model(torch.tensor([prompt.ids])).logits[0].log_softmax(-1)
            expected.append((title, float(logprobs[list(prompt.predict_at), list(prompt.labels)].sum())))
        kept = [pair for pair in expected if not (exclude and pair[0] in history)]
        assert_same(ranked, sorted(kept, key=lambda pair: (-pair[1], pair[0])))


def test_titles_of_one_score_are_ranked_by_name(pocket, splits):
    flat = copy.deepcopy(pocket.model)
    for parameter in flat.parameters():
        parameter.data.zero_()  # every token is as likely as any other
    by_tokens: dict[int, list[str]] = {}
    for title in splits.catalogue:
        by_tokens.setdefault(len(target_ids(pocket.tokenizer, title)), []).append(title)
    titles = max(by_tokens.values(), key=len)[::-1]
    model = lm.LanguageModel(flat, pocket.tokenizer, pocket.prompt, "flat")
    (ranked,) = decoding.rank_catalogue(model, [titles[:2]], titles, k=5)
    assert [title for title, _ in ranked] == sorted(titles)[:5]


def test_exhaustive_on_the_real_model(smollm2, splits):
    catalogue = splits.catalogue[100:112]
    histories = histories_from(catalogue, 2, seed=3)
    for history, ranked in zip(histories, decoding.recommend(smollm2, histories, catalogue, k=12), strict=True):
        assert_same(ranked, decoding.score_catalogue(smollm2, history, catalogue), 1e-3)


def with_small_window(pocket, window, absolute):
    """A model that reads no more than `window` tokens, with a vector for each position or with the pocket model's
    rotations."""
    if absolute:
        torch.manual_seed(0)
        sizes = dict(vocab_size=len(pocket.tokenizer), n_embd=32, n_layer=2, n_head=4)
        model = GPT2LMHeadModel(GPT2Config(n_positions=window, **sizes, bos_token_id=None, eos_token_id=0)).eval()
    else:
        model = copy.deepcopy(pocket.model)
        model.config.max_position_embeddings = window
    return lm.LanguageModel(model, pocket.tokenizer, pocket.prompt, "small")


@pytest.mark.parametrize("absolute", [True, False])
def test_a_history_beyond_the_window_is_cut_alike_by_the_beam_and_the_exhaustive_search(pocket, splits, absolute):
    by_length = sorted(splits.catalogue, key=lambda title: len(pocket.tokenizer(title)["input_ids"]))
    catalogue = by_length[:6] + by_length[-6:]  # a cut by each title's own length would differ
    history = catalogue[3:8]
    whole = len(pocket.encode(history, None))
    small = with_small_window(pocket, whole + 3, absolute)
    assert len(small.encode(history, catalogue[-1])) < len(small.encode(history, None)) == whole
    (ranked,) = decoding.recommend(small, [history], catalogue, k=12)
    assert_same(ranked, decoding.score_catalogue(small, history, catalogue))


def test_a_window_too_small_for_the_longest_title_is_named(pocket):
    small = with_small_window(pocket, len(pocket.encode((), None)) + 1, absolute=False)
    with pytest.raises(ValueError, match="is too short"):
        decoding.recommend(small, [[]], ["Heat (1995)"], k=1)


def test_a_sliding_window_holds_all_of_a_prompt_and_a_title_or_is_refused(pocket, splits):
    catalogue = splits.catalogue[:12]
    history = catalogue[3:6]
    longest = len(pocket.encode(history, None)) + TitleTrie(catalogue, pocket.tokenizer).depth
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)

    def sliding(reach):
        torch.manual_seed(0)
        config = MistralConfig(vocab_size=len(pocket.tokenizer), **sizes, head_dim=8, sliding_window=reach, eos_token_id=0)
        return lm.LanguageModel(MistralForCausalLM(config).eval(), pocket.tokenizer, pocket.prompt, "sliding")

    model = sliding(longest)  # twelve beams write far more columns than that
    (ranked,) = decoding.recommend(model, [history], catalogue, k=12)
    assert_same(ranked, decoding.score_catalogue(model, history, catalogue))
    with pytest.raises(ValueError, match=f"attends to {longest - 1} tokens where {longest} are read.*score_catalogue"):
        decoding.recommend(sliding(longest - 1), [history], catalogue, k=12)


def test_layers_that_carry_a_state_from_beam_to_beam_are_refused(pocket):
    recurrent = copy.deepcopy(pocket.model)
    recurrent.config.layer_types = ["linear_attention", "full_attention"] * 2
    with pytest.raises(ValueError, match="layers of .'linear_attention'.*score_catalogue"):
        decoding.recommend(lm.LanguageModel(recurrent, pocket.tokenizer, pocket.prompt, "r"), [[]], ["Heat (1995)"], k=1)


def test_beam_ten_equals_transformers_beam_search(pocket, splits):
    trie = TitleTrie(splits.catalogue, pocket.tokenizer)
    histories = histories_from(splits.catalogue, 5, seed=1)
    for history, ranked in zip(histories, decoding.recommend(pocket, histories, trie, k=10), strict=True):
        assert_same(ranked, generate(pocket, history, trie, 10))


def test_beam_ten_equals_transformers_beam_search_on_the_real_model(smollm2, splits):
    trie = TitleTrie(splits.catalogue[:200], smollm2.tokenizer)
    histories = histories_from(splits.catalogue[:200], 2, seed=2)
    for history, ranked in zip(histories, decoding.recommend(smollm2, histories, trie, k=10), strict=True):
        assert_same(ranked, generate(smollm2, history, trie, 10), 1e-3)


@given(st.integers(1, 7), st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_lists_do_not_depend_on_the_batch(pocket, splits, batch_size, seed):
    histories = histories_from(splits.catalogue, 7, seed)
    trie = TitleTrie(splits.catalogue[:80] + splits.catalogue[80:], pocket.tokenizer)
    reference = decoding.recommend(pocket, histories, trie, k=5, batch_size=7)
    for ours, theirs in zip(decoding.recommend(pocket, histories, trie, k=5, batch_size=batch_size), reference, strict=True):
        assert_same(ours, theirs)


def test_excluding_the_history_equals_a_smaller_catalogue(pocket, splits):
    catalogue = splits.catalogue[:40]
    history = catalogue[3:8]
    excluded = decoding.recommend(pocket, [history], catalogue, k=35, beams=40, exclude_history=True)[0]
    rest = [title for title in catalogue if title not in history]
    assert_same(excluded, decoding.score_catalogue(pocket, history, rest))


def test_excluding_can_close_a_whole_branch(pocket):
    catalogue = ["Alien (1979)", "Alien (1992)", "Heat (1995)"]
    ranked = decoding.recommend(pocket, [catalogue[:2]], catalogue, k=3, exclude_history=True)[0]
    assert [title for title, _ in ranked] == ["Heat (1995)"]


def test_the_trie_spells_every_title(pocket, splits):
    trie = TitleTrie(splits.catalogue, pocket.tokenizer)
    assert (trie.leaf >= 0).sum() == len(splits.catalogue)
    assert trie.n_titles[trie.first[0] : trie.first[1]].sum() == trie.n_titles[0] == len(splits.catalogue)
    for title in splits.catalogue:
        path = trie.path(title)
        assert tuple(trie.token[path]) == target_ids(pocket.tokenizer, title) and trie.titles[trie.leaf[path[-1]]] == title
    assert trie.depth == max(len(trie.path(title)) for title in splits.catalogue)


@pytest.mark.parametrize(
    "histories, catalogue, k, beams, message",
    [
        ([["a"]], [], 1, None, "catalogue is empty"),
        ([["a"]], ["a", "a"], 1, None, "twice"),
        ([["a"]], ["a", "b"], 3, None, "k=3 is out of range"),
        ([["a"]], ["a", "b"], 0, None, "k=0 is out of range"),
        ([["a"]], ["a", "b"], 2, 1, "beams=1 is below k=2"),
        ([["a"], ["Heat (1994)"]], ["a", "b"], 1, None, r"histories\[1\] holds 'Heat \(1994\)'"),
    ],
)
def test_bad_input_is_named(pocket, histories, catalogue, k, beams, message):
    with pytest.raises(ValueError, match=message):
        decoding.recommend(pocket, histories, catalogue, k=k, beams=beams)
