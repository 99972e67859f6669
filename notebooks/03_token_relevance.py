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
# # Which targets can be guessed without the user?
#
# A recommender that writes titles predicts them token by token. Some tokens need the user, and others do not: after "Toy" comes "Story",
# whoever is asking. This notebook measures, for every token, how well it can be guessed when the history is left out. The remedy of
# notebooks 04 to 06 is built on this one number.
#
# After this notebook you can:
#
# - **compute** the relevance of a token to the task text and the prefix, by hand and for a catalogue,
# - **relate** it to popularity and to the place in the title,
# - **split** its variance into within and between titles, and say what that means for grouping by token or by title,
# - **compare** three scorers: a pre-trained model, a tuned one, and one that only counts,
# - **say** what a low relevance does not tell.
#
# *Prerequisites:* a causal language model's logits, log-softmax, variance. Notebook 01 explains the segments of a prompt, and what is
# needed of it is repeated here.

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
card("03")

# %% tags=["imports"] jupyter={"source_hidden": true}
from collections import Counter

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from scipy.stats import spearmanr
from torch import Tensor

from gdrt_lite import data, groups, lm, relevance, training
from gdrt_lite.course.notebook import predict, reveal
from gdrt_lite.plots import canvas

# %% [markdown]
# ## 1. One title, by hand
#
# A prompt has three kinds of tokens: TASK (the wording, the same for everybody), HISTORY (the user's titles), and TARGET (the title to
# predict). While the model predicts target token $y_t$, the target tokens before it are the PREFIX. The *relevance* of a target token to
# the auxiliary tokens (task and prefix) is
#
# $$r_t = \log P_\theta(y_t \mid x_{\text{TASK}},\, y_{<t})$$
#
# with the history left out (arXiv 2510.10978, Eq. 3). If it is near zero, the token can be guessed without the user, and if it is far
# below, it cannot. So "relevance" does not mean that a token matters to the user. It means that the auxiliary tokens determine it.
#
# Why this conditional, and not another? By the chain rule
# $\log P(y \mid x_{\text{TASK}}) = \sum_t \log P(y_t \mid x_{\text{TASK}}, y_{<t})$. So the relevances of a title's tokens add up to the
# log-probability of the whole title for a user about whom nothing is known.

# %%
predict("03.a", "Which token of Toy Story (1995) is the hardest to guess, apart from the end?", ...)

# %%
splits = data.load_movielens(500).split("new_users", history=5)
model = lm.load("smollm2-135m")  # pre-trained: it has never seen a recommendation
title = example_title = "Toy Story (1995)"
encoded = model.encode((), title)  # () is the empty history
print(repr(model.tokenizer.decode(encoded.ids)))

# %%
with torch.inference_mode():
    logits = (
        model.model(torch.tensor([encoded.ids], device=model.device)).logits[0].float().cpu()
    )  # (n, vocabulary)
first = encoded.predict_at[0] + 1  # where the title begins
scores = logits.log_softmax(-1)  # row t is the distribution of token t + 1
by_hand = torch.stack([scores[t - 1, encoded.ids[t]] for t in range(first, len(encoded))])


# %%
def words(title: str) -> list[str]:
    """The target tokens of a title as text."""
    return [model.tokenizer.decode([i]) for i in model.encode((), title).labels]


pd.DataFrame({"token": words(title), "r (nats)": by_hand, "probability": by_hand.exp()}).round(3)

# %% [markdown]
# The table is read from top to bottom. The first word can hardly be guessed, because any film could come. The next word then follows
# almost by itself. The bracket and the first digits are in between, since the model cannot know yet that our titles end in a year. The
# later digits are easy.
#
# The last row is unexpected: the end of the title is nearly as hard to guess as its first word. This has nothing to do with users. The
# pre-trained model was never told that a bare title is the whole answer. So a low relevance can also mean *a convention that has not been
# learned yet*, which section 6 takes up.
#
# The package scores many titles at once, shares the work on the task text, and must agree.

