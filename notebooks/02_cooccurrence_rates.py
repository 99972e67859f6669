# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Why would it learn to?
#
# Notebook 01 measured that a model leans on words that know nothing about the user. Why would training teach it that? The summary of the
# paper that we have read answers that those words are *always there*. We first count how often they are, and ask what that is worth.
# Then we do what counting cannot do: we change the suspected cause, and measure whether the effect changes with it.
#
# After this notebook you can:
#
# - **count** how often two tokens meet, by hand and on a corpus,
# - **distinguish** a rate from information, and show that a constant token has the first without the second,
# - **design** a causal test, and say beforehand which result would refute the claim,
# - **run** it on a model small enough to train in a lesson, and **judge** the result.
#
# *Prerequisites:* logarithms, and from notebook 01 the word *attribution*.

# %% tags=["setup"] cellView="form" jupyter={"source_hidden": true}
# @title Setup: the clone around this notebook, else the installed package, else pip installs it
import os, subprocess, sys; from importlib import invalidate_caches, metadata
if os.path.exists("../gdrt_lite/__init__.py"): sys.path.insert(0, os.path.abspath(".."))
try: import gdrt_lite.course
except ImportError:  # pip keeps the torch and numpy that are there, so that nothing has to be restarted
    source = os.environ.get("GDRT_LITE_SOURCE") or "git+https://github.com/gdrt-lite/gdrt_lite"
    print(f"Installing {source} takes minutes; GDRT_LITE_SOURCE can name a wheel or a clone.", flush=True)
    kept = {f"{d.name}=={d.version}" for d in metadata.distributions() if d.name in ("torch", "numpy")}
    subprocess.run([sys.executable, "-m", "pip", "install", source, *kept], check=True)
    sys.modules.pop("gdrt_lite", None); invalidate_caches()  # a mere folder of that name may have been found
from gdrt_lite import plots; from gdrt_lite.course import checks
from gdrt_lite.course.notebook import card, pick, say

# %% tags=["card"]
card("02")

# %% tags=["imports"] jupyter={"source_hidden": true}
import math
import random
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from IPython.display import display
from scipy import stats

from gdrt_lite import attribution, cooccurrence, data, lm, metrics, prompts, training
from gdrt_lite.course.notebook import predict, reveal
from gdrt_lite.data import Example
from gdrt_lite.plots import canvas
from gdrt_lite.prompts import Prompt, RotatingPrompt

# %% [markdown] tags=["paper"]
# > **Mechanism 1, as the summary of the paper that we have read calls it.** Task words and prefix words occur together with target words more
# > often than the user's words do, and maximum likelihood takes this shortcut. The summary also names a *break condition*: if the rates were
# > balanced when the data are made, the mechanism would not explain the bias. It reports the rates, and does not change them.

# %% [markdown]
# ## 1. Count how often words meet
#
# Five users have watched movies with one-word titles. The prompt always opens with the same word.

# %% tags=["needed"]
five = [
    Example("u1", ("Alien", "Heat"), "Aliens", 0),
    Example("u2", ("Heat", "Fargo"), "Casino", 0),
    Example("u3", ("Alien", "Fargo"), "Aliens", 0),
    Example("u4", ("Big", "Heat"), "Fargo", 0),
    Example("u5", ("Alien", "Big"), "Casino", 0),
]
# Per example: the words before the target, the words of the target.
seen = [(["Next", *example.history], [example.target]) for example in five]

# %% [markdown]
# The **co-occurrence rate** of a source word $s$ with a target word $v$ is a share: of the examples whose target holds $v$, how many have
# $s$ in front of it?
#
# $$\text{rate}(s, v) = P(s \text{ in the segment} \mid v \text{ in the target})$$

# %% [markdown]
# ### Exercise 02.1 · A rate by counting
#
# *Difficulty 1/5 · importance 4/5 · 8 minutes*
#
# `seen` holds a pair of lists per example: words in front, words of the target. The target word occurs at least once.

