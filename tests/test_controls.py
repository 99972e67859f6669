"""The controls that take the place of the groups, and the warm start: each by hand or against a naive reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from peft import LoraConfig

from gdrt_lite import data, groups, lm, stranger, training
from gdrt_lite.decoding import rank_catalogue
from gdrt_lite.lm.scoring import legal_logprobs, target_logprobs
from gdrt_lite.objectives import Objective
from gdrt_lite.study.config import Config
from gdrt_lite.study.evaluate import evaluate
from gdrt_lite.trie import TitleTrie

TITLES = ["red door", "red lamp", "blue"]


@pytest.fixture(scope="module")
def small():
    """A pocket model of three titles: the first token is open, `blue` forces its end, `red` leaves door or lamp."""
    return lm.pocket(TITLES)


@pytest.fixture(scope="module")
def few():
    """Sixty films and their pocket model: the whole catalogue is ranked in a moment."""
    splits = data.load_movielens(60).split(history=5)
    return lm.pocket(splits.catalogue), splits


def test_legal_tokens_are_those_of_all_titles_with_the_same_beginning(small):
    trie = TitleTrie(TITLES, small.tokenizer)
    red, blue = (small.encode((), title).labels for title in ("red door", "blue"))
    choices = trie.legal("red door")
    assert [len(tokens) for tokens in trie.legal("blue")] == [2] + [1] * (len(blue) - 1)
    assert set(choices[0].tolist()) == {red[0], blue[0]}
    assert all(label in tokens for label, tokens in zip(red, choices, strict=True))
    assert sum(len(tokens) > 1 for tokens in choices) == 2  # at `red` or `blue`, and at `door` or `lamp`


def test_open_tokens_are_group_0_and_forced_ones_group_1(small):
    made = training.make_groups("forced", small, [data.Example("u", (), title, 0) for title in TITLES])
    legal = training.legal_tokens(small, TITLES)
    for title in TITLES:
        assert made.of(title).tolist() == [int(len(tokens) == 1) for tokens in legal[title]]
    assert made.relevance["blue"][0] == pytest.approx(-math.log(2)) and made.relevance["blue"][-1] == 0


def test_a_softmax_over_legal_tokens_is_that_of_the_masked_logits():
    torch.manual_seed(0)
    logits = torch.randn(3, 7, dtype=torch.float64, requires_grad=True)
    place, labels = torch.tensor([0, 2, 1]), torch.tensor([4, 6, 0])
    legal = [[4, 1], [6], [5, 0, 3]]
    expected = []
    for row, label, tokens in zip(place, labels, legal, strict=True):
        masked = torch.full((7,), -torch.inf, dtype=torch.float64)
        masked[tokens] = logits[row, tokens]
        expected.append(masked.log_softmax(0)[label])
    of = torch.tensor([0, 0, 1, 2, 2, 2])
    found = legal_logprobs(logits, place, labels, torch.tensor(sum(legal, [])), of)
    torch.testing.assert_close(found, torch.stack(expected))
    assert found[1] == 0  # a forced token costs nothing
    (slope,) = torch.autograd.grad(found.sum(), logits)
    (other,) = torch.autograd.grad(torch.stack(expected).sum(), logits)
    torch.testing.assert_close(slope, other)


def test_titles_under_the_legal_softmax_are_a_distribution(small):
    trie = TitleTrie(TITLES, small.tokenizer)
    legal = {title: trie.legal(title) for title in TITLES}
    scores = stranger.title_logprobs(small, [("blue",), ()], TITLES, legal)
    np.testing.assert_allclose(np.exp(scores).sum(1), 1, rtol=1e-5)
    assert (np.exp(stranger.title_logprobs(small, [("blue",)], TITLES)).sum() < 0.5).all()  # the whole vocabulary has more


def test_focal_turns_easy_tokens_down():
    objective = Objective("focal", parameters={"gamma": 2.0})
    losses = torch.tensor([math.log(2), math.log(4)])
    value, _ = objective(losses, torch.zeros(2, dtype=torch.long))
    assert float(value) == pytest.approx((0.5**2 * math.log(2) + 0.75**2 * math.log(4)) / 2)


def test_inverse_weighs_each_token_by_its_group_of_the_whole_training_set():
    objective = Objective("inverse", n_groups=2, sizes=[10, 40])
    losses = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    value, _ = objective(losses, torch.tensor([0, 1, 1]))
    value.backward()
    # Tokens weigh 1/10, 1/40, 1/40, which are divided by their sum.
    torch.testing.assert_close(losses.grad, torch.tensor([4.0, 1.0, 1.0]) / 6)
    with pytest.raises(ValueError, match="sizes"):
        Objective("inverse", n_groups=2)(losses, torch.tensor([0, 1, 1]))


def test_random_groups_are_of_equal_size():
    rng = np.random.default_rng(0)
    relevance = {f"t{i}": rng.normal(size=3) for i in range(60)}
    targets = [title for i, title in enumerate(relevance) for _ in range(1 + i % 4)]
    fitted = groups.fit(relevance, targets, 5)
    dealt = fitted.shuffled(1)
    assert fitted.sizes.sum() == dealt.sizes.sum() == 3 * len(targets)
    assert max(fitted.sizes) > 1.3 * min(fitted.sizes) and np.ptp(dealt.sizes) <= 2 * 4
    never = groups.fit(relevance, ["t0", "t1"], 2).shuffled(0)
    assert set(np.concatenate(list(never.ids.values()))) == {0, 1}


@pytest.mark.parametrize("name", ["forced", "msl", "focal", "inverse", "sft-at-nll"])
def test_each_control_trains(pocket, splits, name):
    examples = data.sample(splits.train, 48, seed=0)
    args = training.arguments(pocket, max_steps=12, batch_size=24, learning_rate=3e-3)
    objective = Objective(name, n_groups=3)
    history = training.finetune(pocket, examples, objective, args, catalogue=splits.catalogue, progress=False).history
    assert history.loss.iloc[-1] < history.loss.iloc[0]


def test_the_exact_evaluation_ranks_as_decoding_does_and_reads_as_stranger_does(few):
    pocket, splits = few
    test = data.sample(splits.test, 12, seed=0)
    config = Config(model="pocket", ranking="exact", faa_examples=4)
    found = evaluate(pocket, test, splits, config)
    expected = rank_catalogue(pocket, [e.history for e in test], splits.catalogue, 10, exclude_history=True)
    assert [[splits.catalogue[i] for i in row] for row in found.lists] == [[title for title, _ in row] for row in expected]
    frame = stranger.own_minus_stranger(pocket, test, 5, seed=0)
    np.testing.assert_allclose(found.own_minus_stranger, frame.difference, atol=1e-4)
    nll = [-float(score.sum()) for score in target_logprobs(pocket, [pocket.encode(e.history, e.target) for e in test])]
    np.testing.assert_allclose(found.nll, nll, atol=1e-4)


def test_a_ranking_per_token_divides_by_the_titles_length(few):
    pocket, splits = few
    test = data.sample(splits.test, 6, seed=0)
    exact, found = (
        evaluate(pocket, test, splits, Config(model="pocket", ranking=r, faa_examples=4)) for r in ("exact", "per-token")
    )
    for example, row in zip(test, found.lists, strict=True):
        scores = target_logprobs(pocket, [pocket.encode(example.history, title) for title in splits.catalogue])
        means = {title: float(score.mean()) for title, score in zip(splits.catalogue, scores, strict=True)}
        shown = sorted((title for title in means if title not in example.history), key=lambda title: -means[title])
        assert [splits.catalogue[i] for i in row] == shown[:10]
    assert found.lists != exact.lists and found.nll == exact.nll and found.own_minus_stranger == exact.own_minus_stranger


def test_ndcg_after_a_stranger_is_that_of_the_strangers_history(few):
    """Rank each target after the histories of its five strangers, the user's own titles left out, one by one."""
    pocket, splits = few
    test = data.sample(splits.test, 8, seed=0)
    found = evaluate(pocket, test, splits, Config(model="pocket", ranking="exact", faa_examples=4))

    def gain(history, example):
        ranked = rank_catalogue(pocket, [history], splits.catalogue, len(splits.catalogue))[0]
        shown = [title for title, _ in ranked if title not in example.history][:10]
        return 1 / math.log2(shown.index(example.target) + 2) if example.target in shown else 0.0

    for i, drawn in enumerate(stranger.strangers_of(test, 5, seed=0)[:3]):
        others = np.mean([gain(test[j].history, test[i]) for j in drawn])
        assert found.ndcg_minus_stranger[i] == pytest.approx(gain(test[i].history, test[i]) - others, abs=1e-4)


@pytest.mark.model
def test_a_training_starts_from_the_adapter_that_is_given(smollm2, splits):
    examples, lora = data.sample(splits.train, 8, seed=0), LoraConfig(r=4, task_type="CAUSAL_LM")
    tiny = training.arguments(smollm2, max_steps=2, batch_size=4, learning_rate=1e-2)
    start = training.finetune(smollm2, examples, "sft", tiny, lora=lora, progress=False)
    still = training.arguments(smollm2, max_steps=1, batch_size=4, learning_rate=1e-12)
    again = training.finetune(smollm2, examples, "sft", still, lora=lora, start=start.lm, progress=False)
    encoded = [smollm2.encode(e.history, e.target) for e in examples[:2]]
    one, other, before = (torch.cat(target_logprobs(model, encoded)) for model in (start.lm, again.lm, smollm2))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)
    assert (one - before).abs().max() > 0.1
    with pytest.raises(ValueError, match="same `lora`"):
        training.finetune(smollm2, examples, "sft", still, lora=LoraConfig(r=2), start=start.lm, progress=False)