# %% jupyter={"source_hidden": true}
helper = relevance.token_relevance(model, [title])[title]
assert torch.allclose(helper, by_hand, atol=0.2), "only bfloat16 rounding may differ"
say(
    "Largest difference between hand and helper: {gap:.3f} nats, the rounding of {dtype}.",
    gap=(helper - by_hand).abs().max().item(),
    dtype=str(model.model.dtype).removeprefix("torch."),
)

# %% [markdown]
# No user appears in any of this. So each distinct title needs one pass, however many users it is the target for.

# %% [markdown]
# ### Exercise 03.1 · Relevance of one title
#
# *Difficulty 2/5 · importance 5/5 · 10 minutes*
#
# `logits` has one row a token: row $t$ scores what comes *after* token $t$. `ids` are the tokens, `first` is
# the place of the title's first token.


# %% tags=["exercise"]
def title_relevance(logits: Tensor, ids: list[int], first: int) -> Tensor:
    """r of the tokens first, first + 1, ... to the end, in nats."""
    raise NotImplementedError


# %% tags=["check"]
checks.check("03.1", title_relevance);

# %% [markdown]
# <details><summary>My values look random</summary>
#
# The usual error is one row. Which row of the logits was computed before token $t$ was read?
# </details>
#
# <details><summary>Some of my values are positive</summary>
#
# A log-probability never is. Has a softmax been applied, and over which axis?
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 03.1
def title_relevance(logits: Tensor, ids: list[int], first: int) -> Tensor:
    """r of the tokens first, first + 1, ... to the end, in nats."""
    scores = logits[first - 1 : -1].log_softmax(-1)  # (T, vocabulary)
    return scores[torch.arange(len(scores)), torch.tensor(ids[first:])]


checks.check("03.1", title_relevance);

# %% [markdown]
# ## 2. The whole catalogue
#
# One call scores all titles, and the result is a table with one row a token. We tell four kinds of tokens apart: the first, the bracketed
# year, the end, and the words between.

# %%
scored = relevance.token_relevance(model, splits.catalogue)
counts = Counter(example.target for example in splits.train)  # how often each title is a training target


# %%
def kinds(tokens: list[str]) -> list[str]:
    """first, word, year or end, for each token of a title."""
    opened = max((i for i, token in enumerate(tokens) if "(" in token), default=len(tokens))
    middle = ["year" if i >= opened else "word" for i in range(1, len(tokens) - 1)]
    return ["first", *middle, "end"]