# %% tags=["exercise"]
def rate(seen: Sequence[tuple[list[str], list[str]]], source: str, target: str) -> float:
    """P(source among the words in front | target among the words of the target)."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("02.1", rate);

# %% [markdown]
# <details><summary>My rates are too small</summary>
#
# Which examples stand below the fraction bar? Only those that hold the target word.
# </details>
#
# <details><summary>It works for some pairs and not for others</summary>
#
# Given the *target*, not given the source. Cover the examples without the target word with your hand and count again.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 02.1
def rate(seen: Sequence[tuple[list[str], list[str]]], source: str, target: str) -> float:
    """P(source among the words in front | target among the words of the target)."""
    holding = [front for front, targets in seen if target in targets]
    return sum(source in front for front in holding) / len(holding)

checks.check("02.1", rate);

# %%
words = ["Next", "Alien", "Heat", "Fargo", "Big"]
by_hand = pd.DataFrame({v: {s: rate(seen, s, v) for s in words} for v in ("Aliens", "Casino", "Fargo")})
by_hand

# %% [markdown]
# Each column is a target, and each row is a word in front of it. `Next` has rate one with every target, so by this measure no other word is as
# closely linked to the targets.
#
# The helper does the same with tokens, and keeps three segments apart: TASK (our words), HISTORY (the user's) and PREFIX (the part of the
# title that is already written). Both must agree:

# %%
tiny = Prompt("Movies seen:", after="\nNext:\n-")
tokenizer = lm.pocket(sorted({t for e in five for t in (*e.history, e.target)}), tiny).tokenizer
table = cooccurrence.rates(five, tokenizer, tiny)
for row in table[table.segment.isin(["TASK", "HISTORY"]) & table.target.str.strip().isin(by_hand.columns)].itertuples():
    if row.source.strip() in words:
        assert math.isclose(row.rate, by_hand.loc[row.source.strip(), row.target.strip()])
table.loc[table.target == " Aliens", ["segment", "source", "target", "count", "source_count", "target_count", "rate"]].head(9)

# %% [markdown]
# Next comes the real corpus: training examples of MovieLens, split by the tokenizer of the real model.

# %%
predict("02.a", "Which segment has the highest mean rate, and how many times that of HISTORY?", ...)

# %%
splits = data.load_movielens(500).split("new_users", history=5)
smollm2 = lm.load("smollm2-135m").tokenizer
corpus = data.sample(splits.train, pick(quick=6000, standard=len(splits.train), full=len(splits.train)), seed=0)
counted = cooccurrence.rates(corpus, smollm2, prompts.DEFAULT)
cooccurrence.summary(counted)[["mean_rate", "pairs"]].round(3)

# %% jupyter={"source_hidden": true}
mean = cooccurrence.summary(counted).mean_rate
say(
    "A task token stands beside a target token in **{task:.0%}** of the cases, a prefix token in **{prefix:.0%}**, a history token in "
    "**{history:.1%}** (the mean over pairs that occur, each counted once). The asymmetry that the summary speaks of is there: {times:.0f} to 1 for TASK, "
    "{p_times:.1f} to 1 for PREFIX.",
    task=mean["TASK"], prefix=mean["PREFIX"], history=mean["HISTORY"], times=mean["TASK"] / mean["HISTORY"],
    p_times=mean["PREFIX"] / mean["HISTORY"],
)

# %% [markdown]
# So the premise is right. The next section asks whether the conclusion follows from it.
#
# ## 2. A rate is not information
#
# Suppose that you do not know the target, and somebody tells you that the prompt contains the word *Next*. You have learned nothing, because
# all prompts contain it. What matters is not how often two words meet, but how much *more* often than they would by chance:
#
# $$\text{PMI}(s, v) = \log \frac{P(s, v)}{P(s)\,P(v)} = \log \frac{\text{rate}(s, v)}{P(s)}$$
#
# This is the *pointwise mutual information*. A token that is in every prompt has $P(s) = 1$ and rate $1$, so
#
# $$\text{PMI} = \log \frac{1}{1} = 0 \quad \text{for every target } v.$$
#
# Such a token has the highest possible rate, and it carries no information at all.

# %% [markdown]
# ### Exercise 02.2 · What a pair is worth
#
# *Difficulty 2/5 · importance 5/5 · 8 minutes*
#
# Return the PMI in nats. You may assume that the pair occurs.

# %% tags=["exercise"]
def pmi(seen: Sequence[tuple[list[str], list[str]]], source: str, target: str) -> float:
    """log P(source, target) / (P(source) P(target)), in nats."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("02.2", pmi);

# %% [markdown]
# <details><summary>Next comes out different from zero</summary>
#
# Write down its three probabilities for one target; two of them cancel. Did you divide every count by the number of examples?
# </details>
#
# <details><summary>All my values are at most zero</summary>
#
# That is the logarithm of the rate. Compare it with how common the source is in all examples.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 02.2
def pmi(seen: Sequence[tuple[list[str], list[str]]], source: str, target: str) -> float:
    """log P(source, target) / (P(source) P(target)), in nats."""
    n = len(seen)
    both = sum(source in front and target in targets for front, targets in seen)
    sources = sum(source in front for front, _ in seen)
    targets = sum(target in targets for _, targets in seen)
    return math.log((both / n) / ((sources / n) * (targets / n)))

checks.check("02.2", pmi);

# %%
for row in table[table.segment == "HISTORY"].itertuples():
    if row.target.strip() in by_hand.columns:
        assert math.isclose(row.pmi, pmi(seen, row.source.strip(), row.target.strip()), abs_tol=1e-9)
task = counted[counted.segment == "TASK"]
assert (task.rate == 1).all() and (task.pmi.abs() < 1e-9).all()
say("On the corpus: all {n:,} TASK pairs have rate 1 and PMI 0. Not on average: every single one.", n=len(task))

