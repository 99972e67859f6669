"""The learning curve does not disturb the training, and survives a kill; the thinned log keeps its means."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import Kill
from hypothesis import given
from hypothesis import strategies as st

from gdrt_lite import data, lm, training
from gdrt_lite.training import learning_curve


@pytest.fixture(scope="module")
def examples(splits):
    return data.sample(splits.train, 48, seed=0)


def watch(pocket, examples):
    probe = [pocket.encode(e.history, e.target) for e in examples[:4]]
    return learning_curve.LearningCurve(
        pocket, lambda model: {"NLL": -float(torch.cat(lm.target_logprobs(model, probe)).sum())}
    )


def tune(pocket, examples, callbacks, **settings):
    rest = {"resume": settings.pop("resume", False), "callbacks": callbacks, "progress": False}
    args = training.arguments(pocket, epochs=2, batch_size=16, **settings)
    return training.finetune(pocket, examples, "sft", args, **rest)


def test_the_curve_has_a_row_an_epoch_and_leaves_the_training_as_it_was(pocket, examples):
    watched = watch(pocket, examples)
    run, plain = tune(pocket, examples, [watched]), tune(pocket, examples, [])
    assert run.history.loss.tolist() == plain.history.loss.tolist()
    assert [(row["epoch"], row["step"]) for row in watched.rows] == [(1, 3), (2, 6)]
    # The last row is the tuned model itself.
    assert watched.rows[-1]["NLL"] == watch(pocket, examples).measure(run.lm)["NLL"] < watched.rows[0]["NLL"]


def test_the_curve_counts_optimiser_steps_and_no_micro_batches(pocket, examples):
    watched = watch(pocket, examples)
    tune(pocket, examples, [watched], gradient_accumulation_steps=2)
    assert [(row["epoch"], row["step"]) for row in watched.rows] == [(1, 3), (2, 6)]


@pytest.mark.parametrize("save_every", [2, 3])  # the last checkpoint lies within an epoch, or at its end
def test_a_resumed_training_has_the_whole_curve(pocket, examples, tmp_path, save_every):
    whole, dies, resumed = (watch(pocket, examples) for _ in range(3))
    tune(pocket, examples, [whole])
    with pytest.raises(KeyboardInterrupt):
        tune(pocket, examples, [dies, Kill(5)], output=tmp_path, save_every=save_every)
    tune(pocket, examples, [resumed], output=tmp_path, save_every=save_every, resume=True)
    assert resumed.rows == whole.rows


@given(steps=st.integers(1, 60), rows=st.integers(1, 20))
def test_thinning_keeps_the_means(steps, rows):
    loss = np.arange(steps, dtype=float) ** 2
    history = pd.DataFrame({"step": np.arange(1, steps + 1), "loss": loss})
    short = learning_curve.downsample(history, rows)
    assert len(short) <= rows and short.step.iloc[-1] == steps
    lengths = np.diff(np.r_[0, short.step])
    assert (short.loss * lengths).sum() / steps == pytest.approx(loss.mean())


def test_thinning_leaves_absent_groups_out():
    history = pd.DataFrame({"step": [1, 2, 3, 4], "loss_g0": [1.0, np.nan, np.nan, np.nan]})
    assert learning_curve.downsample(history, 2).loss_g0.tolist()[0] == 1.0
    assert np.isnan(learning_curve.downsample(history, 2).loss_g0.tolist()[1])
    with pytest.raises(ValueError, match="rows=0"):
        learning_curve.downsample(history, 0)