def token_table(scored: dict[str, Tensor]) -> pd.DataFrame:
    """One row a token: title, position, token, kind, relevance (nats), count (training targets)."""
    parts = []
    for title, values in scored.items():
        tokens = words(title)
        parts.append(
            pd.DataFrame(
                {
                    "title": title,
                    "position": range(len(tokens)),
                    "token": tokens,
                    "kind": kinds(tokens),
                    "relevance": values,
                    "count": counts[title],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


table = token_table(scored)
table.groupby("kind", sort=False)["relevance"].describe()[["count", "mean", "25%", "50%", "75%"]].round(2)

# %% [markdown]
# Next comes the distribution of all relevances, by kind of token.

# %% jupyter={"source_hidden": true}
easy = (table["relevance"] > np.log(0.5)).mean()
figure, (ax,) = canvas.axes(
    f"{easy:.0%} of the tokens would be guessed with a probability above one half", (7, 3.8)
)
sns.histplot(
    table,
    x="relevance",
    hue="kind",
    multiple="stack",
    bins=40,
    palette=canvas.colours(4),
    ax=ax,
    edgecolor="white",
)
for bars, hatch in zip(ax.containers, canvas.HATCHES):
    for bar in bars:
        bar.set_hatch(hatch)
for handle, bars in zip(ax.get_legend().legend_handles, ax.containers[::-1]):
    handle.set_hatch(bars[0].get_hatch())
ax.set(xlabel="relevance, log P(token | task, prefix) (nats)", ylabel="tokens, each title once")
plots.show(
    figure,
    alt="Histogram of token relevance by kind of token; mean in nats: "
    + "; ".join(f"{kind} {mean:.1f}" for kind, mean in table.groupby("kind", sort=False)["relevance"].mean().items()),
)

# %% jupyter={"source_hidden": true}
by_kind = table.groupby("kind")["relevance"].mean()
assert by_kind["first"] == by_kind.min(), "the first token is the hardest to guess"
say(
    "A tall peak at zero and a long tail to the left. Mean relevance: first token {first:.1f} nats, end "
    "{end:.1f}, words between {word:.1f}, year {year:.1f}.",
    **by_kind,
)

# %% [markdown]
# Training on the plain mean treats all these tokens alike, so most of what a batch teaches comes from the most frequent kinds.

# %% jupyter={"source_hidden": true}
by_count = table.groupby("kind")["count"].sum() / table["count"].sum()
say(
    "Of all target tokens in training, {year:.0%} belong to years and {first:.0%} are first tokens.",
    **by_count,
)

# %% [markdown]
# These are the extremes, with the ends left out. The token in question stands between the arrows:

# %%
def sample_tokens(part: pd.DataFrame) -> list[str]:
    """A few tokens with what stands before them."""
    return [f"{''.join(words(row.title)[: row.position])} >{row.token}<" for row in part.itertuples()]


ordered = table[table["kind"] != "end"].sort_values("relevance")
pd.DataFrame({"hardest to guess": sample_tokens(ordered.head(8)), "easiest": sample_tokens(ordered.tail(8))})

# %% [markdown]
# ### Can a whole title be guessed?
#
# Add the tokens up. For how many of the titles is $P(\text{title} \mid \text{task})$ above one in a hundred?

# %%
whole = pd.Series({title: values.sum().item() for title, values in scored.items()}).sort_values(
    ascending=False
)
say(
    "For **{n}** of {all} titles. The most guessable one, *{best}*, has probability {p:.1e}; the median "
    "title {m:.0e}.",
    n=int((whole > np.log(0.01)).sum()),
    all=len(whole),
    best=whole.index[0],
    p=np.exp(whole.iloc[0]),
    m=np.exp(whole.median()),
)

# %% jupyter={"source_hidden": true}
say(
    "The first half of the answer: the pre-trained model can guess no *title* without the user, but "
    "{easy:.0%} of the *tokens* with better than even odds, once somebody has told it how the title begins.",
    easy=easy,
)

# %% [markdown]
# Both hold at once, and training happens on tokens.

# %% [markdown]
# ## 3. Popularity, and the place in the title
#
# What does relevance measure? Two candidates are the popularity of a film, and the place of the token in the title. The model has never seen
# our users, but it may know from its pre-training text which films are famous.

# %%
predict("03.b", "Which explains more of the variance of relevance: the popularity of a title, or the kind of token?", ...)

# %%
titles = [title for title in splits.catalogue if counts[title]]
per_title = pd.DataFrame(
    {
        "popularity": [counts[t] for t in titles],
        "first token": [scored[t][0].item() for t in titles],
        "rest (mean)": [scored[t][1:].mean().item() for t in titles],
        "all (mean)": [scored[t].mean().item() for t in titles],
    },
    index=titles,
)


def rank_correlation(x: pd.Series, y: pd.Series, draws: int = 500) -> str:
    """Spearman's rank correlation with a 95% bootstrap interval over titles."""
    random = np.random.default_rng(0)
    picks = [random.integers(len(x), size=len(x)) for _ in range(draws)]
    low, high = np.quantile([spearmanr(x.iloc[i], y.iloc[i])[0] for i in picks], [0.025, 0.975])
    return f"{spearmanr(x, y)[0]:+.2f} [{low:+.2f}, {high:+.2f}]"


pd.Series(
    {
        column: rank_correlation(per_title["popularity"], per_title[column])
        for column in per_title.columns[1:]
    },
    name="rank correlation with popularity",
).to_frame()

# %% jupyter={"source_hidden": true}
rho = spearmanr(per_title["popularity"], per_title["first token"])[0]
placed = table[table["position"] < 12]
placed_mean = placed.groupby("position")["relevance"].mean()
figure, axes = canvas.axes(
    f"Popularity matters little (rank correlation {rho:+.2f} at first tokens), the place much ({placed_mean.iloc[0]:.1f} to {placed_mean.max():.1f} nats)", (9, 3.8), 2
)
for column, (colour, marker, _) in zip(("first token", "rest (mean)"), canvas.cues(2)):
    axes[0].scatter(
        per_title["popularity"], per_title[column], color=colour, marker=marker, s=14, alpha=0.6, label=column
    )
axes[0].set(xscale="log", xlabel="popularity (training windows that end in it)", ylabel="relevance (nats)")
axes[0].set_xticks([30, 50, 100, 200], ["30", "50", "100", "200"])
axes[0].minorticks_off()
axes[0].legend(fontsize=10)
sns.pointplot(
    placed, x="position", y="relevance", errorbar=("ci", 95), seed=0, n_boot=300, markers="s", ax=axes[1]
)
axes[1].set(xlabel="position in the title (token)", ylabel="mean relevance (nats)")
plots.show(
    figure,
    alt=f"Left, a scatter of relevance over popularity, rank correlation {rho:+.2f} at first tokens. Right, mean relevance over position: "
    + "; ".join(f"{place}: {value:.1f}" for place, value in placed_mean.items()),
)

# %%
shares = {
    name: 1
    - (table["relevance"] - table.groupby(name)["relevance"].transform("mean")).var()
    / table["relevance"].var()
    for name in ("position", "kind")
}
popular = spearmanr(per_title["popularity"], per_title["first token"])[0] ** 2
say(
    "Knowing only the *position* of a token explains **{position:.0%}** of the variance of relevance; "
    "knowing its *kind*, **{kind:.0%}**. Popularity explains {popular:.0%} of the rank variance of first "
    "tokens.",
    popular=popular,
    **shares,
)

# %% [markdown]
# To a good part, relevance tells where in the title we are. It tells little about popularity, and what it does tell comes from fame in the
# pre-training text and not from our users.

# %% [markdown]
# ## 4. Within titles, or between them?
#
# The paper groups *tokens*, not titles, because tokens of one title differ in relevance. The summary of the paper that we have
# read also names a *break condition*: if relevance hardly varies within a title, grouping by token is pointless. This can be
# measured. The squares around the grand mean split exactly in two:
#
# $$\underbrace{\sum_{i,t} (r_{it} - \bar r)^2}_{\text{total}}
# = \underbrace{\sum_{i,t} (r_{it} - \bar r_i)^2}_{\text{within titles}}
# + \underbrace{\sum_{i} T_i\,(\bar r_i - \bar r)^2}_{\text{between titles}}$$
#
# where $\bar r_i$ is the mean of title $i$, with $T_i$ tokens. Two titles by hand:

# %% tags=["needed"]
tiny = {"a": [-8.0, -1.0, 0.0], "b": [-4.0, -2.0]}

# %%
flat = np.concatenate([np.array(v) for v in tiny.values()])
total = ((flat - flat.mean()) ** 2).sum()
within = sum(((np.array(v) - np.mean(v)) ** 2).sum() for v in tiny.values())
between = sum(len(v) * (np.mean(v) - flat.mean()) ** 2 for v in tiny.values())
assert np.isclose(total, within + between)
print(f"total {total:g} = within {within:g} + between {between:g}")

# %% [markdown]
# Both titles have the same mean. So no variance lies between them, and all of it lies within.

# %% [markdown]
# ### Exercise 03.2 · How much of the variance lies within titles?
#
# *Difficulty 2/5 · importance 4/5 · 10 minutes*
#
# Return within over total, for titles of any lengths.


# %% tags=["exercise"]
def within_share(values: dict[str, list[float]]) -> float:
    """Share of the variance of all tokens that lies within titles, between 0 and 1."""
    raise NotImplementedError


# %% tags=["check"]
checks.check("03.2", within_share);

# %% [markdown]
# <details><summary>I am close, but not equal</summary>
#
# Did you average the titles' variances? A title with more tokens counts for more. Add the squares, then divide once.
# </details>
#
# <details><summary>My result is above one</summary>
#
# Divide by the total, not by the between part.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 03.2
def within_share(values: dict[str, list[float]]) -> float:
    """Share of the variance of all tokens that lies within titles, between 0 and 1."""
    tokens = np.concatenate([np.asarray(own, dtype=float) for own in values.values()])
    within = sum(((np.asarray(own) - np.mean(own)) ** 2).sum() for own in values.values())
    return float(within / ((tokens - tokens.mean()) ** 2).sum())


checks.check("03.2", within_share);

# %% [markdown]
# For the catalogue, the share needs something to compare it with. Even if tokens were assigned to titles at random, most variance would be within,
# because the mean of a dozen random tokens hardly varies. So we shuffle all tokens over all titles, and compute the share again.

# %%
predict("03.c", "Is the real share within titles above, below, or inside the range of the shuffled ones?", ...)

# %%
def shuffled(scored: dict[str, Tensor], seed: int) -> dict[str, list[float]]:
    """The same tokens dealt out at random over titles of the same lengths."""
    dealt = np.random.default_rng(seed).permutation(np.concatenate([v.numpy() for v in scored.values()]))
    return dict(zip(scored, np.split(dealt, np.cumsum([len(v) for v in scored.values()])[:-1])))


real = within_share({title: values.tolist() for title, values in scored.items()})
null = [within_share(shuffled(scored, seed)) for seed in range(20)]
say(
    "Within titles: **{real:.1%}** of the variance. With tokens shuffled over titles: {low:.1%} to "
    "{high:.1%}.",
    real=real,
    low=min(null),
    high=max(null),
)

# %% [markdown]
# A part of the variance within titles is just the place in the title. To remove it, subtract from each token the mean of its kind (first,
# word, year, end), and split again.

# %%
adjusted = table.assign(relevance=table["relevance"] - table.groupby("kind")["relevance"].transform("mean"))
left = {title: part["relevance"].tolist() for title, part in adjusted.groupby("title")}
within_left = within_share(left)
null_left = [
    within_share(shuffled({title: torch.tensor(own) for title, own in left.items()}, s)) for s in range(20)
]
item_means = np.array([v.mean().item() for v in scored.values()])
spread = {
    "tokens": np.ptp(np.quantile(table["relevance"], [0.05, 0.95])),
    "titles": np.ptp(np.quantile(item_means, [0.05, 0.95])),
}
say(
    "Kind removed, **{left:.1%}** of what is left is within titles; shuffled, {low:.1%} to {high:.1%}. The "
    "middle nine tenths of the *tokens* span {tokens:.1f} nats, those of the *title means* only "
    "{titles:.1f}.",
    left=within_left,
    low=min(null_left),
    high=max(null_left),
    **spread,
)

# %% jupyter={"source_hidden": true}
figure, (ax,) = canvas.axes(
    f"Titles differ little ({spread['titles']:.1f} nats), tokens much ({spread['tokens']:.1f}): {real:.0%} "
    f"of the variance is within",
    (7, 3.8),
)
some = sorted(data.sample(splits.train, 60, seed=1), key=lambda e: scored[e.target].mean().item())
some = list(dict.fromkeys(e.target for e in some))[:: max(1, len(some) // 14)]
for y, title in enumerate(some):
    values = scored[title]
    ax.plot([values.min(), values.max()], [y, y], color="lightgrey", zorder=0)
    ax.scatter(
        values, [y] * len(values), s=22, color=canvas.colours(1)[0], marker="o", label="token" * (y == 0)
    )
    ax.scatter(
        values.mean(),
        y,
        s=60,
        color=canvas.colours(2)[1],
        marker="D",
        edgecolor="black",
        label="title mean" * (y == 0),
    )
ax.set_yticks(range(len(some)), [t if len(t) < 32 else t[:30] + "…" for t in some], fontsize=8)
ax.set_xlabel("relevance (nats)")
ax.legend(fontsize=8)
plots.show(
    figure,
    alt=f"A dozen titles with the relevance of their tokens and their mean; the middle nine tenths span {spread['tokens']:.1f} nats over tokens, "
    f"{spread['titles']:.1f} over title means",
)

# %% jupyter={"source_hidden": true}
verdict = (
    "is not met: most of the variance lies within titles, even more than under random assignment"
    if real > max(null)
    else "is not met: most of the variance lies within titles, as it would under random assignment"
    if real >= min(null)
    else "is met in part: titles differ by more than they would under random assignment"
)
say(
    "The break condition (relevance varies between titles, hardly within) **{verdict}**. {real:.1%} of the variance is within titles; under random "
    "assignment it is {low:.1%} to {high:.1%}. With the kind of token removed, it is {left:.1%} against {left_low:.1%} to {left_high:.1%}, so titles differ {rest}.",
    verdict=verdict, real=real, low=min(null), high=max(null), left=within_left, left_low=min(null_left), left_high=max(null_left),
    rest="a little more than under random assignment" if within_left < min(null_left) else
    "as much as under random assignment" if within_left <= max(null_left) else "less than under random assignment",
)

# %% [markdown]
# So grouping by title would group things that are almost equal: this scorer sees hardly any title that can be guessed as a whole. But note *why*
# the share is so high. Every title has the same profile, with a hard beginning, an easy middle, and (for this scorer) a hard end.
# Token groups will therefore be, to a good part, groups of *places*. Whether a recommender needs that is not decided by a variance, so
# notebook 07 trains with both kinds of groups.

# %% [markdown]
# ## 5. The best guess without a user, by counting
#
# The model's relevance mixes two things: what *can* be guessed, and what *this model* happens to know. A scorer that knows our catalogue, and
# how often each title is a target, needs neither a user nor a network. It counts:
#
# $$r_t^{\text{count}} = \log \frac{\text{targets that begin with } y_{\le t}}{\text{targets that begin with } y_{<t}}$$

# %% [markdown]
# ### Exercise 03.3 · A scorer that only counts
#
# *Difficulty 3/5 · importance 4/5 · 15 minutes*
#
# `counts` maps each title (a tuple of tokens) to how often it is a target. Score one title of it.


# %% tags=["exercise"]
def counted_relevance(counts: dict[tuple[int, ...], int], title: tuple[int, ...]) -> list[float]:
    """log of the share that goes on with token t, among targets that begin like the title, for each t."""
    raise NotImplementedError


# %% tags=["check"]
checks.check("03.3", counted_relevance);

# %% [markdown]
# <details><summary>My values fall and fall along the title</summary>
#
# They are log-probabilities of openings. A conditional divides by the opening that is one token shorter.
# </details>
#
# <details><summary>Which targets go into the denominator?</summary>
#
# All that agree with the title on the tokens before $t$; at the first token, all of them.
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 03.3
def counted_relevance(counts: dict[tuple[int, ...], int], title: tuple[int, ...]) -> list[float]:
    """log of the share that goes on with token t, among targets that begin like the title, for each t."""
    begins = [sum(n for other, n in counts.items() if other[:t] == title[:t]) for t in range(len(title) + 1)]
    return [float(np.log(after / before)) for before, after in zip(begins, begins[1:])]


checks.check("03.3", counted_relevance);

# %%
labels = {title: model.encode((), title).labels for title in titles}
tree = {labels[title]: counts[title] for title in titles}
counting = {title: torch.tensor(counted_relevance(tree, labels[title])) for title in titles}
assert np.isclose(counting[titles[0]].sum(), np.log(counts[titles[0]] / sum(tree.values())), atol=1e-4)

# %%
forced = torch.cat([v for v in counting.values()]).eq(0).float().mean().item()
loss = {
    name: -np.average([s[t].sum().item() for t in titles], weights=[counts[t] for t in titles])
    for name, s in (("pre-trained", scored), ("counting", counting))
}
say(
    "To one who knows the catalogue, **{forced:.0%}** of the tokens are *forced*: the prefix leaves one "
    "title only. Cost of an average target, in nats: {a:.1f} for the pre-trained model, {b:.1f} for "
    "counting. The gap is what tuning can gain *without looking at a single user*.",
    forced=forced,
    a=loss["pre-trained"],
    b=loss["counting"],
)

# %% [markdown]
# This matters for reading a loss. When SFT starts, the loss falls fast, and it can fall this far by learning the catalogue and its
# popularity alone. A falling loss does not show that the user is read.

# %% [markdown]
# ## 6. Pre-trained against tuned scorer
#
# Which model is $\theta$ in Equation 3, the one before tuning or the one after? The summary that we have read does not say, so we compare both.

# %%
predict("03.d", "When the model is tuned by SFT, which tokens change most: first tokens, words, years, or ends?", ...)

# %%
adapter = data.data_folder() / "adapters" / "movielens-sft"
if adapter.exists():
    tuned, source = lm.load("smollm2-135m", adapter=adapter), "the released SFT adapter"
else:
    windows = data.sample(splits.train, pick(quick=64, standard=512, full=4096), seed=0)
    tuned = training.finetune(model, windows, "sft", training.arguments(model, batch_size=8)).lm
    source = f"a short live tuning on {len(windows)} windows"
say("The tuned scorer here is {source}.", source=source)

# %%
scored_tuned = relevance.token_relevance(tuned, splits.catalogue)
after = token_table(scored_tuned)
both = table.assign(tuned=after["relevance"], change=after["relevance"] - table["relevance"])
both.groupby("kind", sort=False)[["relevance", "tuned", "change"]].mean().round(2)

# %%
known = both[both["count"] > 0].assign(
    counting=torch.cat([counting[t] for t in scored if t in counting]).numpy()
)
correlation = known[["relevance", "tuned", "counting"]].corr("spearman")
loss["tuned"] = -np.average(
    [scored_tuned[t].sum().item() for t in titles], weights=[counts[t] for t in titles]
)
say(
    "An average target costs {before:.1f} nats before tuning, {after:.1f} after, {floor:.1f} by counting. "
    "Rank correlation of token relevance: pre-trained with tuned **{a:.2f}**; with counting, pre-trained "
    "{b:.2f}, tuned **{c:.2f}**. The end-of-title token moved by {end:+.1f} nats on average.",
    before=loss["pre-trained"],
    after=loss["tuned"],
    floor=loss["counting"],
    a=correlation.loc["relevance", "tuned"],
    b=correlation.loc["relevance", "counting"],
    c=correlation.loc["tuned", "counting"],
    end=both.loc[both["kind"] == "end", "change"].mean(),
)

# %% jupyter={"source_hidden": true}
most = both.groupby("kind")["change"].mean().idxmax()
figure, (ax,) = canvas.axes(f"Tuning changes the scores most at the kind '{most}'", (6.4, 4.2))
for kind, (colour, marker, _) in zip(("first", "word", "year", "end"), canvas.cues(4)):
    part = both[both["kind"] == kind]
    part = part.sample(min(len(part), 400), random_state=0)
    ax.scatter(part["relevance"], part["tuned"], s=12, alpha=0.5, color=colour, marker=marker, label=kind)
ax.plot([-15, 0], [-15, 0], color="black", linewidth=1, linestyle="--", label="no change")
ax.set(xlabel="relevance, pre-trained (nats)", ylabel="relevance, tuned (nats)")
ax.legend(fontsize=8)
plots.show(
    figure,
    alt=f"Scatter of tuned against pre-trained relevance by kind of token; tokens of kind {most} lie "
    f"furthest from the diagonal",
)

# %% [markdown]
# Does it matter for the groups? We cluster both (notebook 04 explains how) and count the tokens that change group.

# %%
targets = [example.target for example in splits.train]
fitted = [groups.fit(scores, targets, n_groups=5) for scores in (scored, scored_tuned)]
old, new = (np.concatenate([g.of(title) for title in splits.catalogue]) for g in fitted)
kind_of = np.concatenate([kinds(words(title)) for title in splits.catalogue])
far = abs(old - new) > 1
say(
    "**{moved:.0%}** of the tokens change group when the tuned model scores instead; {far:.0%} move by two "
    "groups or more, and {ends:.0%} of these are ends of titles. The mean group of an end goes from "
    "{before:.1f} to {after:.1f} (0 is the hardest to guess).",
    moved=(old != new).mean(),
    far=far.mean(),
    ends=(kind_of[far] == "end").mean(),
    before=old[kind_of == "end"].mean(),
    after=new[kind_of == "end"].mean(),
)

# %% [markdown]
# This is the weakness of the pre-trained scorer. It puts the *format* (where a title ends) among the hard tokens, next to those that might
# need the user. Any tuning learns the format within a few steps, and from then on the group label is wrong for these tokens.

# %% [markdown]
# Two cautions apply. First, the tuned model was trained *with* histories. A prompt without one is new to it, so some of the change is a
# reaction to an unusual prompt. (For the pocket model the package trains a scorer on prompts without history,
# `training.train_relevance_scorer`.) Second, the summary that we have read does not say which scorer the paper used, so whoever reports groups
# should say which $\theta$ made them.

# %% [markdown]
# ### Exercise 03.4 · What a low relevance means
#
# *Difficulty 2/5 · importance 5/5 · 5 minutes*
#
# A token has a very low relevance under a sound scorer. What follows?
#
# - a: the user's history must be what predicts it.
# - b: the title is rare.
# - c: the task and the prefix do not give it away; whether the history does is another question.
# - d: the scorer is broken.

# %% tags=["exercise"]
meaning = ...  # "a", "b", "c" or "d"

# %% tags=["check"]
checks.check("03.4", meaning);

# %% [markdown]
# <details><summary>I hesitate between a and c</summary>
#
# Look at the formula: does the history appear in it at all?
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 03.4
meaning = "c"

checks.check("03.4", meaning);

# %%
reveal({
    "03.a": repr(words(example_title)[int(by_hand[:-1].argmin())]),
    "03.b": f"the kind of token, {shares['kind']:.0%} (popularity: {popular:.0%} of the rank variance of first tokens)"
    if shares["kind"] > popular else f"popularity, {popular:.0%}",
    "03.c": f"{real:.1%}, shuffled {min(null):.1%} to {max(null):.1%}",
    "03.d": f"{most}: {both.groupby('kind')['change'].mean()[most]:+.1f} nats on average",
})

# %% [markdown]
# ## Recap
#
# In this notebook we have
#
# - **computed** token relevance by hand and for a catalogue, as a log-probability with the history left out,
# - **related** it to popularity (weak) and to the place in the title (strong),
# - **split** its variance, most of which lies within titles,
# - **compared** a pre-trained, a tuned and a counting scorer: tuning first learns the format, and counting shows what it may still learn,
# - **said** what a low relevance does not tell, namely whether the history would help.
#
# **Quick check.** Answer the question of the title in one sentence: which targets can be guessed without the user?
#
# <details><summary>Answer</summary>
#
# As whole titles hardly any. As tokens many: for a reader who knows the catalogue, all that follow once the first tokens have determined
# the title.
# </details>
#
# **What could still be wrong.** The kinds of tokens were cut by a simple rule, which fails for titles without a year. Only one wording of the
# task was used, and another one shifts all scores. This model has read many film titles, so prefixes tell it more than they would for a
# catalogue that it does not know.
#
# **Next:** `04_cluster_groups` turns the scores into groups.