# %%
shown = cooccurrence.summary(counted)
title = f"TASK: rate {shown.mean_rate['TASK']:.0f}, information {shown.mean_npmi['TASK']:.0f}"
plots.show(
    plots.cooccurrence_by_segment(counted, title=title),
    alt="Two panels of boxes per segment. Left, rates; right, normalised PMI. Means: "
    + "; ".join(f"{s} rate {shown.mean_rate[s]:.2f}, NPMI {shown.mean_npmi[s]:.2f}" for s in shown.index),
)

# %% [markdown]
# NPMI, on the right, is PMI scaled to lie between minus one and one. For TASK, all rates are one and all values of NPMI are zero.
#
# What then can a model learn about the target from TASK alone? For a constant $s$, $P(v \mid s) = P(v)$. So it can learn **the marginal**, that
# is, how frequent each target is, whoever asks. A large TASK attribution is therefore not yet a list of best-sellers. The task text also tells
# the model *what to do* with the history, and an attribution counts both. Exercise 02.4 comes back to this.
#
# PREFIX has, on average, a higher rate than HISTORY and more information. But what it tells is how a title goes on, which is spelling and not taste.
# (Its median rate is near zero, because most prefix tokens go with few targets. A few frequent pairs raise the mean.)
#
# **The pairs themselves.** Which history tokens tell most about which target tokens? Digits of years and punctuation are left out.

# %%
letters = counted.source.str.contains("[A-Za-z]") & counted.target.str.contains("[A-Za-z]")
often = counted[letters & (counted["count"] >= 50) & (counted.target_count >= 50)]
parts = [often[often.segment == name].nlargest(6, "npmi") for name in ("HISTORY", "PREFIX")]
pd.concat(parts)[["segment", "source", "target", "count", "rate", "pmi", "npmi"]].round(2).reset_index(drop=True)

# %% [markdown]
# Most of the history's best pairs are pieces of film series, whose parts people watch one after the other. That is knowledge about users, and
# it is there to be learned. But no pair of the history comes near the pairs of the prefix in size.
#
# **A control.** Rare pairs have a large PMI by luck, and we average only over pairs that occur. So we shuffle, and give each history the target of
# another example. This cuts all links between history and target, and keeps all frequencies. (A title stays whole, so PREFIX cannot change.)

# %%
predict("02.b", "Once the histories are shuffled, which keeps more of its value: the rate of HISTORY, or its PMI?", ...)

# %%
order = np.random.default_rng(0).permutation(len(corpus))
cut = [replace(example, target=corpus[i].target) for example, i in zip(corpus, order)]
shuffled = cooccurrence.rates(cut, smollm2, prompts.DEFAULT)

