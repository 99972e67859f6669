"""Co-occurrence rates and PMI against hand counts and a naive triple loop."""

from __future__ import annotations

import math
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from gdrt_lite import cooccurrence
from gdrt_lite.data import Example
from gdrt_lite.prompts import Prompt

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import cooccurrence_arms as arms_script  # noqa: E402

PROMPT = Prompt(before="the user saw", bullet=" -", after=" next -")


class Words:
    """A tokenizer with one token a word."""

    eos_token_id, all_special_ids, all_special_tokens = 0, [0], ["<eos>"]
    unk_token_id = chat_template = None
    added_tokens_decoder: dict = {}

    def __init__(self):
        self.known = ["<eos>"]

    def __len__(self):
        return 1000  # as a tokenizer has them, known beforehand

    def __call__(self, text, add_special_tokens=False):
        for word in text.split():
            if word not in self.known:
                self.known.append(word)
        return {"input_ids": [self.known.index(w) for w in text.split()]}

    def decode(self, ids):
        return " ".join(self.known[i] for i in ids)

    def convert_ids_to_tokens(self, ids):
        return [self.known[i] for i in ids]


def examples(n: int, seed: int = 0) -> list[Example]:
    rng = random.Random(seed)
    titles = ["red sun", "red moon", "blue sun", "moon red moon", "green", "blue blue", "moon red"]
    return [Example("u", tuple(rng.sample(titles, 3)), rng.choice(titles), i) for i in range(n)]


def naive(data: list[Example]) -> dict[tuple[str, str, str], dict[str, float]]:
    """Every pair of every segment, counted example by example."""
    sets = []
    for example in data:
        target = [*example.target.split(), "<eos>"]
        first = {v: target.index(v) for v in target}
        sets.append(
            {
                "target": set(target),
                "TASK": {"the", "user", "saw", "-", "next"},
                "HISTORY": {w for title in example.history for w in title.split()},
                "PREFIX": {w for w in target if first[w] < max(first.values())},
                "before": {(s, v) for s in first for v in first if first[s] < first[v]},
            }
        )
    found = {}
    n = len(data)
    for segment in ("TASK", "HISTORY", "PREFIX"):
        for s in set().union(*(own[segment] for own in sets)):
            for v in set().union(*(own["target"] for own in sets)):
                together = sum(
                    v in own["target"] and s in own[segment] and (segment != "PREFIX" or (s, v) in own["before"])
                    for own in sets
                )
                if together:
                    has_s, has_v = sum(s in own[segment] for own in sets), sum(v in own["target"] for own in sets)
                    pmi = math.log(together * n / (has_s * has_v))
                    npmi = 0.0 if together == n else pmi / -math.log(together / n)
                    found[segment, s, v] = {"count": together, "rate": together / has_v, "pmi": pmi, "npmi": npmi}
    return found


@pytest.mark.parametrize("n", [1, 2, 40])
def test_rates_agree_with_a_triple_loop(n):
    data = examples(n)
    table = cooccurrence.rates(data, Words(), PROMPT).set_index(["segment", "source", "target"])
    expected = naive(data)
    assert set(table.index) == set(expected) and table.index.is_unique
    for key, values in expected.items():
        assert table.loc[key, list(values)].to_dict() == pytest.approx(values)
    assert table.npmi.between(-1 - 1e-9, 1 + 1e-9).all() and table.rate.between(0, 1).all()


def test_by_hand():
    data = [
        Example("u", ("red sun",), "blue moon", 0),
        Example("u", ("red moon",), "blue sun", 1),
        Example("u", ("green",), "blue sun", 2),
        Example("u", ("red sun",), "green", 3),
    ]
    table = cooccurrence.rates(data, Words(), PROMPT).set_index(["segment", "source", "target"])
    assert table.loc[("HISTORY", "red", "blue"), "rate"] == pytest.approx(2 / 3)
    assert table.loc[("HISTORY", "red", "blue"), "pmi"] == pytest.approx(math.log((2 / 4) / (3 / 4 * 3 / 4)))
    assert table.loc[("PREFIX", "blue", "sun"), "rate"] == 1
    assert ("PREFIX", "sun", "blue") not in table.index  # sun never stands before blue


def test_a_constant_token_has_rate_one_and_no_information():
    task = cooccurrence.rates(examples(40), Words(), PROMPT).query("segment == 'TASK'")
    assert (task.rate == 1).all() and (task.pmi.abs() < 1e-12).all() and (task.npmi.abs() < 1e-12).all()


def test_summary_averages_the_pairs_that_occur():
    table = cooccurrence.rates(examples(40), Words(), PROMPT)
    summary = cooccurrence.summary(table)
    assert list(summary.index) == ["TASK", "HISTORY", "PREFIX"]
    own = table[table.segment == "HISTORY"]
    assert summary.loc["HISTORY", "mean_rate"] == pytest.approx(sum(own.rate) / len(own))
    assert summary.loc["HISTORY", "mean_abs_pmi"] == pytest.approx(sum(map(abs, own.pmi)) / len(own))
    assert summary.loc["HISTORY", "pairs"] == len(own)


def test_no_example_is_refused():
    with pytest.raises(ValueError, match="examples is empty"):
        cooccurrence.rates([], Words(), PROMPT)


@pytest.fixture(scope="module")
def arms_of_the_causal_test():
    """The arms as notebook 02 defines them."""
    names = {"pick": arms_script.pick, "n_train": 10, "n_test": 10}
    arms_script.run_cells(arms_script.sources(["02"])[0], names, {"imports", "arms"}, first=2)
    return names["arms"]


def test_nonsense_keeps_all_but_the_words(arms_of_the_causal_test):
    """The arms that tell length from rate differ from `fixed` in their words alone."""
    fixed, constant = arms_of_the_causal_test["fixed"], arms_of_the_causal_test["nonsense"]
    changing = arms_of_the_causal_test["random nonsense"].variants
    letters = re.compile("[A-Za-z]+")
    for prompt in (constant, *changing[:20]):
        assert prompt.bullet == fixed.bullet
        for ours, theirs in ((fixed.before, prompt.before), (fixed.after, prompt.after)):
            assert letters.sub("w", ours) == letters.sub("w", theirs)
        pairs = list(zip(*(letters.findall((p.before + p.after).lower()) for p in (fixed, prompt)), strict=True))
        translation = dict(pairs)
        assert all(translation[word] == made_up for word, made_up in pairs), "one word is always replaced by the same word"
        assert len(set(translation.values())) == len(translation) and not set(translation) & set(translation.values())
    words = [set(letters.findall(prompt.before + prompt.after)) for prompt in changing]
    assert max(np.mean([word in own for own in words]) for word in set().union(*words)) < 0.2, "each word in few examples"


def test_an_unknown_arm_is_named():
    with pytest.raises(SystemExit, match="no arm fxied; choose among fixed, rotating, none, nonsense"):
        arms_script.main(1, ["fxied"])
