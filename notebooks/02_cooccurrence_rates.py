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
# Notebook 01 measured that a model leans on words that know nothing about the user. Why would training teach it that? The
# paper's answer, in the summary that we have read, is that those words are *always there*. We count how often, ask what that is
# worth, and then do what counting cannot: we change the cause, and see whether the effect changes.
#
# After this notebook you can:
#
# - **count** how often two tokens meet, by hand and on a corpus,
# - **distinguish** a rate from information, and show that a constant token has one without the other,
# - **design** a causal test, and say beforehand which result would refute the claim,
# - **run** it on a model small enough to train in a lesson, and **judge** what came out.
#
# *Prerequisites:* logarithms; notebook 01 for the word *attribution*.

# %% tags=["setup"]
# Setup, the same in all notebooks: use the clone around it, else install the package and keep this torch.
import os, subprocess, sys, tempfile
from importlib import invalidate_caches, metadata, util
from pathlib import Path

def found() -> bool:
    return getattr(util.find_spec("gdrt_lite"), "origin", None) is not None

if Path("../gdrt_lite/__init__.py").exists() and (clone := str(Path("..").resolve())) not in sys.path:
    sys.path.insert(0, clone)
if not found():
    source = os.environ.get("GDRT_LITE_SOURCE") or "git+https://github.com/gdrt-lite/gdrt_lite"
    keep = Path(tempfile.mkdtemp(), "keep.txt")
    keep.write_text(f"torch=={metadata.version('torch')}" if util.find_spec("torch") else "")
    pip = [sys.executable, "-m", "pip", "install", "--constraint", str(keep), source]
    if (done := subprocess.run(pip, capture_output=True, text=True)).returncode:
        raise RuntimeError(f"cannot install {source}; set GDRT_LITE_SOURCE\n{done.stdout}{done.stderr}")
    invalidate_caches()
from gdrt_lite import plots; from gdrt_lite.course import checks
from gdrt_lite.course.notebook import card, pick, say

# %% tags=["card"]
card("02")

# %% tags=["imports"]
import math
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from IPython.display import display

from gdrt_lite import attribution, cooccurrence, data, lm, metrics, prompts, training
from gdrt_lite.data import Example
from gdrt_lite.prompts import Prompt

# %% [markdown] tags=["paper"]
# > **Mechanism 1, as the summary of the paper that we have read calls it.** Task words and prefix words occur together with target
# > words more often than the user's words do, and maximum likelihood takes the shortcut. That summary also names a *break condition*:
# > if the rates were balanced when the data are made, the mechanism would not explain the bias. The rates are reported there, and not
# > changed.

# %% [markdown]
# ## 1. Counting
#
# Five users, one-word movies. The prompt always opens with the same words.

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
# The **co-occurrence rate** of a source word $s$ with a target word $v$: of the examples whose target holds $v$, which share has
# $s$ in front of it?
#
# $$\text{rate}(s, v) = P(s \text{ in the segment} \mid v \text{ in the target})$$
#
# **Predict**, by looking at the five: the rate of Alien with Aliens? Of Heat with Casino? Of Next with anything?

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
# Each column is a target, each row a word in front. `Next` fills its row with ones. By this measure it is the best friend of
# every target.
#
# The helper does the same with tokens, and keeps three segments apart: TASK (our words), HISTORY (the user's) and PREFIX (the
# part of the title that is already written). Both must agree:

# %%
tiny = Prompt("Movies seen:", after="\nNext:\n-")
tokenizer = lm.pocket(sorted({t for e in five for t in (*e.history, e.target)}), tiny).tokenizer
table = cooccurrence.rates(five, tokenizer, tiny)
for row in table[table.segment.isin(["TASK", "HISTORY"]) & table.target.str.strip().isin(by_hand.columns)].itertuples():
    if row.source.strip() in words:
        assert math.isclose(row.rate, by_hand.loc[row.source.strip(), row.target.strip()])
table.loc[table.target == " Aliens", ["segment", "source", "target", "count", "source_count", "target_count", "rate"]].head(9)