def weighted(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean rate and mean PMI per segment, each pair as often as it occurs."""
    parts = frame.groupby("segment")
    return pd.DataFrame({c: parts.apply(lambda p, c=c: np.average(p[c], weights=p["count"])) for c in ("rate", "pmi")})

both = pd.concat({"as it is": weighted(counted), "shuffled": weighted(shuffled)}, axis=1)
both.loc[["TASK", "HISTORY", "PREFIX"]].round(3)

# %% jupyter={"source_hidden": true}
true, chance = weighted(counted).loc["HISTORY"], weighted(shuffled).loc["HISTORY"]
say(
    "With all links cut, the HISTORY rate goes from {r:.3f} to {r0:.3f}: it keeps **{rate_kept:.0%}**. The PMI goes from {p:.4f} to "
    "{p0:.4f} nats: it keeps **{pmi_kept:.0%}**. A rate hardly notices whether there is a link: it counts frequent words. And most of the mean PMI is luck too: "
    "what the link adds is **{link:.3f}** nats. (Weighted by occurrence, as here, the rates of TASK and HISTORY stand {times:.1f} to 1.)",
    times=1 / true.rate, link=true.pmi - chance.pmi, r=true.rate, r0=chance.rate, rate_kept=chance.rate / true.rate, p=true.pmi, p0=chance.pmi, pmi_kept=chance.pmi / true.pmi,
)

# %% [markdown]
# ## 3. Change the cause
#
# Counting alone cannot decide, because two explanations fit the same rates.
#
# - **Mechanism 1:** the model leans on the task text *because* it is always there, and this keeps it from learning the history.
# - **The marginal first:** the model learns spelling and frequencies first, because they are easy and reduce the loss at once. The history
#   is learned slowly. The task text is only where the marginal happens to be stored, and without it, it would be stored elsewhere.
#
# They disagree about one experiment, which is to **change the rate of the task text**. We train the same model in several *arms*, which differ
# in the task text alone:
#
# | arm | task text | rate of its words | its length |
# |---|---|---|---|
# | `fixed` | one wording, in every example | one | long |
# | `rotating` | eight wordings, and each example has one of them | lower | differs |
# | `none` | no words, only a bullet before each title | one, for the bullets | short |
# | `nonsense` | `fixed` with each word replaced by a made-up word | one | as `fixed` |
# | `random nonsense` | the same, with other made-up words in each example | lower | as `fixed` |
# | `wording 2` to `8` | the other wordings of `rotating`, each with a model of its own | one | differs |
#
# `rotating` and `none` change the length and the form along with the rate. The two arms of nonsense have the length of `fixed`, so their
# difference is due to the rate alone. The eight fixed wordings differ in length, at an equal rate.
#
# All this needs a model trained from random initial weights, so that it brings no habits along. The *pocket model* is a tiny Llama that trains
# in a lesson. Its world is small too: the movies rated most, titles without the year, and the last three of them as history.

# %%
n_train, n_test = pick(quick=(2400, 240), standard=(10_000, 700), full=(10_000, 700))  # or all that there are
live = ["fixed", "rotating", "none"]  # the arms that are trained here; a table holds longer trainings

# %% tags=["arms"]
def shorten(example: Example) -> Example:
    """Titles without the year, and without names in brackets."""
    return replace(example, history=tuple(map(short, example.history)), target=short(example.target))

def short(title: str) -> str:
    return re.sub(r" \(.*?\)", "", title)

world = data.load_movielens(50).split("new_users", history=3)
catalogue = sorted({short(title) for title in world.catalogue})
assert len(catalogue) == len(world.catalogue), "no two titles may become one"
train = [shorten(e) for e in data.sample(world.train, n_train)]
test = [shorten(e) for e in data.sample(world.test, n_test)]

SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
MADE_UP = ["".join(random.Random(i).sample(SYLLABLES, 2)) for i in range(200)]

def nonsense(prompt: Prompt, seed: int) -> Prompt:
    """The wording with each word replaced by a made-up one, always the same for the same word; punctuation stays."""
    fresh = iter(random.Random(seed).sample(sorted(set(MADE_UP)), 40))
    translation = defaultdict(lambda: next(fresh))
    before, after = (re.sub("[A-Za-z]+", lambda word: translation[word[0].lower()], text) for text in (prompt.before, prompt.after))
    return replace(prompt, before=before, after=after)

wordings = {f"wording {i}": wording for i, wording in enumerate(prompts.PARAPHRASES.variants[1:], 2)}  # the first is `fixed`
arms = {
    "fixed": prompts.DEFAULT, "rotating": prompts.PARAPHRASES, "none": prompts.NO_TASK,
    "nonsense": nonsense(prompts.DEFAULT, 0),
    "random nonsense": RotatingPrompt(tuple(nonsense(prompts.DEFAULT, seed) for seed in range(512))),
    **wordings,
}

# %%
shown = ["fixed", "rotating", "none", "nonsense", "random nonsense"]
models = {name: lm.pocket(catalogue, arms[name]) for name in shown}
different = next(e for e in test if prompts.PARAPHRASES.variant(e.history, None) != prompts.DEFAULT)
for name, model in models.items():
    print(f"--- {name}\n{model.tokenizer.decode(model.encode(different.history, different.target).ids).strip()}\n")

# %% [markdown]
# First we check what the arms have changed.

# %%
rows = {}
for name, model in models.items():
    own = cooccurrence.rates(train, model.tokenizer, model.prompt)
    rows[name] = cooccurrence.summary(own)[["mean_rate", "mean_abs_pmi"]].stack()
    rows[name]["TASK", "tokens"] = np.mean([len(model.encode(e.history, None).positions(prompts.TASK)) for e in test])
assert rows["nonsense"]["TASK", "tokens"] == rows["random nonsense"]["TASK", "tokens"] == rows["fixed"]["TASK", "tokens"]
pd.DataFrame(rows).T[["TASK", "HISTORY", "PREFIX"]].round(3)

# %% [markdown]
# The mean rate of TASK falls in `rotating` and in `random nonsense`, and HISTORY and PREFIX hardly move. `random nonsense` alone keeps the length of
# `fixed` as well. Where the words change, their mean absolute PMI is above zero, because pairs that occur seldom deviate by chance. What is left of
# TASK in `none` are bullets and line breaks, which occur in every example, so their rate is one.

# %%
predict("02.c", "In which of these five arms will the history be worth most to the model?", ...)

# %% [markdown]
# ### Exercise 02.3 · What would refute it
#
# *Difficulty 3/5 · importance 5/5 · 5 minutes*
#
# All arms are trained on the same examples for the same number of steps, long enough that the model has begun to read its users. Which
# result would speak *against* Mechanism 1?
#
# - **a** The history is worth more in `rotating` and `none` than in `fixed`.
# - **b** The history is worth the same in all arms.
# - **c** The attribution of TASK is smaller in `none`.
# - **d** The attribution of PREFIX is the same in all arms.

# %% tags=["exercise"]
refutes = ...  # "a", "b", "c" or "d"

# %% tags=["check"]
checks.check("02.3", refutes);

# %% [markdown]
# <details><summary>Two answers look right to me</summary>
#
# For each answer, ask what Mechanism 1 predicts. Only a result that it forbids can refute it.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 02.3
refutes = "b"
checks.check("02.3", refutes);

# %% [markdown]
# How do we measure whether a model uses the history? Notebook 01 found two traps. Absolute attribution also counts reactions that do not help, and
# most ablations make prompts that the model has never seen, which affects the arms differently. So we use `resample` (a stranger's history,
# which is on-distribution in every arm), signed, and summed over the title. In words: **by how many nats does the right history make the title
# likelier than a stranger's does?**
#
# What a model *pays* for a title is its negative log-likelihood, in nats. Counting gives two reference values.
#
# - **Upper bound of the price:** a model that knows only the marginal. A model that pays more has not even learned which titles are popular.
# - **Rough size of the gain:** mix the marginal with what followed each of the three titles, and take what the right history saves over a stranger's.

# %%
number = {title: i for i, title in enumerate(catalogue)}
after = np.zeros((len(catalogue), len(catalogue)))  # [earlier, later]
for example in train:
    for title in example.history:
        after[number[title], number[example.target]] += 1 / len(example.history)
marginal = (1 + after.sum(0)) / (1 + after.sum(0)).sum()
by_title = (after + 5 * marginal) / (after.sum(1, keepdims=True) + 5)  # each row a distribution
pay_marginal = np.array([-np.log(marginal[number[e.target]]) for e in test])


def counting_pays(histories: Sequence[Sequence[str]]) -> np.ndarray:
    """Nats that counting pays for each target of the test after these histories, shape (n,)."""
    followers = [np.mean([by_title[number[title]] for title in history], axis=0) for history in histories]
    return np.array([-np.log(p[number[e.target]]) for p, e in zip(followers, test, strict=True)])


order = np.random.default_rng(0).permutation(len(test))
stranger = dict(zip(order, np.roll(order, -1)))
pay_counting = counting_pays([e.history for e in test])
pay_stranger = counting_pays([test[stranger[i]].history for i in range(len(test))])
users = [example.user for example in test]
possible = metrics.paired_bootstrap(pay_stranger, pay_counting, clusters=users)
say(
    "The marginal pays {marginal:.2f} nats per title, a blind guess among the {n} titles {blind:.2f}. Counting what followed what pays {counting:.2f}, and "
    "**{possible:.2f}** more [95% interval] after a stranger's history: so much at least is in the history. (These titles are almost equally frequent, so the "
    "marginal saves next to nothing on the blind guess, and what is easy here is the spelling.)",
    marginal=pay_marginal.mean(), n=len(catalogue), blind=np.log(len(catalogue)), counting=pay_counting.mean(), possible=possible,
)

# %% [markdown]
# Now train three arms live, on the same examples, in the same order, and for the same number of steps.

# %%
seeds = range(pick(quick=1, standard=3, full=5))

# %% tags=["arms"]
runs = {
    (name, seed): training.finetune(
        arms_model, train, "sft",
        training.arguments(arms_model, learning_rate=1e-3, seed=seed, epochs=pick(quick=2, standard=4, full=12)),
    )
    for name in live
    for seed in seeds
    for arms_model in [lm.pocket(catalogue, arms[name], seed=seed)]
}

# %% jupyter={"source_hidden": true}
curves = pd.concat(
    run.history[["step", "loss"]].assign(arm=name).groupby(["arm", (run.history.step - 1) // 75 * 75 + 38]).loss.mean().reset_index()
    for (name, _), run in runs.items()
)
final = curves[curves.step == curves.step.max()].groupby("arm", sort=False).loss.mean()
plots.show(
    plots.learning_curve(
        curves, "step", "loss", hue="arm", xlabel="step (batches of 16)", ylabel="loss (nats per target token)",
        title=f"At the end the arms are {final.max() - final.min():.2f} nats per token apart",
    ),
    alt=f"Training loss of the three arms over the steps; at the end {', '.join(f'{n} {v:.2f}' for n, v in final.items())}",
)

# %% [markdown]
# Then the attribution in each of them.

# %% tags=["arms"]
frames = pd.concat(
    attribution.feature_ablation(run.lm, test, ablation).assign(arm=name, seed=seed, ablation=ablation)
    for (name, seed), run in runs.items()
    for ablation in ("resample", "delete")
)
faa = frames[frames.ablation == "resample"]
per_title = faa[faa.segment == "HISTORY"].groupby(["arm", "seed", "example"], sort=False)
titles = pd.DataFrame({"worth": per_title.attribution.sum(), "pays": -per_title.logprob.sum()}).reset_index()

# %%
table = {name: attribution.segment_table(part).mean_abs.to_dict() for name, part in faa.groupby("arm", sort=False)}
for name, part in faa.groupby("arm", sort=False):
    table[name]["bias ratio"] = attribution.bias_ratio(part)
pd.DataFrame(table).T.rename_axis("mean |A|, resample").round(3)

# %% jupyter={"source_hidden": true}
worth = {name: part.groupby("example").worth.mean().to_numpy() for name, part in titles.groupby("arm", sort=False)}
pays = {name: part.groupby("example").pays.mean().to_numpy() for name, part in titles.groupby("arm", sort=False)}
rows = []
for name in live:
    rows.append({"model": name, "metric": "history worth (nats per title)", **metrics.bootstrap(worth[name], users)._asdict()})
    rows.append({"model": name, "metric": "pays (nats per title)", **metrics.bootstrap(pays[name], users)._asdict()})
rows.append({"model": "counting", "metric": "history worth (nats per title)", **possible._asdict()})
rows.append({"model": "counting", "metric": "pays (nats per title)", **metrics.bootstrap(pay_counting, users)._asdict()})
results = pd.DataFrame(rows)
value = results[results.metric.str.startswith("history")].set_index("model").estimate
title = f"The history is worth {value[live].min():.2f} to {value[live].max():.2f} nats a title; counting finds {possible.estimate:.2f}"
spoken = "; ".join(f"{r.model}, {r.metric}: {r.estimate:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in results.itertuples())
plots.show(
    plots.accuracy_intervals(results, ("history worth (nats per title)", "pays (nats per title)"), title=title),
    alt=f"What the right history is worth and what a title costs, by arm, with 95% intervals. {spoken}",
)

# %% jupyter={"source_hidden": true}
gaps = {name: metrics.paired_bootstrap(worth[name], worth["fixed"], users) for name in ("rotating", "none")}
left = {name: metrics.bootstrap(worth[name], users).low > 0 for name in live}
reads = "All three arms use the history a little" if all(left.values()) else (
    "No arm uses the history in a way that these users could show" if not any(left.values()) else
    "The history helps in " + " and ".join(f"`{n}`" for n in live if left[n]) + "; in the rest we cannot tell"
)

def reading(gap: metrics.Interval) -> str:
    return "more than" if gap.low > 0 else "less than" if gap.high < 0 else "not distinguishably other than"

say(
    "{reads}: it is worth {fixed:.2f} nats per title in `fixed`, {rotating:.2f} in `rotating`, {none:.2f} in `none`, where counting finds "
    "{possible:.2f}. A title costs {p_fixed:.2f}, {p_rotating:.2f} and {p_none:.2f}; the marginal alone costs {marginal:.2f}.\n\n"
    "Against `fixed`, the history is worth **{gap_r:+.3f}** nats in `rotating` ({word_r} `fixed`), and **{gap_n:+.3f}** in "
    "`none` ({word_n} `fixed`) [95% intervals, over users; {seeds} seed(s), which they do not cover].",
    reads=reads, fixed=worth["fixed"].mean(), rotating=worth["rotating"].mean(), none=worth["none"].mean(), possible=possible.estimate,
    p_fixed=pays["fixed"].mean(), p_rotating=pays["rotating"].mean(), p_none=pays["none"].mean(), marginal=pay_marginal.mean(),
    gap_r=gaps["rotating"], gap_n=gaps["none"], word_r=reading(gaps["rotating"]), word_n=reading(gaps["none"]), seeds=len(seeds),
)

# %% [markdown]
# The live run lacks two things. A model whose negative log-likelihood is above that of uniform guessing is undertrained, so its use of the history
# decides nothing. And a single training is a single draw: other initial weights give another result. Therefore the repository keeps a table of
# longer trainings with several seeds (`scripts/cooccurrence_arms.py`; its epochs and learning rate were chosen on the valid part, for `fixed` alone).
# Its intervals are over *seeds*, by Student's t, and an effect for which it holds fewer than two seeds is marked as not measured. It separates three causes:
#
# - **meaning**: `nonsense` minus `fixed`, which have the same length and the same rate. A model with random initial weights knows no words, so this
#   difference should be small. It shows how far two arms differ by chance.
# - **rate**: `random nonsense` minus `nonsense`, which have the same length. This is the test of Mechanism 1.
# - **length**: the slope of a line through the eight fixed wordings, all at rate one. Each is a training of its own, so its interval is over wordings.

# %% jupyter={"source_hidden": true}
repeated = pd.read_csv(data.data_folder() / "results" / "cooccurrence_arms.csv")
by_seed = repeated.pivot(index="seed", columns="arm", values="worth").reindex(columns=list(arms))
encoders = {name: models.get(name) or lm.pocket(catalogue, prompt) for name, prompt in arms.items()}
tokens = pd.Series({name: np.mean([len(own.encode(e.history, None).positions(prompts.TASK)) for e in test[:60]]) for name, own in encoders.items()})
Effect = metrics.Interval | None  # None: too few trainings for an interval


def over_seeds(values: pd.Series) -> Effect:
    """Mean over the seeds that have a value, with a 95% interval."""
    known = values.dropna()
    return metrics.t_interval(known) if len(known) > 1 else None


def slope(values: pd.Series) -> Effect:
    """Worth per ten tokens more of task text, by least squares over the wordings, with its 95% interval."""
    if len(values) < 4:
        return None
    line = stats.linregress(tokens[values.index] / 10, values)
    half = stats.t.ppf(0.975, len(values) - 2) * line.stderr
    return metrics.Interval(line.slope, line.slope - half, line.slope + half)


eight = by_seed[["fixed", *wordings]].mean().dropna()
effects = {
    "meaning: nonsense minus fixed": over_seeds(by_seed["nonsense"] - by_seed["fixed"]),
    "rate: random nonsense minus nonsense": over_seeds(by_seed["random nonsense"] - by_seed["nonsense"]),
    "length: 10 tokens more": slope(eight),
    "rotating minus fixed": over_seeds(by_seed["rotating"] - by_seed["fixed"]),
    "none minus fixed": over_seeds(by_seed["none"] - by_seed["fixed"]),
}
meaning, changing, length, rotating, none = effects.values()


def told(effect: Effect) -> str:
    return f"{effect:+.3f}" if effect else "not measured yet"


summary = repeated.groupby("arm").agg(worth=("worth", "mean"), pays=("pays", "mean"), seeds=("seed", "size")).reindex([a for a in arms if by_seed[a].any()])
display(summary.assign(tokens=tokens).round(2))
pd.DataFrame({"difference in worth, nats per title [95% interval]": {name: told(effect) for name, effect in effects.items()}})

# %% jupyter={"source_hidden": true}
groups = {"an instruction, fixed": ["fixed", *wordings], "nonsense, fixed": ["nonsense"], "words that change": ["rotating", "random nonsense"], "no words": ["none"]}
figure, (ax,) = canvas.axes(f"Ten tokens more of a fixed text: the history is worth {-length.estimate:.2f} nats less" if length and length.high < 0 else
                            f"The history is worth {summary.worth.min():.2f} nats in '{summary.worth.idxmin()}' and {summary.worth.max():.2f} in '{summary.worth.idxmax()}'", (7.2, 4))
left_of = {"nonsense"}  # beside `random nonsense`
for (kind, names), (colour, marker, _) in zip(groups.items(), canvas.cues(4)):
    if names := [name for name in names if name in summary.index]:
        ax.errorbar(tokens[names], by_seed[names].mean(), yerr=by_seed[names].std().fillna(0), color=colour, marker=marker, ls="", capsize=3, markersize=8, label=kind)
        for name in names:
            ax.annotate(f" {name.removeprefix('wording ')} ", (tokens[name], by_seed[name].mean()), fontsize=10, va="bottom" if name != "random nonsense" else "top",
                        ha="right" if name in left_of else "left")
if length:
    ends = np.array([tokens[eight.index].min(), tokens[eight.index].max()])
    ax.plot(ends, eight.mean() + length.estimate / 10 * (ends - tokens[eight.index].mean()), color="grey", lw=1, zorder=0)
ax.set(xlabel="tokens of task text", ylabel="worth of the right history (nats)", xlim=(5, 37))
ax.legend(fontsize=10)
plots.show(figure, alt="What the right history is worth, against the length of the task text, one mark an arm, bars of one standard deviation over seeds. "
           + "; ".join(f"{name}: {tokens[name]:.0f} tokens, {row.worth:.2f} nats" for name, row in summary.iterrows()))

# %% jupyter={"source_hidden": true}
cost = repeated.groupby("arm").pays.mean()
say(
    "Worth of the right history, in nats per title, on {windows:,} windows: `fixed` {fixed:.2f} over {seeds} seeds. All arms pay {low:.2f} to {high:.2f} nats for a title, and "
    "the marginal pays {marginal:.2f}: {floor}.",
    windows=repeated.windows.iloc[0], fixed=by_seed["fixed"].mean(), seeds=by_seed["fixed"].count(), low=cost.min(), high=cost.max(), marginal=pay_marginal.mean(),
    floor="all arms have learned more than the marginal, so the comparison counts" if cost.max() < pay_marginal.mean() else
    "some arms have not learned more than the marginal, and their figures decide nothing",
)

# %% [markdown]
# **A warning about TASK.** Could we not simply compare the attribution of TASK itself? The next cell does this, and shows why not. `resample` puts
# another example's task text in its place, and `delete` takes it away.

# %%
predict("02.d", "In `fixed`, what is the attribution of TASK by `resample`, and what when the text is deleted?", ...)

# %%
task = frames[frames.segment == "TASK"].groupby(["ablation", "arm"], sort=False).attribution.apply(lambda a: a.abs().mean())
task.unstack("arm").round(3)

# %% jupyter={"source_hidden": true}
assert task["resample", "fixed"] < 1e-3, "the same text stands in for itself"
say(
    "Swapping the wording costs `fixed` {same:.3f} nats per token (the swap changes nothing: it is the same text) and `rotating` {other:.3f}. "
    "*Deleting* it costs `fixed` **{gone:.2f}**, `rotating` {gone_r:.2f}, `none` (its bullets) {gone_n:.2f}.",
    same=task["resample", "fixed"], other=task["resample", "rotating"], gone=task["delete", "fixed"], gone_r=task["delete", "rotating"],
    gone_n=task["delete", "none"],
)

# %% [markdown]
# ### Exercise 02.4 · Deleted, and missed
#
# *Difficulty 3/5 · importance 4/5 · 5 minutes*
#
# In the arm `fixed`, TASK has attribution zero under `resample` and a large one under `delete`. How can that be?
#
# - **a** The text carries no information about the target; but the model has never seen a prompt without it, and stumbles.
# - **b** The text carries much information about the target.
# - **c** `resample` is too coarse to see it.
# - **d** The model uses the text in place of the user.

# %% tags=["exercise"]
missed = ...  # "a", "b", "c" or "d"

# %% tags=["check"]
checks.check("02.4", missed);

# %% [markdown]
# <details><summary>A large attribution must mean something, surely</summary>
#
# The model has learned from prompts that all hold this text. What does it know about prompts without it?
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 02.4
missed = "a"
checks.check("02.4", missed);

# %% [markdown]
# ## 4. What this says about Mechanism 1
#
# The claim has three links: the rates are unequal; *because of that* the model leans on the auxiliary tokens; and *because of that* it neglects the user.

# %% jupyter={"source_hidden": true}
baseline = by_seed["fixed"].mean()


def sign(effect: Effect) -> str:
    return "unknown" if effect is None else "more" if effect.low > 0 else "less" if effect.high < 0 else "not measurably more or less"


tested, words_of = (changing, "At equal length (`random nonsense` minus `nonsense`)") if changing else (rotating, "In `rotating` minus `fixed`, which differ in length and form as well,")
on_rate = {
    "more": "**That supports Mechanism 1** for the task text.", "less": "**That contradicts Mechanism 1** for the task text.",
    "not measurably more or less": "**That speaks against the task text's rate as the driver.**" if tested.high < baseline / 10 else
    f"**Undecided**, since a gain of up to {tested.high / baseline:.0%} of the {baseline:.2f} nats of `fixed` is not excluded.",
}[sign(tested)]
say(
    "1. *The rates are unequal.* **True**, {times:.0f} to 1 for TASK with each pair once, {weighted:.1f} to 1 by occurrence. But TASK carries no information.\n"
    "2. *Balancing them moves the model to the history* (the break condition). {words_of} the difference in worth is {tested} nats, "
    "so the history is worth {sign} where the words change. {on_rate}\n"
    "3. *Length.* Ten tokens more of a fixed text, over the eight wordings: {length}. `none`, the shortest prompt, lies {none} nats from `fixed`.\n"
    "4. *Meaning.* `nonsense` minus `fixed`: {meaning}. This checks the method, since the pocket model knows no words.\n"
    "5. *PREFIX.* **Not tested**, because a title cannot be written without its own beginning. PREFIX carries most of the attribution "
    "(notebook 01), so this is the main gap of the experiment.\n\n"
    "(95% intervals over the seeds that both arms have, and for the length over the wordings.)",
    times=mean["TASK"] / mean["HISTORY"], weighted=1 / true.rate, words_of=words_of, tested=told(tested), sign=sign(tested), on_rate=on_rate,
    length=told(length), none=told(none), meaning=told(meaning),
)

# %% [markdown]
# This experiment does *not* deny the effect. A model that recommends much the same to everybody is real, as notebook 00 has shown. So is the weight on the
# auxiliary tokens, which notebook 01 measured before and after fine-tuning. The question here was only *why*. If the easy part of the loss is learned first
# and outweighs the rest, the remedy is to give the rest more weight. That is what GDRT does: it groups tokens by how hard they are to guess without the
# user, and weighs the groups by their loss. It can work even if Mechanism 1 is not the cause.

# %%
five = summary.worth[[name for name in shown if name in summary.index]]
reveal({
    "02.a": f"TASK, {mean['TASK'] / mean['HISTORY']:.0f} times",
    "02.b": f"the rate keeps {chance.rate / true.rate:.0%}, the PMI {chance.pmi / true.pmi:.0%}",
    "02.c": f"`{five.idxmax()}`, {five.max():.2f} nats a title (measured: {', '.join(five.index)})",
    "02.d": f"{task['resample', 'fixed']:.2f} and {task['delete', 'fixed']:.2f} nats a token",
})

# %% [markdown]
# ## Recap
#
# In this notebook we have **counted** how often tokens meet, **distinguished** rate from information, **designed** a causal test with
# a result that could refute the claim, **run** it, and **judged** the result.
#
# **Quick check.** A data set is changed so that every prompt ends in the user's first name. Its rate with the targets is low. Is it
# informative?
#
# <details><summary>Answer</summary>
#
# The rate does not say. If all Annas watch the same movies, its PMI with those is high. So look at the PMI, and compare it with
# shuffled data, since rare pairs have a high PMI by luck.
# </details>
#
# **What could still be wrong.** The model and its world are tiny, and the seeds are few. A pre-trained model brings habits that the pocket
# model does not have, and it knows what an instruction means. The words of `rotating` and `random nonsense` are chosen by a checksum of
# the history's titles, so a model with a very good memory could learn from them.
#
# **Next:** if some target tokens can be guessed without the user, which ones? Notebook 03 scores them.
