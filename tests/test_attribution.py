"""FAA against captum's LLMAttribution and a plain loop; what each kind of ablation does to a prompt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gdrt_lite import attribution, lm, relevance
from gdrt_lite.ablation import ABLATIONS, ablate
from gdrt_lite.data import Example
from gdrt_lite.prompts import HISTORY, PREFIX, TARGET, TASK

TITLES = (
    "Toy Story (1995)",
    "Heat (1995)",
    "Alien (1979)",
    "Aliens (1986)",
    "Jumanji (1995)",
    "Casino (1995)",
)
EXAMPLES = [
    Example("1", TITLES[:3], TITLES[3], 0),
    Example("1", TITLES[1:3], TITLES[4], 1),
    Example("2", TITLES[3:], TITLES[0], 2),
    Example("3", TITLES[:1], TITLES[5], 3),
    Example("4", TITLES[2:5], TITLES[1], 4),
]


def prompt_loop(model, row, ablation, donor):
    """A_g(t) by one forward pass per segment, no captum and no batching."""
    neutral = attribution.neutral_id(model)

    def score(prompt):
        with torch.no_grad():
            mask = torch.tensor([prompt.attend])
            logits = model.model(
                torch.tensor([prompt.ids]), attention_mask=mask, position_ids=torch.arange(len(prompt))[None]
            )
        logprobs = logits.logits[0].log_softmax(-1)
        return torch.stack([logprobs[p, label] for p, label in zip(prompt.predict_at, prompt.labels, strict=True)])

    whole = score(row)
    return torch.stack(
        [whole - score(ablate(row, s, ablation, neutral, donor)) for s in (TASK, HISTORY, PREFIX)],
        1,
    )


@pytest.mark.parametrize("ablation", ABLATIONS)
@given(
    prompts=st.lists(
        st.tuples(st.lists(st.sampled_from(TITLES), min_size=1, max_size=5), st.sampled_from(TITLES)), min_size=2, max_size=5
    ),
    seed=st.integers(0, 9),
)
@settings(max_examples=8, deadline=None)
def test_equals_a_plain_loop(pocket, ablation, prompts, seed):
    examples = [Example(str(i), tuple(history), target, i) for i, (history, target) in enumerate(prompts)]
    frame = attribution.feature_ablation(pocket, examples, ablation, seed=seed, batch_size=2)
    rows = [pocket.encode(example.history, example.target) for example in examples]
    for i, row in enumerate(rows):
        wide = frame[frame.example == i].pivot(index="position", columns="segment", values="attribution")
        found = wide[["TASK", "HISTORY", "PREFIX"]].to_numpy()
        assert np.isnan(found[0, 2])  # there is no prefix at t = 0
        # Only `resample` has a donor: one of the other examples, drawn at random.
        donors = [donor for j, donor in enumerate(rows) if j != i] if ablation == "resample" else [row]
        loops = [prompt_loop(pocket, row, ablation, donor).double().numpy() for donor in donors]
        for loop in loops:
            loop[0, 2] = np.nan
        assert any(np.allclose(found, loop, atol=1e-4, rtol=1e-7, equal_nan=True) for loop in loops)


def test_equals_captums_llm_attribution_on_the_real_model(smollm2):
    from captum.attr import FeatureAblation, LLMAttribution, TextTemplateInput

    frame = attribution.feature_ablation(smollm2, EXAMPLES, "delete")
    prompt = smollm2.prompt
    for i, example in enumerate(EXAMPLES):
        n = len(example.history)
        values = [prompt.before + prompt.bullet, " " + example.history[0]]
        for title in example.history[1:]:
            values += [prompt.bullet, " " + title]
        values.append(prompt.after)
        is_history = [position % 2 for position in range(2 * n + 1)]
        template = TextTemplateInput("{}" * len(values), values, baselines=[""] * len(values), mask=is_history)
        row = smollm2.encode(example.history, example.target)
        text = template.to_model_input()
        assert smollm2.tokenizer(text, add_special_tokens=False)["input_ids"] == list(row.ids[: row.predict_at[0] + 1])

        class Plain:
            """The tokenizer without special tokens, as captum calls it."""

            def __call__(self, text, **kwargs):
                return smollm2.tokenizer(text, **{**kwargs, "add_special_tokens": False})

            def __getattr__(self, name):
                return getattr(smollm2.tokenizer, name)

        peer = LLMAttribution(FeatureAblation(smollm2.model), Plain())
        target = torch.tensor(row.labels)
        result = peer.attribute(template, target=target, skip_tokens=[], use_cached_outputs=False, num_trials=1)
        theirs = result.token_attr  # (T, features): TASK is feature 0, HISTORY feature 1, repeated per piece
        first_of = {0: 0, 1: 1}
        ours = frame[frame.example == i].pivot(index="position", columns="segment", values="attribution")
        np.testing.assert_allclose(ours["TASK"], theirs[:, first_of[0]].cpu(), atol=1e-3)
        np.testing.assert_allclose(ours["HISTORY"], theirs[:, first_of[1]].cpu(), atol=1e-3)


@pytest.mark.parametrize("segment", [TASK, HISTORY, PREFIX])
def test_attention_ablation_hides_every_masked_token(pocket, segment):
    """Whatever stands in a masked segment, the scores stay the same: nothing leaks, not even through the query's own
    slot."""
    whole = pocket.encode(TITLES[:2], TITLES[3])
    label = TARGET if segment == PREFIX else segment
    vocabulary = len(pocket.tokenizer)
    swapped = replace(
        whole,
        ids=tuple((i + 7) % vocabulary if s == label else i for i, s in zip(whole.ids, whole.segments, strict=True)),
    )
    (seen,), (other,) = (lm.target_logprobs(pocket, [row]) for row in (whole, swapped))
    assert (seen - other).abs().max() > 1e-3  # unmasked, the swap shows
    neutral = attribution.neutral_id(pocket)
    (seen,), (other,) = (
        lm.target_logprobs(pocket, [ablate(row, segment, "attention", neutral)]) for row in (whole, swapped)
    )
    torch.testing.assert_close(seen, other, atol=1e-6, rtol=0)


@given(st.integers(0, 5), st.integers(0, 5), st.sampled_from((TASK, HISTORY, PREFIX)))
@settings(max_examples=30, deadline=None)
def test_deleting_leaves_the_other_tokens_in_order(pocket, n, target, segment):
    row = pocket.encode(TITLES[:n], TITLES[target])
    if segment == TASK and n == 0:
        with pytest.raises(ValueError, match="leaves no token before"):
            ablate(row, segment, "delete", 0)
        return
    cut = ablate(row, segment, "delete", 0)
    label = TARGET if segment == PREFIX else segment
    assert cut.ids == tuple(i for i, s in zip(row.ids, row.segments, strict=True) if s != label)
    assert cut.labels == row.labels and len(cut.predict_at) == len(row.predict_at)
    if segment == PREFIX:
        assert set(cut.predict_at) == {len(cut) - 1}


def test_resampling_puts_the_donors_titles_in(pocket):
    row, donor = pocket.encode(TITLES[:3], TITLES[3]), pocket.encode(TITLES[4:6], TITLES[0])
    swapped = ablate(row, HISTORY, "resample", 0, donor)
    assert swapped == pocket.encode((TITLES[4], TITLES[5], TITLES[4]), TITLES[3])


def test_resampling_a_fixed_prompt_changes_nothing(pocket):
    frame = attribution.feature_ablation(pocket, EXAMPLES, "resample")
    # Not exactly 0: the two copies of a prompt may be scored in different batches.
    assert frame[frame.segment == "TASK"].attribution.abs().max() < 1e-4


def test_batch_size_does_not_matter(pocket):
    one = attribution.feature_ablation(pocket, EXAMPLES, batch_size=1)
    all_ = attribution.feature_ablation(pocket, EXAMPLES, batch_size=5)
    np.testing.assert_allclose(one.attribution, all_.attribution, atol=1e-4)


def test_the_bias_ratio_counts_every_user_alike():
    """User a has |A| of 2, 1 and 4, user b of 7, 2 and 6; the mean over their tokens would give another ratio."""
    import pandas as pd

    rows = [("a", "TASK", 1.0, 10), ("a", "TASK", -3.0, 10), ("a", "HISTORY", 0.5, 5), ("a", "HISTORY", 1.5, 5)]
    rows += [("a", "PREFIX", np.nan, 0), ("a", "PREFIX", 4.0, 2)]
    rows += [("b", "TASK", 7.0, 10), ("b", "HISTORY", 2.0, 5), ("b", "PREFIX", 6.0, 2)]
    frame = pd.DataFrame(rows, columns=["user", "segment", "attribution", "n_tokens"])
    assert attribution.bias_ratio(frame) == pytest.approx((4.5 + 5) / 1.5)
    table = attribution.segment_table(frame)
    assert table.mean_signed["TASK"] == pytest.approx(5 / 3)
    assert table.mean_abs_per_token["PREFIX"] == pytest.approx((2 + 3) / 2)
    assert (
        attribution.bias_ratio(frame.assign(attribution=frame.attribution.where(frame.segment != "HISTORY", 0.0))) == np.inf
    )


def test_each_user_has_the_mean_size_of_the_attributions_of_a_segment():
    """User a has one attribution below zero; the missing one of PREFIX, at its first token, counts for nothing."""
    import pandas as pd

    frame = pd.DataFrame(
        [
            ("a", "TASK", 1.0), ("a", "TASK", -3.0), ("a", "HISTORY", 0.5), ("a", "HISTORY", 1.5), ("a", "PREFIX", np.nan),
            ("a", "PREFIX", 4.0), ("b", "TASK", 7.0), ("b", "HISTORY", 2.0), ("b", "PREFIX", 6.0),
        ],
        columns=["user", "segment", "attribution"],
    )  # fmt: skip
    table = attribution.mean_abs_per_user(frame)
    assert table.loc["a"].to_dict() == {"TASK": 2.0, "HISTORY": 1.0, "PREFIX": 4.0}
    assert table.loc["b"].to_dict() == {"TASK": 7.0, "HISTORY": 2.0, "PREFIX": 6.0}


def test_the_token_map_covers_the_prompt(pocket):
    table = attribution.token_attribution(pocket, EXAMPLES[0])
    row = pocket.encode(EXAMPLES[0].history, EXAMPLES[0].target)
    assert "".join(table.token) == pocket.tokenizer.decode(row.ids[: row.predict_at[0] + 1])
    neutral = attribution.neutral_id(pocket)
    blank = replace(row, ids=row.ids[:7] + (neutral,) + row.ids[8:])
    whole, without = (float(s.sum()) for s in lm.target_logprobs(pocket, [row, blank]))
    assert table.attribution[7] == pytest.approx(whole - without, abs=1e-4)


@pytest.mark.parametrize(
    "examples, ablation, message",
    [
        ([], "token", "examples is empty"),
        (EXAMPLES, "dropout", "'dropout' is unknown"),
        (EXAMPLES[:1], "resample", "two examples"),
        ([Example("7", (), TITLES[0], 0)], "token", "user 7.*empty history"),
    ],
)
def test_bad_input_is_named(pocket, examples, ablation, message):
    with pytest.raises(ValueError, match=message):
        attribution.feature_ablation(pocket, examples, ablation)


def test_relevance_is_the_score_of_a_target_without_history(pocket):
    found = relevance.token_relevance(pocket, [TITLES[0], TITLES[1], TITLES[0]])
    assert list(found) == sorted({TITLES[0], TITLES[1]})
    for title, scores in found.items():
        expected = lm.target_logprobs(pocket, [pocket.encode((), title)])[0]
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="titles is empty"):
        relevance.token_relevance(pocket, [])