# %% [markdown]
# Now the real corpus: training examples of MovieLens, split by the tokenizer of the real model. **Predict** the mean rate of
# the three segments. Which is the highest, and by how much?

# %%
splits = data.load_movielens(500).split("new_users", history=5)
smollm2 = lm.load("smollm2-135m").tokenizer
corpus = data.sample(splits.train, pick(quick=6000, standard=len(splits.train), full=len(splits.train)), seed=0)
counted = cooccurrence.rates(corpus, smollm2, prompts.DEFAULT)
cooccurrence.summary(counted)[["mean_rate", "pairs"]].round(3)

# %%
mean = cooccurrence.summary(counted).mean_rate
say(
    "A task token stands beside a target token in **{task:.0%}** of the cases, a prefix token in **{prefix:.0%}**, a history token in "
    "**{history:.1%}** (the mean over pairs that occur, each counted once). The asymmetry that the paper speaks of is there: {times:.0f} to 1 for TASK, "
    "{p_times:.1f} to 1 for PREFIX.",
    task=mean["TASK"], prefix=mean["PREFIX"], history=mean["HISTORY"], times=mean["TASK"] / mean["HISTORY"],
    p_times=mean["PREFIX"] / mean["HISTORY"],
)

# %% [markdown]
# So the premise is right. Does the conclusion follow?
#
# ## 2. A rate is not information
#
# Ask it another way. You do not know the target. Somebody tells you: "the prompt contains the word *Next*". What do you know
# now? Nothing: all prompts do. What counts is not how often two words meet, but how much *more* often than they would by chance:
#
# $$\text{PMI}(s, v) = \log \frac{P(s, v)}{P(s)\,P(v)} = \log \frac{\text{rate}(s, v)}{P(s)}$$
#
# the *pointwise mutual information*. For a token that is in every prompt, $P(s) = 1$ and the rate is $1$, so
#
# $$\text{PMI} = \log \frac{1}{1} = 0 \quad \text{for every target } v.$$
#
# Always there, and worth nothing. **Predict:** which pair of the five examples is worth most? Is any worth less than zero?

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
# Write down its three probabilities for one target. Two of the three cancel. Did you divide every count by the number of examples?
# </details>
#
# <details><summary>All my values are at most zero</summary>
#
# That is the logarithm of the rate. Compare it with how common the source is in all examples.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
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
# NPMI, on the right, is PMI scaled to lie between minus one and one. TASK: a line at one on the left, a line at zero on the right.
#
# What then can a model learn about the target from TASK alone? For a constant $s$, $P(v \mid s) = P(v)$. It can learn **the
# marginal**: how frequent each target is, whoever asks. This does not mean that a large TASK attribution is a best-seller list. The
# task text also tells the model *what to do* with the history, and without that instruction it may not read the history at all. An
# attribution counts both. Exercise 02.4 comes back to this.
#
# And PREFIX has, in the mean, a higher rate than HISTORY and more information. It tells how a title goes on. That is spelling, not taste.
#
# **Look at the pairs themselves.** Which history tokens tell most about which target tokens? (Digits of years and punctuation are left out.)

# %%
letters = counted.source.str.contains("[A-Za-z]") & counted.target.str.contains("[A-Za-z]")
often = counted[letters & (counted["count"] >= 50) & (counted.target_count >= 50)]
parts = [often[often.segment == name].nlargest(6, "npmi") for name in ("HISTORY", "PREFIX")]
pd.concat(parts)[["segment", "source", "target", "count", "rate", "pmi", "npmi"]].round(2).reset_index(drop=True)

# %% [markdown]
# Most of the history's best pairs are pieces of film series, whose parts people watch one after the other. That is knowledge about users. It is
# there to be learned. But look at the sizes: no pair of the history comes near those of the prefix.
#
# **A control.** Rare pairs have a large PMI by luck, and we average only pairs that occur. So shuffle: give each history the target
# of another example. All links between history and target are cut, and all frequencies stay (a title stays whole, so PREFIX cannot change). **Predict** what happens to the rate, and what to the PMI.

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

