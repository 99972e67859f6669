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
# # Which words does it lean on?
#
# A language model recommends a movie by continuing a text. Part of that text is our instruction, part is the user's titles, and part is
# the answer itself, as far as it is written. Which part decides what comes next?
#
# After this notebook you can:
#
# - **label** every token of a prompt by where it comes from,
# - **compute** feature ablation attribution (FAA) by hand, with captum, and with the helper,
# - **choose** among four meanings of "without", and say which question each one asks,
# - **read** a bias ratio with care: absolute or signed, per segment or per token,
# - **compare** a model before and after fine-tuning.
#
# *Prerequisites:* PyTorch, softmax, the logarithm. Notebook 00 is a good start, but it is not needed.

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
card("01")

# %% tags=["imports"] jupyter={"source_hidden": true}
import json
import math
from itertools import groupby

import pandas as pd
import torch
from captum.attr import FeatureAblation
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from torch import Tensor

from gdrt_lite import attribution, data, lm, metrics, training
from gdrt_lite.ablation import MEANINGS, ablate
from gdrt_lite.course.notebook import predict, reveal
from gdrt_lite.plots import canvas, figures
from gdrt_lite.prompts import HISTORY, SEGMENT_NAMES, TARGET, TASK

# %% [markdown]
# ## 1. Three kinds of words
#
# We take a real model and a real user, and look at the prompt as the model sees it, that is, as tokens.

# %%
splits = data.load_movielens(500).split("new_users", history=5)
examples = data.sample(splits.test, pick(quick=12, standard=64, full=256), seed=0)
base = lm.load("smollm2-135m")
example = examples[0]
encoded = base.encode(example.history, example.target)
print(base.tokenizer.decode(encoded.ids))

# %% [markdown]
# A history holds the last five titles at most (`history=5`), and fewer where the user had rated fewer before.
#
# The last line is the **target**, the title that this user rated next. We know it, so we can ask how probable the model finds it. The text ends
# in a special token, EOS, which says that the title is over. Without it *Alien* could not end before *Aliens*.

# %%
pieces = pd.DataFrame({"token": [base.tokenizer.decode([i]) for i in encoded.ids], "segment": [SEGMENT_NAMES[s] for s in encoded.segments]})
size = pieces.segment.value_counts()

# %% jupyter={"source_hidden": true}
FILLS = dict(zip(("TASK", "HISTORY", "TARGET"), canvas.colours(3)))


def draw(title: str, columns: list[dict[str, list[tuple[str, str, bool]]]], width: int, alt: str) -> None:
    """Prompts in columns: each token (text, segment, visible) a box, coloured and underlined by its segment; hidden ones are empty."""
    rows = []
    for prompts in columns:
        placed, line = [], -1
        for name, tokens in prompts.items():
            placed.append((0, line := line + 1, name, "", True)) if name else None
            column, line = 0, line + 1
            for text, segment, visible in tokens:
                shown = text.replace("\n", "↵")
                if column + len(shown) > width:
                    column, line = 0, line + 1
                placed.append((column, line, shown, segment, visible))
                column, line = (0, line + 1) if "\n" in text else (column + len(shown), line)
        rows.append((placed, line + 1))
    high = max(lines for _, lines in rows)
    figure, axes = canvas.axes(title, (len(columns) * width * 0.0836 + 0.3, high * 0.25 + 0.9), len(columns))
    for ax, (placed, _) in zip(axes, rows):
        for column, line, shown, segment, visible in placed:
            if segment:
                ax.add_patch(Rectangle((column, line), len(shown), 0.9, facecolor=FILLS[segment] if visible else "white", alpha=0.4, edgecolor="grey"))
                ax.plot([column + 0.15, column + len(shown) - 0.15], [line + 0.84] * 2, color="black", lw=1.2, ls=figures.UNDERLINES[segment])
            ink, weight = ("black" if visible else "silver"), ("normal" if segment else "bold")
            ax.text(column, line + 0.42, shown, family="monospace", size=10, va="center", color=ink, weight=weight, parse_math=False)
        ax.set(xlim=(0, width), ylim=(high, 0))
        ax.axis("off")
    handles = [Line2D([], [], color=FILLS[s], lw=6, alpha=0.5, label=s) for s in FILLS]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    plots.show(figure, alt=alt)


draw(
    f"{size['TASK']} tokens are ours, {size['HISTORY']} are the user's, {size['TARGET']} are the answer",
    [{"": list(zip(pieces.token, pieces.segment, [True] * len(pieces)))}], 100,
    alt=f"The prompt as text, each token in the colour of its segment: TASK {size['TASK']} tokens, HISTORY {size['HISTORY']}, TARGET {size['TARGET']}",
)

