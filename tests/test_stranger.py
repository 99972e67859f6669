"""Own minus stranger: equal to scoring each prompt by itself, and signed so that a history that helps is positive."""

from __future__ import annotations

import numpy as np
import pytest

from gdrt_lite import data, stranger


@pytest.fixture(scope="module")
def examples(splits):
    return data.sample(splits.test, 6, seed=3)


def alone(model, history, target) -> float:
    """log P(target | history) by one plain forward of the model."""
    import torch

    prompt = model.encode(history, target)
    with torch.inference_mode():
        logprobs = model.model(torch.tensor([prompt.ids])).logits[0].log_softmax(-1)
    return sum(float(logprobs[place, label]) for place, label in zip(prompt.predict_at, prompt.labels, strict=True))


def test_the_matrix_of_histories_and_titles_is_that_of_single_prompts(pocket, examples):
    histories, titles = [e.history for e in examples[:3]], [e.target for e in (*examples[:4], examples[0])]
    found = stranger.title_logprobs(pocket, histories, titles)
    expected = [[alone(pocket, history, title) for title in titles] for history in histories]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_own_minus_stranger_is_the_plain_difference(pocket, examples):
    table = stranger.own_minus_stranger(pocket, examples, strangers=2, seed=1)
    drawn = stranger.strangers_of(examples, 2, seed=1)
    for i, example in enumerate(examples):
        others = [alone(pocket, examples[s].history, example.target) for s in drawn[i]]
        assert table.own[i] == pytest.approx(alone(pocket, example.history, example.target), rel=1e-4)
        assert table.stranger[i] == pytest.approx(np.mean(others), rel=1e-4)
        assert table.spread[i] == pytest.approx(np.std(others), abs=1e-3)
        assert table.difference[i] == pytest.approx(table.own[i] - table.stranger[i])


@pytest.mark.parametrize("seed", range(5))
def test_strangers_are_others_drawn_without_repetition(examples, seed):
    for i, drawn in enumerate(stranger.strangers_of(examples, 3, seed)):
        assert len(set(drawn)) == 3 and all(examples[s].user != examples[i].user for s in drawn)


def test_too_few_users_are_said(examples):
    with pytest.raises(ValueError, match=r"fewer than strangers=6; add users"):
        stranger.strangers_of(examples, 6)
    with pytest.raises(ValueError, match="strangers=0 is out of range"):
        stranger.strangers_of(examples, 0)