# %%
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
# Counting alone cannot decide. Two stories fit the same rates.
#
# - **Mechanism 1:** the model leans on the task text *because* it is always there. The text keeps the history from being learned.
# - **The marginal first:** the model learns spelling and frequencies first because they are easy and pay at once. The history is
#   slow and pays little. The task text is only where the marginal happens to be stored. Without it, it would be stored elsewhere.
#
# They disagree about one experiment: **change the rate of the task text.** Three arms:
#
# | arm | task text | its co-occurrence |
# |---|---|---|
# | `fixed` | one wording, in every example | as high as can be |
# | `rotating` | eight wordings, each example has one | each wording a fraction of that |
# | `none` | no words, only a bullet before each title | hardly any text left |
#
# `rotating` is the test: much the same is said, by words that each occur in fewer examples. `none` goes further, and takes most of the prompt with it.
#
# This needs a model trained from random initial weights, so that it brings no habits along: the *pocket model*. It is a tiny Llama that trains in
# a lesson. Its world is small too: the movies rated most, their titles without the year, the last three as history.

# %%
n_train, n_test = pick(quick=(2400, 240), standard=(10_000, 700), full=(10_000, 700))  # or all that there are

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
arms = {"fixed": prompts.DEFAULT, "rotating": prompts.PARAPHRASES, "none": prompts.NO_TASK}

# %%
models = {name: lm.pocket(catalogue, prompt) for name, prompt in arms.items()}
different = next(e for e in test if prompts.PARAPHRASES.variant(e.history, None) != prompts.DEFAULT)
for name, model in models.items():
    print(f"--- {name}\n{model.tokenizer.decode(model.encode(different.history, different.target).ids).strip()}\n")

# %% [markdown]
# First check what we have changed.

# %%
rows = {}
for name, model in models.items():
    own = cooccurrence.rates(train, model.tokenizer, model.prompt)
    rows[name] = cooccurrence.summary(own)[["mean_rate", "mean_abs_pmi"]].stack()
    rows[name]["TASK", "tokens"] = np.mean([len(model.encode(e.history, None).positions(prompts.TASK)) for e in test])
pd.DataFrame(rows).T[["TASK", "HISTORY", "PREFIX"]].round(3)

# %% [markdown]
# The mean rate of TASK falls in the middle arm. HISTORY and PREFIX do not move. All else is *not* quite equal: the other wordings are shorter, and
# eight of them take longer to get used to than one. (What is left of TASK in the last arm are bullets and
# line breaks. They still occur in every example, so their rate is one; but there are few of them, and they say nothing.)
#
# **Before running, commit yourself.** Write down: under Mechanism 1, which arm will use the history most? Under "the marginal first"?

# %% [markdown]
# ### Exercise 02.3 · What would refute it
#
# *Difficulty 3/5 · importance 5/5 · 5 minutes*
#
# The arms are trained on the same examples for the same number of steps, long enough that the model has begun to read its users. Which result would
# speak *against* Mechanism 1?
#
# - **a** The history is worth more in `rotating` and `none` than in `fixed`.
# - **b** The history is worth the same in all three arms.
# - **c** The attribution of TASK is smaller in `none`.
# - **d** The attribution of PREFIX is the same in all three arms.

# %% tags=["exercise"]
refutes = ...  # "a", "b", "c" or "d"

# %% tags=["check"]
checks.check("02.3", refutes);

# %% [markdown]
# <details><summary>Two answers look right to me</summary>
#
# For each answer ask: what does Mechanism 1 say will happen? Only a result that it forbids can refute it.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
refutes = "b"
checks.check("02.3", refutes);

# %% [markdown]
# What is a good measure of "uses the history"? Notebook 01 found two traps. Absolute attribution also counts reactions that do not
# help. And most ablations make prompts that the model has never seen, which hits the three arms differently. So: `resample` (a
# stranger's history, on-distribution in every arm), signed, summed over the title. In words: **how many nats does a title get
# cheaper when the history is the right one?**
#
# Two reference values help, and counting gives both. What a model *pays* is its negative log-likelihood of the title, in nats.
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
# Now train all arms on the same examples, in the same order, for the same number of steps.

# %%
seeds = range(pick(quick=1, standard=3, full=5))