# %% [markdown]
# - `TASK`: the instruction, the bullets, the question. The wording is the same for every user.
# - `HISTORY`: the titles. This is the only place where the user appears.
# - `TARGET`: the answer. While the model predicts target token $y_t$, it already sees $y_0 \dots y_{t-1}$. These earlier tokens are called the
#   **PREFIX** of $y_t$.
#
# TASK and PREFIX together are the *auxiliary* tokens: our wording, and the beginning of the answer itself. Neither contains what the user did
# before. The hypothesis of this course is that a tuned model leans on them, because they are always there.

# %% [markdown] tags=["paper"]
# > **The paper** (arXiv 2510.10978): according to the summary that we have read, the auxiliary tokens weigh more than six times as
# > much as the user's after supervised fine-tuning (SFT). The paper calls this *context bias*.

# %% [markdown]
# ## 2. Attribution by hand
#
# The idea is to take words away, and to measure how far the log-probability of the right answer falls:
#
# $$A_g(t) = \log P(y_t \mid x) - \log P(y_t \mid x \text{ without } g)$$
#
# If it is positive, segment $g$ helped. If it is negative, the segment made the answer less likely. If it is zero, it did not matter. The unit
# is the *nat*, since we use the natural logarithm. First we need $\log P(y_t \mid x)$, and you write it.

# %% [markdown]
# ### Exercise 01.1 · Read the right row
#
# *Difficulty 2/5 · importance 5/5 · 10 minutes*
#
# A causal model returns one row of logits per position. Row $p$ scores the token at position $p + 1$. Return the
# log-probability of every target token.

