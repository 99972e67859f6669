"""Prompts: tokens and segments, by hand on the pocket tokenizer."""

from __future__ import annotations

import pytest

from gdrt_lite import prompts
from gdrt_lite.prompts import HISTORY, TARGET, TASK

HISTORY_TITLES = ("Toy Story (1995)", "Heat (1995)", "Alien (1979)")


def decode(lm, ids):
    return lm.tokenizer.decode(list(ids), skip_special_tokens=False)


def test_segments_spell_out_the_prompt(pocket):
    row = pocket.encode(HISTORY_TITLES, "Aliens (1986)")
    text = {s: decode(pocket, [row.ids[p] for p in row.positions(s)]) for s in (TASK, HISTORY, TARGET)}
    assert text[HISTORY] == " Toy Story (1995) Heat (1995) Alien (1979)"
    assert text[TARGET] == " Aliens (1986)<eos>"
    assert text[TASK] == prompts.DEFAULT.before + "\n-" * 3 + prompts.DEFAULT.after
    assert decode(pocket, row.ids) == (
        prompts.DEFAULT.before + "".join(f"\n- {t}" for t in HISTORY_TITLES) + prompts.DEFAULT.after + " Aliens (1986)<eos>"
    )


def test_labels_are_the_target_read_one_position_earlier(pocket):
    row = pocket.encode(HISTORY_TITLES, "Aliens (1986)")
    assert [row.ids[p + 1] for p in row.predict_at] == list(row.labels)
    assert row.segments[row.predict_at[0]] == TASK
    assert row.labels[-1] == pocket.tokenizer.eos_token_id


def test_a_title_has_the_same_tokens_in_history_and_target(smollm2):
    title = "Star Wars: Episode IV - A New Hope (1977)"
    row = smollm2.encode((title,), title)
    shown = [row.ids[p] for p in row.positions(HISTORY)]
    assert shown == list(row.labels[:-1])


def test_joint_tokenisation_equals_the_segment_wise_one_on_the_real_model(smollm2):
    row = smollm2.encode(HISTORY_TITLES, "Aliens (1986)")
    joint = smollm2.tokenizer(smollm2.tokenizer.decode(row.ids[:-1]), add_special_tokens=False)["input_ids"]
    assert joint == list(row.ids[:-1])


def test_a_long_history_loses_its_oldest_titles_never_the_target(pocket):
    whole = pocket.encode(HISTORY_TITLES, "Aliens (1986)")
    cut = pocket.prompt.encode(pocket.tokenizer, HISTORY_TITLES, "Aliens (1986)", max_length=len(whole) - 1)
    newest_two = pocket.encode(HISTORY_TITLES[1:], "Aliens (1986)")
    assert cut == newest_two


def test_a_window_too_short_for_the_target_is_an_error_that_names_the_need(pocket):
    need = len(pocket.encode((), "Aliens (1986)"))
    with pytest.raises(ValueError, match=f"need {need} tokens"):
        pocket.prompt.encode(pocket.tokenizer, HISTORY_TITLES, "Aliens (1986)", max_length=need - 1)
    with pytest.warns(UserWarning, match="cut away"):
        assert len(pocket.prompt.encode(pocket.tokenizer, HISTORY_TITLES, "Aliens (1986)", max_length=need)) == need


def test_a_blank_title_is_an_error(pocket):
    with pytest.raises(ValueError, match="blank"):
        pocket.encode(("  ",), "Heat (1995)")


def test_the_rotating_wording_depends_on_the_history_alone():
    rotating = prompts.PARAPHRASES
    assert rotating.variant(HISTORY_TITLES, "a") == rotating.variant(HISTORY_TITLES, "b")
    used = {rotating.variant((f"title {i}",), None) for i in range(200)}
    assert used == set(rotating.variants)