# %% tags=["arms"]
runs = {
    (name, seed): training.finetune(
        arms_model, train, "sft",
        training.arguments(arms_model, learning_rate=1e-3, seed=seed, epochs=pick(quick=2, standard=4, full=12)),
    )
    for name, prompt in arms.items()
    for seed in seeds
    for arms_model in [lm.pocket(catalogue, prompt, seed=seed)]
}

# %%
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
# And the attribution after each.

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

# %%
worth = {name: part.groupby("example").worth.mean().to_numpy() for name, part in titles.groupby("arm", sort=False)}
pays = {name: part.groupby("example").pays.mean().to_numpy() for name, part in titles.groupby("arm", sort=False)}
rows = []
for name in arms:
    rows.append({"model": name, "metric": "history worth (nats per title)", **metrics.bootstrap(worth[name], users)._asdict()})
    rows.append({"model": name, "metric": "pays (nats per title)", **metrics.bootstrap(pays[name], users)._asdict()})
rows.append({"model": "counting", "metric": "history worth (nats per title)", **possible._asdict()})
rows.append({"model": "counting", "metric": "pays (nats per title)", **metrics.bootstrap(pay_counting, users)._asdict()})
results = pd.DataFrame(rows)
value = results[results.metric.str.startswith("history")].set_index("model").estimate
title = f"The history is worth {value[list(arms)].min():.2f} to {value[list(arms)].max():.2f} nats a title; counting finds {possible.estimate:.2f}"
spoken = "; ".join(f"{r.model}, {r.metric}: {r.estimate:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in results.itertuples())
plots.show(
    plots.accuracy_intervals(results, ("history worth (nats per title)", "pays (nats per title)"), title=title),
    alt=f"What the right history is worth and what a title costs, by arm, with 95% intervals. {spoken}",
)

# %%
gaps = {name: metrics.paired_bootstrap(worth[name], worth["fixed"], users) for name in ("rotating", "none")}
left = {name: metrics.bootstrap(worth[name], users).low > 0 for name in arms}
reads = "All three arms use the history a little" if all(left.values()) else (
    "No arm uses the history in a way that these users could show" if not any(left.values()) else
    "The history helps in " + " and ".join(f"`{n}`" for n in arms if left[n]) + "; in the rest we cannot tell"
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
# Two things are missing. A model whose negative log-likelihood is above that of uniform guessing is undertrained, so its use of the history decides nothing. And a single
# training is a single draw: other initial weights, or another order of the examples, give another result. Therefore the repository keeps a
# table of this very experiment in the profile `standard`, which trains for longer, with several seeds (`scripts/cooccurrence_arms.py`; its epochs and
# learning rate were chosen on the valid part, for `fixed` alone). Now the interval is over *seeds*, by Student's t. **Predict**, once more.

# %%
kept = data.data_folder() / "results" / "cooccurrence_arms.csv"
if kept.exists():
    repeated = pd.read_csv(kept)
    by_seed = repeated.pivot(index="seed", columns="arm", values="worth")[list(arms)]
    gaps = {name: metrics.t_interval(by_seed[name] - by_seed["fixed"]) for name in ("rotating", "none")}
    over_what = f"{len(by_seed)} seeds"
    display(by_seed.round(3))
    cost = repeated.groupby("arm").pays.mean()
    say("What the right history is worth, in nats per title, seed by seed, on {windows:,} windows. Against `fixed`: `rotating` **{r:+.3f}**, `none` **{n:+.3f}** "
        "[95% intervals over {seeds} seeds]. A title costs {fixed:.2f} in `fixed`, {rotating:.2f} in `rotating`, {none:.2f} in `none`: {floor}.",
        r=gaps["rotating"], n=gaps["none"], seeds=len(by_seed), windows=repeated.windows.iloc[0], **cost,
        floor="less than the marginal, so all three read" if cost.max() < pay_marginal.mean() else
        "less than the marginal in " + " and ".join(f"`{a}`" for a in arms if cost[a] < pay_marginal.mean()) if cost.min() < pay_marginal.mean() else
        "more than the marginal, so none reads much yet")
else:
    over_what = f"users, {len(seeds)} seed(s)"
    say("No table of several seeds lies in `data/results` here; the verdict below rests on the live run alone.")

# %% [markdown]
# **A warning about TASK.** Could we not simply compare the attribution of TASK itself? **Predict:** under `resample`, TASK of `fixed`?
# And if we *delete* the task text?

# %%
task = frames[frames.segment == "TASK"].groupby(["ablation", "arm"], sort=False).attribution.apply(lambda a: a.abs().mean())
task.unstack("arm").round(3)

# %%
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
# Take the engine's oil away and the car stops. Does the oil know where you are going?
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
missed = "a"
checks.check("02.4", missed);

# %% [markdown]
# ## 4. What this says about Mechanism 1
#
# Its claim has three links: the rates are unequal; *because of that* the model leans on the auxiliary tokens; and *because of
# that* it neglects the user.

# %%
gap, baseline = gaps["rotating"], by_seed["fixed"].mean() if kept.exists() else worth["fixed"].mean()
if gap.low > 0:
    judgement = "Where the task words co-occur less, the history counts for more. **That supports Mechanism 1** for the task text, unless it is the shorter wording that helps."
elif gap.high < 0:
    judgement = "Where the task words co-occur less, the history counts for *less*. **That contradicts Mechanism 1** for the task text."
elif gap.high < baseline / 10:
    judgement = (
        "We broke the co-occurrence of the task text, and the worth of the history did not measurably change: "
        f"`rotating` minus `fixed` is {gap:+.3f} nats, where `fixed` uses {baseline:.3f} in all. **That speaks against the task text's co-occurrence as the driver.**"
    )
else:
    judgement = (
        f"**Undecided**: `rotating` minus `fixed` is {gap:+.3f} nats, which includes zero, but also gains of up to {gap.high / baseline:.0%} of the {baseline:.3f} nats that "
        "`fixed` uses in all."
    )
judgement += f" `none`, which shortens the prompt most, lies {gaps['none']:+.3f} from `fixed`"
judgement += ": there the history counts for more, whether for want of constant words or for brevity, which this arm cannot tell." if gaps["none"].low > 0 else "."
judgement += f" (Intervals over {over_what}.)"
say(
    "1. *The rates are unequal.* **True**, {times:.0f} to 1 for TASK with each pair once, {weighted:.1f} to 1 by occurrence. But the information is the other way round: TASK has none.\n"
    "2. *Balancing them moves the model to the history* (the break condition). {judgement}\n"
    "3. *PREFIX.* **Not tested here**, because a title cannot be written without its own beginning. PREFIX carries most of the attribution "
    "(notebook 01), so this is the main gap of the experiment.",
    times=mean["TASK"] / mean["HISTORY"], weighted=1 / true.rate, judgement=judgement,
)

# %% [markdown]
# Note what this does *not* say. A model that recommends much the same to everybody is real: notebook 00 saw one. So is the weight on the
# auxiliary tokens: notebook 01 measured it before and after fine-tuning. The question here was only *why*. If the easy part of the loss is learned first and drowns the rest, the remedy is to make
# the rest louder. That is what GDRT does: it groups tokens by how hard they are to guess without the user, and weighs the groups by their loss. It can work
# even if Mechanism 1 is not the cause.

# %% [markdown]
# ## Recap
#
# In this notebook we have **counted** how often tokens meet, **distinguished** rate from information, **designed** a causal test with
# a result that could refute the claim, **run** it, and **judged** what came out.
#
# **Quick check.** A data set is changed so that every prompt ends in the user's first name. Its rate with the targets is low. Is it
# informative?
#
# <details><summary>Answer</summary>
#
# The rate does not say. If all Annas watch the same movies, its PMI with those is high. Look at PMI, against shuffled
# data, since rare pairs have a high PMI by luck.
# </details>
#
# **What could still be wrong.** A tiny model and a tiny world. Few seeds, which differ a good deal in `rotating`. A pre-trained model brings habits that the pocket model does not have. And the wording of a
# rotating prompt is drawn from the history's titles, so a model with a very good memory could learn from it.
#
# **Next:** if some target tokens can be guessed without the user, which ones? Notebook 03 scores them.