# %% tags=["exercise"]
def read_targets(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    """log P of each label, shape (T,).

    logits: shape (n, V), one row per position. labels: shape (T,), the target tokens.
    first: position of the first target token.
    """
    raise NotImplementedError

# %% tags=["check"]
checks.check("01.1", read_targets);

# %% [markdown]
# <details><summary>My numbers are all very low, and make no sense</summary>
#
# Row `first` already sees the first target token. Which row does not see it yet?
# </details>
#
# <details><summary>Some of my numbers are above zero</summary>
#
# A log-probability never is. Did you normalise over the vocabulary?
# </details>
#
# <details><summary>I get a square matrix</summary>
#
# `rows[:, labels]` takes each label from each row. `rows[torch.arange(T), labels]` pairs them.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 01.1
def read_targets(logits: Tensor, labels: Tensor, first: int) -> Tensor:
    """log P of each label, shape (T,)."""
    rows = logits[first - 1 : first - 1 + len(labels)].float().log_softmax(-1)
    return rows[torch.arange(len(labels)), labels]

checks.check("01.1", read_targets);

# %% [markdown]
# FAA itself takes ten lines. "Without" means here that every place of the segment gets a token that says nothing, `_`. We use full precision on the CPU,
# so that three ways of computing can be compared digit by digit.

# %%
predict("01.a", "At which place of the title does the user's history matter most?", ...)

# %%
exact = lm.load("smollm2-135m", dtype=torch.float32, device="cpu")
ids, segments = torch.tensor(encoded.ids), torch.tensor(encoded.segments)
labels, first = ids[segments == TARGET], encoded.positions(TARGET)[0]
nothing = attribution.neutral_id(exact)

@torch.inference_mode()
def score(ids: Tensor) -> Tensor:
    return read_targets(exact.model(ids[None]).logits[0], labels, first)  # (T,)

by_hand = pd.DataFrame({"token": [exact.tokenizer.decode([i]) for i in labels]})
for name, segment in {"TASK": TASK, "HISTORY": HISTORY, "PREFIX": TARGET}.items():
    by_hand[name] = (score(ids) - score(torch.where(segments == segment, nothing, ids))).numpy()

# %% [markdown]
# Three details of the last line matter.
#
# - The labels stay. We replace what the model *sees*, never what we *ask*.
# - One pass serves all $t$ at once for PREFIX, because row $t$ sees only earlier target tokens, and all of those are replaced.
# - At $t = 0$ there is no prefix, so its attribution must come out as zero. We treat it as a missing value.

# %%
assert abs(by_hand.PREFIX[0]) < 1e-3, "there is no prefix at t = 0"
by_hand.set_index("token").T.round(2)

# %%
rows = by_hand.set_index("token")
first_token = "" if by_hand.HISTORY.idxmax() == 0 else f", and {by_hand.HISTORY[0]:.2f} at the first token"
say(
    "TASK matters most at `{task}`, HISTORY at `{history}` ({most:.2f} nats{first_token}), PREFIX at `{prefix}`. "
    "Summed over the title: TASK {sums[TASK]:+.1f}, HISTORY {sums[HISTORY]:+.1f}, PREFIX {sums[PREFIX]:+.1f} nats.",
    task=rows.TASK.idxmax(), history=rows.HISTORY.idxmax(), most=by_hand.HISTORY.max(), first_token=first_token,
    prefix=rows.PREFIX.idxmax(), sums=rows.sum(),
)

# %% [markdown]
# Once a title has begun, its prefix says how it goes on: a word is finished, a bracket is opened, a year is closed. Only the first token has to
# be chosen with no prefix at all, so one expects the user to matter most there. The table shows whether this holds for one user and one title.
#
# Is HISTORY as large in the middle of a word, where nothing is left to choose? A user's taste cannot tell how a word is spelled, so part of
# what we measured is then not taste. Section 3 returns to this.
#
# **The same with a library.** captum's `FeatureAblation` runs the loop. It needs a function, a baseline (our `_`), and a mask that says which
# inputs form one feature. Our segment labels are that mask.

# %%
def forward(rows: Tensor) -> Tensor:
    return torch.stack([score(row) for row in rows])  # (B, n) token ids -> (B, T)

captums = FeatureAblation(forward).attribute(ids[None], baselines=nothing, feature_mask=segments[None])  # (T, n)
for name, segment in {"TASK": TASK, "HISTORY": HISTORY, "PREFIX": TARGET}.items():
    at = encoded.positions(segment)[0]  # every token of a feature carries the feature's value
    assert torch.allclose(captums[:, at], torch.tensor(by_hand[name]), atol=1e-3)

# %% [markdown]
# **And with the helper**, which does the same for many examples at once, in batches of similar length.

# %%
helpers = attribution.feature_ablation(exact, [example], ablation="token")
for name, part in helpers.groupby("segment"):
    gap = (part.attribution.to_numpy() - by_hand[name].to_numpy())[part.position > 0]
    assert abs(gap).max() < 1e-3, name
helpers[helpers.position < 2]

# %% jupyter={"source_hidden": true}
rounded = attribution.feature_ablation(base, [example], ablation="token")
gap = (rounded.attribution - helpers.attribution).abs()
del exact
dtype, coarse = str(base.model.dtype).removeprefix("torch."), base.model.dtype != torch.float32
say(
    "By hand, captum and helper agree to a thousandth of a nat. The copy of the model that we use from here on computes in " + (
    "`{dtype}`, and differs from full precision by {mean:.2f} nats on average, {most:.2f} at most. Read nothing into "
    "differences of that size." if coarse else
    "`{dtype}` as well, since this machine has no fast `bfloat16`. It differs from the first copy by {most:.4f} nats at most, so "
    "rounding plays no part in the figures below."),
    dtype=dtype, mean=gap.mean(), most=gap.max(),
)

# %% [markdown]
# ## 3. Four ways to leave words out
#
# We wrote blanks over the words. A model has hardly ever read forty blanks in a row, so its reaction may tell more about blanks than about users.
# No way of leaving words out is neutral, and therefore we compare four. Three of them change the tokens that the model reads, and you write
# these. The fourth, `attention`, keeps the tokens and hides them with the attention mask.

# %% [markdown]
# ### Exercise 01.2 · Write the ablations
#
# *Difficulty 3/5 · importance 5/5 · 15 minutes*
#
# A prompt is a list of pieces in order, each a pair of its segment and its tokens: the instruction, a title, a separator, a title, and so
# on. Return the tokens that the model reads once one segment is left out:
#
# - `"token"`: every token of the segment becomes the neutral token, so the length stays;
# - `"delete"`: the tokens are gone, and the rest moves up;
# - `"resample"`: the segment's pieces become those of the donor's prompt, in their order. If the donor has fewer, begin again with its first.

# %% tags=["exercise"]
def leave_out(prompt: list[tuple[str, list[int]]], segment: str, how: str, neutral: int, donor: list[tuple[str, list[int]]]) -> list[int]:
    """The tokens that are read without `segment`; how is "token", "delete" or "resample"."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("01.2", leave_out);

# %% [markdown]
# <details><summary>resample is right for some prompts only</summary>
#
# A donor's title may be longer or shorter than ours. It is taken whole, so the prompt changes its length.
# </details>
#
# <details><summary>It stops with an IndexError</summary>
#
# The donor may have watched fewer films. Count the places of the segment, and take the remainder by the number of the donor's pieces.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 01.2
def leave_out(prompt: list[tuple[str, list[int]]], segment: str, how: str, neutral: int, donor: list[tuple[str, list[int]]]) -> list[int]:
    """The tokens that are read without `segment`; how is "token", "delete" or "resample"."""
    pool = [ids for own, ids in donor if own == segment]
    read, place = [], 0
    for own, ids in prompt:
        if own != segment:
            read += ids
        elif how == "token":
            read += [neutral] * len(ids)
        elif how == "resample":
            read += pool[place % len(pool)]
            place += 1
    return read

checks.check("01.2", leave_out, ours=True);

# %% [markdown]
# Next your function is tried on the real prompt, where the package's `ablate` must agree with it.

# %%
def in_pieces(encoded) -> list[tuple[str, list[int]]]:
    """Neighbouring tokens of one segment, with the segment's name."""
    runs = groupby(zip(encoded.segments, encoded.ids), key=lambda pair: pair[0])
    return [(SEGMENT_NAMES[segment], [i for _, i in run]) for segment, run in runs]

left_out = checks.yours("01.2")
donor = base.encode(examples[1].history, examples[1].target)
nothing = attribution.neutral_id(base)
for ablation in MEANINGS:
    without = ablate(encoded, HISTORY, ablation, nothing, donor)
    seen = [i for i, visible in zip(without.ids, without.attend) if visible]
    if ablation != "attention":
        assert seen == list(left_out(in_pieces(encoded), "HISTORY", ablation, nothing, in_pieces(donor)))
    print(f"HISTORY left out by {ablation!r}: {len(seen)} tokens visible")

# %% jupyter={"source_hidden": true}
short, other = (base.encode(e.history[-2:], e.target) for e in examples[:2])
drawn = {}
for ablation in MEANINGS:
    part = ablate(short, HISTORY, ablation, nothing, other)
    texts = ["∅" if i == nothing else base.tokenizer.decode([i]) for i in part.ids]  # "_" would look like the underline
    drawn[ablation] = [(text, SEGMENT_NAMES[s], bool(a)) for text, s, a in zip(texts, part.segments, part.attend)]
count = {name: sum(visible for *_, visible in tokens) for name, tokens in drawn.items()}
names = {name: name + " (each ∅ is the neutral token _)" * (name == "token") for name in drawn}
draw(
    f"Of a prompt of {len(short)} tokens, the model then reads " + ", ".join(f"{n} ({name})" for name, n in count.items()),
    [{names[name]: drawn[name] for name in pair} for pair in (MEANINGS[:2], MEANINGS[2:])], 56,
    alt="One prompt with two titles, four times: by attention its titles are empty boxes, by token neutral signs, by delete they are gone, by resample "
    "another user's titles stand there. Visible tokens: " + ", ".join(f"{name} {n}" for name, n in count.items()),
)

# %% [markdown]
# | ablation | what happens | what it asks | what is unusual about it |
# |---|---|---|---|
# | `attention` | the tokens are hidden, all others keep their positions | what flows through these tokens? | a gap in the positions |
# | `token` | each becomes `_` | does it matter *what* stands here? | rows of blanks, never seen in training |
# | `delete` | they are gone, and the rest moves up | what if they had never been written? | a list with empty bullets |
# | `resample` | another user's titles stand there | does it matter *whose* history this is? | nothing, since such prompts exist |
#
# For HISTORY, only `resample` stays *on-distribution*: the model sees a prompt of the kind it knows. The other three also measure the reaction to an
# unusual prompt. For PREFIX, `resample` measures that too, because nobody writes the beginning of another title before the rest of this one.

# %%
predict("01.b", "Under resample, what is the attribution of TASK, in nats?", ...)

# %%
swapped = ablate(encoded, TASK, "resample", nothing, donor)
assert swapped.ids == encoded.ids

# %% [markdown]
# It is zero by construction, because the task text of every other example is the same text. This is not a fault of the measure but a fact about
# constant words: **what never varies cannot carry information about the user.** Notebook 02 builds on it.
#
# The next cell computes all four ablations for several users. The error bars of its figure, and of the one in section 5, are 95% intervals:
# users are drawn again and again with repeats, and tokens within each user. Section 4 says why users are drawn.

# %%
frames = {
    ablation: attribution.feature_ablation(base, examples, ablation, progress=True).assign(ablation=ablation)
    for ablation in MEANINGS
}
everything = pd.concat(frames.values(), ignore_index=True)

# %% jupyter={"source_hidden": true}
tables = {name: attribution.segment_table(frame) for name, frame in frames.items()}
largest = {table.mean_abs.idxmax() for table in tables.values()}
title = f"{largest.pop()} weighs most, however the words are left out" if len(largest) == 1 else "What weighs most depends on the ablation"
heights = "; ".join(f"{n}: " + ", ".join(f"{s} {t.mean_abs[s]:.2f}" for s in t.index) for n, t in tables.items())
plots.show(
    plots.faa_by_segment(everything, hue="ablation", title=title),
    alt=f"Bars of mean absolute attribution in nats for each segment and ablation. {heights}",
)

# %% jupyter={"source_hidden": true}
alike = frames["resample"].query("segment == 'TASK'").attribution.abs().mean()
small = min(t.mean_abs["HISTORY"] for t in tables.values())
say(
    "PREFIX: {low:.1f} to {high:.1f} nats per token. HISTORY: {h_low:.2f} to {h_high:.2f}, by ablation. TASK under `resample` "
    "shows {alike:.2f}: the two prompts are identical, and identical prompts are rounded identically. So this zero does not measure the "
    "rounding noise of `{dtype}`. " + (
    "Section 2 did, against full precision: **{mean:.2f}** nats on average and **{most:.2f}** at most. {reading}" if coarse else
    "Section 2 did: two ways of computing agreed to a thousandth of a nat, and HISTORY's smallest mean is {times:.0f} times as large."),
    low=min(t.mean_abs["PREFIX"] for t in tables.values()), high=max(t.mean_abs["PREFIX"] for t in tables.values()),
    h_low=min(t.mean_abs["HISTORY"] for t in tables.values()), h_high=max(t.mean_abs["HISTORY"] for t in tables.values()),
    alike=alike, mean=gap.mean(), most=gap.max(), dtype=dtype, times=small / 1e-3,
    reading="That is the noise floor, and HISTORY's smallest figure is not far above it." if small < 3 * gap.mean() else
    "That is the noise floor of a single token, and the means above lie well over it.",
)

# %% [markdown]
# ## 4. One number, and what it hides
#
# To compare models we want one number: the weight of the auxiliary tokens over the weight of the user's. This is the **bias ratio**:
#
# $$\text{ratio} = \frac{A_{\text{TASK}} + A_{\text{PREFIX}}}{A_{\text{HISTORY}}}, \qquad A_g = \text{mean over users of each user's mean } |A_g(t)|$$
#
# We average within each user first. Otherwise a user with long titles would count more than others.

# %% [markdown]
# ### Exercise 01.3 · The bias ratio
#
# *Difficulty 2/5 · importance 4/5 · 10 minutes*
#
# `frame` is what the helper returned: columns `user`, `segment` and `attribution`, one row per segment and target token.
# PREFIX at $t = 0$ is NaN. Return the ratio, in which every user counts alike.

# %% tags=["exercise"]
def bias_ratio(frame: pd.DataFrame) -> float:
    """(A_TASK + A_PREFIX) / A_HISTORY of the mean |A|."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("01.3", bias_ratio);

# %% [markdown]
# <details><summary>My ratio is close, but too small</summary>
#
# How does your mean treat the missing prefix at the first token? pandas leaves NaN out by itself, unless you fill it.
# </details>
#
# <details><summary>My ratio is far off, or negative</summary>
#
# First the absolute value, then the mean. The other order lets positive and negative tokens cancel.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 01.3
def bias_ratio(frame: pd.DataFrame) -> float:
    """(A_TASK + A_PREFIX) / A_HISTORY of the mean |A|."""
    per_user = frame.attribution.abs().groupby([frame.user, frame.segment]).mean()
    mean = per_user.groupby("segment").mean()
    return float((mean["TASK"] + mean["PREFIX"]) / mean["HISTORY"])

checks.check("01.3", bias_ratio);

# %% [markdown]
# A ratio from a few users is uncertain. So we draw the users again and again, with repeats, and compute the ratio each time: a *bootstrap*. We
# draw users and not tokens, since the tokens of one user are not independent.

# %%
def ratio_draws(frame: pd.DataFrame) -> torch.Tensor:
    """The bias ratio on 2,000 bootstrap samples of users; the first entry is the ratio itself."""
    per_user = attribution.mean_abs_per_user(frame)
    means = metrics.resampled_means(per_user.to_numpy(), per_user.index)
    means = pd.DataFrame([per_user.mean().to_numpy(), *means], columns=per_user.columns)
    return torch.tensor(((means.TASK + means.PREFIX) / means.HISTORY).to_numpy())

def interval(draws: torch.Tensor) -> metrics.Interval:
    low, high = draws[1:].quantile(torch.tensor([0.025, 0.975], dtype=draws.dtype))
    return metrics.Interval(draws[0].item(), low.item(), high.item())

draws = {name: ratio_draws(frame) for name, frame in frames.items()}
for name, frame in frames.items():
    assert math.isclose(draws[name][0], attribution.bias_ratio(frame), rel_tol=1e-6)
    assert math.isclose(draws[name][0], bias_ratio(frame), rel_tol=1e-6)
pd.DataFrame({"bias ratio [95% interval]": {name: f"{interval(d):.1f}" for name, d in draws.items()}})

# %% jupyter={"source_hidden": true}
ratios = {name: d[0].item() for name, d in draws.items()}
small, large = min(ratios, key=ratios.get), max(ratios, key=ratios.get)
say(
    "Same model, same users: the ratio is **{low:.1f}** by `{small}` and **{high:.1f}** by `{large}`, {times:.1f} times as much. "
    "Under `resample` TASK is zero by construction, since it is the same in every prompt, and PREFIX alone stands above the fraction bar. "
    "A bias ratio means nothing without the name of its ablation. The summary that we have read does not say which one the paper "
    "used, so its figure and ours cannot be compared. Two models under *one* ablation can.",
    low=ratios[small], high=ratios[large], small=small, large=large, times=ratios[large] / ratios[small],
)

# %% [markdown]
# **Two cautions about this number.** First, PREFIX has no value at $t = 0$, while TASK and HISTORY have one. So the terms of the ratio are
# means over different tokens. Second, the numerator adds two different things.

# %% jupyter={"source_hidden": true}
parts = tables["attention"].mean_abs
say(
    "Under `attention`, PREFIX is **{prefix:.0%}** of the numerator. TASK alone against HISTORY is **{task:.1f}**, and HISTORY's share of all "
    "three is {share:.0%}. The value of a ratio also belongs to its users and to the length of their histories: these are {n} users with up to "
    "{length} titles, and notebooks 06 and 07 measure others. There is one definition in all notebooks, and still several values.",
    prefix=parts["PREFIX"] / (parts["TASK"] + parts["PREFIX"]), task=parts["TASK"] / parts["HISTORY"], share=parts["HISTORY"] / parts.sum(),
    n=len({e.user for e in examples}), length=max(len(e.history) for e in examples),
)

# %% [markdown]
# **Signed or absolute?** The ratio uses $|A|$, which asks whether the model *reacts*. The signed mean asks whether the reaction *helps*.

# %%
pd.concat(tables, names=["ablation"])[["mean_abs", "mean_signed"]].unstack("segment").round(2)

# %% jupyter={"source_hidden": true}
swap = frames["resample"].query("segment == 'HISTORY'")
signed = metrics.bootstrap(swap.attribution, clusters=swap.user)
verdict = "The interval contains zero: we cannot tell this user's history from a stranger's." if signed.low <= 0 <= signed.high else (
    "The interval lies above zero: the right history helps." if signed.low > 0 else "The interval lies below zero: the right history hurts."
)
say(
    "With a stranger's history a target token's log-probability moves by **{moved:.2f}** nats, up or down. On balance it falls by "
    "**{signed:.3f}** nats [95% interval]. {verdict}",
    moved=swap.attribution.abs().mean(), signed=signed, verdict=verdict,
)

# %% [markdown]
# This is why both are needed. `delete` and `token` also take away the *form* of a list of movies, and the model reacts to the missing form. `resample`
# keeps the form and changes only the person.

# %% [markdown] tags=["definition"]
# ### Exercise 01.4 · Moved, but where to
#
# *Difficulty 2/5 · importance 5/5 · 3 minutes*
#
# A made-up model. Under `resample`, HISTORY has mean $|A| = 0.60$ and mean $A = 0.01$ nats. What follows?
#
# - **a** It ignores the history.
# - **b** The history moves its predictions, but as often away from the target as towards it.
# - **c** It reads the user well.
# - **d** The prompt was so strange that nothing follows.

# %% tags=["exercise"]
moved = ...  # "a", "b", "c" or "d"

# %% tags=["check"]
checks.check("01.4", moved);

# %% [markdown]
# <details><summary>I hesitate between a and b</summary>
#
# What would mean $|A|$ be if the prediction did not change at all?
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 01.4
moved = "b"
checks.check("01.4", moved);

# %% [markdown]
# **Per segment or per token?** A long segment has more chances to matter. If HISTORY has more tokens than TASK, it is fair to ask for the weight of
# *one* token.

# %%
one = tables["attention"].mean_abs_per_token
known = frames["attention"].dropna(subset="attribution")
pd.DataFrame(
    {
        "mean |A|": tables["attention"].mean_abs.round(2),
        "tokens in the segment": known.groupby("segment").n_tokens.mean().round(0),
        "mean |A| per token": one.round(3),
    }
)

# %% jupyter={"source_hidden": true}
say(
    "Per token (`attention`), one TASK token weighs {task:.1f} times as much as one HISTORY token, one PREFIX token {prefix:.0f} "
    "times. The ratio per token is **{per_token:.0f}**, per segment **{per_segment:.1f}**.",
    task=one["TASK"] / one["HISTORY"], prefix=one["PREFIX"] / one["HISTORY"],
    per_token=(one["TASK"] + one["PREFIX"]) / one["HISTORY"], per_segment=ratios["attention"],
)

# %% [markdown]
# Both are right answers to different questions. Per segment: how much does the user count in all? Per token: where does the model find its
# evidence? With longer histories the first one changes even if the model does not. So say which one you report.

# %% [markdown]
# ## 5. Before and after fine-tuning
#
# So far the model had never been trained to recommend. Fine-tuning on (history, next movie) pairs should teach it to use the history. According to
# its abstract, the paper finds that it mostly teaches something else.

# %%
predict("01.c", "Is the bias ratio higher, lower, or the same after SFT?", ...)

# %% jupyter={"source_hidden": true}
folder = data.data_folder() / "adapters" / "movielens-sft"
if (folder / "adapter_config.json").exists():
    tuned = lm.load("smollm2-135m", adapter=folder)
    origin = f"the released adapter, trained on {json.loads((folder / 'settings.json').read_text())['n_examples']:,} windows"
else:
    windows = data.sample(splits.train, pick(quick=48, standard=640, full=6400), seed=0)
    tuned = training.finetune(base, windows, "sft").lm
    origin = f"a short live run on {len(windows):,} windows; a real one takes hundreds of times as many"
say("The tuned model is {origin}.", origin=origin)

# %%
both = {"pre-trained": frames, "SFT": {}}
for ablation in ("attention", "resample"):
    both["SFT"][ablation] = attribution.feature_ablation(tuned, examples, ablation, progress=True)
rows = []
for ablation in ("attention", "resample"):
    before, after = (ratio_draws(both[name][ablation]) for name in both)
    rows.append({"ablation": ablation, "pre-trained": f"{interval(before):.1f}", "SFT": f"{interval(after):.1f}",
                 "SFT minus pre-trained": f"{interval(after - before):+.1f}"})
pd.DataFrame(rows).set_index("ablation")

# %%
pairs = pd.concat([both[name]["attention"].assign(model=name) for name in both])
shown = {name: attribution.segment_table(both[name]["attention"]) for name in both}
change = shown["SFT"].mean_abs["HISTORY"] / shown["pre-trained"].mean_abs["HISTORY"]
title = f"After SFT the history weighs {change:.2f} times what it did before"
plots.show(
    plots.faa_by_segment(pairs, hue="model", title=title),
    alt="Bars of mean absolute attribution per segment before and after fine-tuning, attention ablation. "
    + "; ".join(f"{n}: " + ", ".join(f"{s} {t.mean_abs[s]:.2f}" for s in t.index) for n, t in shown.items()),
)

# %% jupyter={"source_hidden": true}
before, after = (ratio_draws(both[name]["attention"]) for name in both)
moved_by = interval(after - before)
direction = "no change that these users could show" if moved_by.low <= 0 <= moved_by.high else "a rise" if moved_by.low > 0 else "a fall"
cost = {n: -both[n]["attention"].query("segment == 'HISTORY'").groupby("example").logprob.sum() for n in both}
right_user = {n: both[n]["resample"].query("segment == 'HISTORY'").groupby("example").attribution.sum() for n in both}
say(
    "The bias ratio (`attention`) goes from {before:.1f} to {after:.1f}: {direction}. A whole title costs {q_before:.1f} nats before "
    "and {q_after:.1f} after, so it became {cheaper:.1f} nats cheaper [95% interval]. Knowing *this* user and not a stranger "
    "(`resample`) accounts for {share:+.1f} nats of that. (The tuned model is {origin}.)\n\n"
    "This is an observation on one pair of models and {n} users. It is no test of whether SFT raises the reliance on auxiliary tokens: "
    "that is hypothesis H1 of the registered study. Notebook 07 says whether H1 has been tested, and with what result.",
    before=before[0].item(), after=after[0].item(), direction=direction, q_before=cost["pre-trained"].mean(),
    q_after=cost["SFT"].mean(), cheaper=metrics.paired_bootstrap(cost["pre-trained"], cost["SFT"]),
    share=metrics.paired_bootstrap(right_user["SFT"], right_user["pre-trained"]), origin=origin, n=len({e.user for e in examples}),
)

# %% [markdown]
# Two different things can be learned from the same loss. *Which titles exist, and how they are spelled* is true for every user, and is learned from
# the prefix. *Which of them this user wants* can be learned only from the history. Cross-entropy adds both up, token by token, and there are many
# more tokens of the first kind. Notebook 06 observes when each of the two is learned.

# %% [markdown] tags=["definition"]
# ### Exercise 01.5 · Ten against sixty
#
# *Difficulty 2/5 · importance 4/5 · 5 minutes*
#
# Masking the user's titles lowers the probability of the target by 10%. Masking the task description lowers it by 60%.
# What is $A_{\text{TASK}} / A_{\text{HISTORY}}$ in our measure?

# %% tags=["exercise"]
ratio = ...  # a number

# %% tags=["check"]
checks.check("01.5", ratio);

# %% [markdown] tags=["definition"]
# <details><summary>I divided sixty by ten</summary>
#
# A drop of 60% leaves 40% of the probability. $A = \log P - \log (0.4\,P)$.
# </details>
#
# <details><summary>What does this ratio say about the model, and what not?</summary>
#
# For this target, the model leans far more on the instruction than on the person. The instruction is the same for
# everybody, so this part of the prediction is the same for everybody too. It does *not* say that the user is ignored: ten per
# cent is not nothing. And one target is no evidence: look at many, with an interval.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 01.5
ratio = math.log(1 - 0.6) / math.log(1 - 0.1)
checks.check("01.5", ratio);

# %% [markdown]
# ## 6. One prompt, token by token
#
# A segment has many tokens. Now we ablate single tokens, one at a time, and colour the prompt by what each of them is worth for the whole title.
#
# The last token before the answer is special, because the next token is predicted from its position. Masking it breaks the readout rather
# than removing evidence, so the question and the pictures leave it out.

# %%
predict("01.d", "Which single token of the prompt matters most, apart from the last one (the bullet before the answer)?", ...)

# %% jupyter={"source_hidden": true}
maps = {name: attribution.token_attribution(model, example) for name, model in (("pre-trained", base), ("SFT", tuned))}
for single in maps.values():
    single["line"] = 1 + single.token.shift(fill_value="").str.contains("\n").cumsum()
    single["place"] = 1 + single.groupby("line").cumcount()
inside = {name: map[:-1] for name, map in maps.items()}  # without the last token
scale = max(map.attribution.abs().max() for map in inside.values())  # one scale, so that the two can be compared
strongest = {
    name: [f"{row.token!r} ({row.segment}, token {row.place} of line {row.line})" for row in map.nlargest(3, "attribution").itertuples()]
    for name, map in inside.items()
}
moved_most = {name: map.groupby("segment").attribution.apply(lambda a: a.abs().mean()) for name, map in inside.items()}
plots.show(
    plots.token_heatmap(inside["pre-trained"], title=f"Pre-trained: a token of the history moves the target by {moved_most['pre-trained']['HISTORY']:.2f} nats on average", limit=scale),
    alt=f"The prompt as text, each token coloured by its attribution; the strongest are {', '.join(strongest['pre-trained'])}",
)

# %% jupyter={"source_hidden": true}
less = "less" if moved_most["SFT"]["HISTORY"] < moved_most["pre-trained"]["HISTORY"] else "no less"
plots.show(
    plots.token_heatmap(inside["SFT"], title=f"SFT, same scale: a token of the history moves it by {moved_most['SFT']['HISTORY']:.2f} nats, {less} than before", limit=scale),
    alt=f"The same prompt after fine-tuning, on the same colour scale; the strongest tokens are {', '.join(strongest['SFT'])}",
)

# %% jupyter={"source_hidden": true}
sums = maps["pre-trained"].groupby("segment").attribution.sum()
together = helpers.groupby("segment").attribution.sum()  # section 2: same example, same blanks, whole segments
more = [name for name in ("HISTORY", "TASK") if sums[name] > together[name]]
say(
    "Strongest before: {before}. After: {after}. Added up over single tokens, HISTORY comes to {single:+.1f} nats; "
    "blanked all at once, it is worth {whole:+.1f}. For TASK it is {task_single:+.1f} and {task_whole:+.1f}, both with the last token, which "
    "the pictures leave out; the sum without it is {task_rest:+.1f}. So the sum of the parts is more than the whole in {more}.",
    more=" and ".join(more) or "neither",
    before=", ".join(f"`{n}`" for n in strongest["pre-trained"]), after=", ".join(f"`{n}`" for n in strongest["SFT"]),
    single=sums["HISTORY"], whole=together["HISTORY"], task_single=sums["TASK"], task_whole=together["TASK"],
    task_rest=inside["pre-trained"].query("segment == 'TASK'").attribution.sum(),
)

# %% [markdown]
# These pictures need care in two ways.
#
# - What holds for the last token holds, in part, for the other tokens next to the target: some of their attribution is readout, not evidence.
# - Ablation is **not additive**. Where words repeat each other's information, the parts sum to *less* than the whole, since the others still say the
#   same. Where words are needed together, each is charged for all, and the parts sum to *more*. So single tokens do not add up to their
#   segment: use a heat map to look, and a segment to measure.

# %% [markdown]
# **Is a large PREFIX a fault?** It says that the model can finish a title that has begun, and every recommender that writes titles must do that. In a
# title of ten tokens there is often only one movie left after the first two. A large PREFIX is a fault only where it keeps the user from being
# used. So compare ratios between models that pay the same for a title, and do not aim at a ratio of zero.

# %%
reveal({
    "01.a": f"{by_hand.token[by_hand.HISTORY.idxmax()]!r}, token {by_hand.HISTORY.idxmax() + 1} of {len(by_hand)}",
    "01.b": f"{alike:.2f} nats",
    "01.c": f"{direction}: {before[0].item():.1f} before, {after[0].item():.1f} after",
    "01.d": strongest["pre-trained"][0],
})

# %% [markdown]
# ## Recap
#
# In this notebook we have **labelled** the tokens of a prompt, **computed** FAA by hand, with captum and with the helper,
# **chosen** among four ways to leave words out, **read** the bias ratio absolute and signed, per segment and per token, and
# **compared** a model before and after fine-tuning.
#
# **Quick check.** A colleague writes: "our bias ratio fell by half". What do you ask first?
#
# <details><summary>Answer</summary>
#
# Which ablation? Which users, and how wide is the interval? Did HISTORY grow or did PREFIX shrink? And did the *signed* history
# attribution under `resample` grow: does the history help, or does it only change the prediction without improving it?
# </details>
#
# **What could still be wrong.** FAA leaves out one segment at a time, so words that repeat each other's information are undervalued. The users are
# few. And attribution is not accuracy: a model may lean on the user and still recommend badly.
#
# **Next:** why would a model learn to lean on words that are always there? Notebook 02 counts, and then trains.
