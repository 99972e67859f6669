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
# # How do we group them?
#
# Every target token has a relevance, which says how well it can be guessed without the user (notebook 03). Group DRO needs groups. This
# notebook cuts the relevances into groups with K-means, looks at what each group contains, and asks how much of the result is our choice.
#
# After this notebook you can:
#
# - **run** K-means in one dimension by hand, and get scikit-learn's answer,
# - **read** a group: which tokens, how many, with which losses,
# - **choose** K for a reason, knowing that the data do not choose it for you,
# - **test** whether groups are stable over seeds and over titles,
# - **contrast** token-level with item-level groups, and with groups assigned at random.
#
# *Prerequisites:* the mean, the variance. Notebook 03 defines relevance, and one line repeats it here.

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
card("04")

# %% tags=["imports"] jupyter={"source_hidden": true}
from collections import Counter

import numpy as np
import pandas as pd
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from gdrt_lite import data, dro, groups, lm, metrics, relevance
from gdrt_lite.course.notebook import predict, reveal
from gdrt_lite.plots import canvas

# %% [markdown] tags=["definition"]
# ## 1. Two steps by hand
#
# K-means looks for $K$ centres such that the squared distances of all values to their nearest centre are small. It repeats two moves: each
# value *chooses* its nearest centre, and each centre *moves* to the mean of those who chose it. Both moves can only lower the sum of
# squares, so it settles.
#
# Take six relevances and two centres, started badly on purpose at -9 and -8. Work out with a pencil where the centres are after the
# first step, and after the second. The border lies halfway between two centres.

# %% tags=["needed"]
values = np.array([-9.0, -8.0, -5.0, -1.0, -0.5, 0.0])
start = np.array([-9.0, -8.0])

# %%
centers, steps = start, []
for step in (1, 2, 3):
    border = centers.mean()  # halfway
    left, right = values[values < border], values[values >= border]
    steps.append({"step": step, "border": border, "left": left, "right": right})
    centers = np.array([left.mean(), right.mean()])
    steps[-1]["new centres"] = centers
pd.DataFrame(steps).set_index("step")

# %%
library = KMeans(2, init=start[:, None], n_init=1).fit(values[:, None])
assert np.allclose(np.sort(library.cluster_centers_[:, 0]), centers)

# %% [markdown]
# The first step moves one centre far, and the second lets the value -8 change sides. The third changes nothing, so the method has settled, and
# scikit-learn agrees. The value -5 only just stays on its side: wherever a border runs, some values lie next to it.
#
# In one dimension groups are *intervals*, cut halfway between neighbouring centres. All that K-means finds is $K-1$ cuts.

# %% [markdown]
# ### Exercise 04.1 · One step of K-means
#
# *Difficulty 2/5 · importance 4/5 · 10 minutes*
#
# Any number of centres. A centre that no value chooses stays where it is.


# %% tags=["exercise"]
def kmeans_step(values: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The centres after one step, shape (K,), in the given order."""
    raise NotImplementedError


# %% tags=["check"]
checks.check("04.1", kmeans_step);

# %% [markdown]
# <details><summary>How do I find each value's nearest centre without a loop?</summary>
#
# `values[:, None] - centers` is a matrix with one row a value. Which column is smallest in absolute value?
# </details>
#
# <details><summary>I get a warning and NaN</summary>
#
# The mean of no values is not a number. Keep the old centre then.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 04.1
def kmeans_step(values: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The centres after one step, shape (K,), in the given order."""
    labels = np.abs(values[:, None] - centers).argmin(1)
    return np.array([values[labels == g].mean() if (labels == g).any() else c for g, c in enumerate(centers)])


checks.check("04.1", kmeans_step);

# %% [markdown]
# K-means numbers its clusters in an arbitrary order. We want a fixed one: group 0 is the *least* relevant to the auxiliary tokens (hardest to
# guess without the user), and group $K-1$ the most.

# %% [markdown]
# ### Exercise 04.2 · Group 0 must be the least relevant
#
# *Difficulty 2/5 · importance 3/5 · 5 minutes*
#
# `labels` are K-means' arbitrary numbers, `centers[i]` is the centre of label `i`. Renumber the labels so
# that they ascend with the centre.


# %% tags=["exercise"]
def in_order(labels: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The labels renumbered: 0 for the lowest centre."""
    raise NotImplementedError


# %% tags=["check"]
checks.check("04.2", in_order);

# %% [markdown]
# <details><summary>It works for two clusters, not for three</summary>
#
# `argsort(centers)[0]` is *which label* is lowest. You need the opposite: for each label, *which place* it
# takes.
# </details>


# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 04.2
def in_order(labels: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The labels renumbered: 0 for the lowest centre."""
    return np.argsort(np.argsort(centers))[labels]


checks.check("04.2", in_order);

# %% [markdown]
# ## 2. The real tokens
#
# Relevance is $r_t = \log P_\theta(y_t \mid \text{task}, y_{<t})$, with the history left out. A title that is the target of many training examples
# counts as often, since groups should describe what training sees.

# %%
predict("04.a", "Five groups, from 0 (hardest to guess) to 4: which one holds the most training tokens?", ...)

# %%
splits = data.load_movielens(500).split("new_users", history=5)
model = lm.load("smollm2-135m")
scored = relevance.token_relevance(model, splits.catalogue)
targets = [example.target for example in splits.train]
fitted = groups.fit(scored, targets, n_groups=5)
table = fitted.table()  # one row a token of each title

# %% jupyter={"source_hidden": true}
known = table[table["count"] > 0]
share = known.groupby("group")["count"].sum() / known["count"].sum()
largest = int(share.idxmax())
figure = plots.relevance_distribution(
    table,
    title=f"Group {largest}, the largest, holds {share[largest]:.0%} of the training tokens; group 0 only "
    f"{share[0]:.0%}",
)
plots.show(
    figure,
    alt="Histogram of token relevance cut into five coloured intervals with their means; the right one is "
    "tallest",
)

# %% jupyter={"source_hidden": true}
figure = plots.group_sizes(
    table, title=f"Group sizes range from {share.min():.0%} to {share.max():.0%} of the training tokens"
)
plots.show(
    figure,
    alt="Bars of the share of each group, counted in training targets and in the titles of the catalogue",
)

# %% [markdown]
# K-means does not make groups of equal size. It makes groups of small spread, which are narrow where tokens are many and wide where they are few.
#
# Are these really the fixed points of section 1? One more step by hand, weighted by the counts, must hardly move them. (scikit-learn stops when the
# moves have become tiny.)

# %%
nearest = np.abs(known["relevance"].to_numpy()[:, None] - fitted.centers).argmin(1)
moved = [
    np.average(known["relevance"][nearest == g], weights=known["count"][nearest == g])
    for g in range(fitted.n_groups)
]
assert np.allclose(moved, fitted.centers, atol=0.05) and (nearest == known["group"]).all()
pd.DataFrame(
    {"centre": fitted.centers, "after another step": moved, "share of training tokens": share.to_numpy()}
).round(3)

# %% [markdown]
# ## 3. What the groups contain
#
# A clustering should be read before it is used. These are a few tokens of each group, with what stands before them:

# %%
def words(title: str) -> list[str]:
    """The target tokens of a title as text."""
    return [model.tokenizer.decode([i]) for i in model.encode((), title).labels]


random = np.random.default_rng(0)
shown = {}
for g, part in known.groupby("group"):
    rows = part.iloc[random.choice(len(part), 6, replace=False)]
    shown[f"group {g}"] = [
        f"{''.join(words(r.title)[: r.position])} >{words(r.title)[r.position]}<" for r in rows.itertuples()
    ]
pd.DataFrame(shown)


# %%
def kinds(tokens: list[str]) -> list[str]:
    """first, word, year or end, for each token of a title."""
    opened = max((i for i, token in enumerate(tokens) if "(" in token), default=len(tokens))
    return ["first", *("year" if i >= opened else "word" for i in range(1, len(tokens) - 1)), "end"]


table["kind"] = [
    kind for _, part in table.groupby("title", sort=False) for kind in kinds(words(part["title"].iloc[0]))
]
mix = table.pivot_table(index="group", columns="kind", values="count", aggfunc="sum", fill_value=0)[
    ["first", "word", "year", "end"]
]
mix = mix.div(mix.sum(axis=1), axis=0)
mix.map("{:.0%}".format)

# %% jupyter={"source_hidden": true}
example = splits.test[0].target
marked = " ".join(
    f"{token.strip() or '␣'}<sub>{g}</sub>" for token, g in zip(words(example), fitted.of(example))
)
ends = int(mix["end"].idxmax())
say(
    "One title, each token with its group: {marked}\n\n"
    "First tokens make up **{first:.0%}** of group 0; years make up **{year:.0%}** of group {last}; ends of "
    "titles make up {end:.0%} of group {ends}.",
    marked=marked.replace("<|im_end|>", "END"),
    first=mix.loc[0, "first"],
    year=mix.loc[fitted.n_groups - 1, "year"],
    last=fitted.n_groups - 1,
    end=mix.loc[ends, "end"],
    ends=ends,
)

# %% [markdown]
# Group 0 is not "tokens that need the user". It is mostly *beginnings*, the places where a title is chosen. That makes sense, because the user
# can matter most there. But the clustering does not tell a beginning that the history could predict from one that nothing could predict.
#
# The ends are in the wrong place. No user is needed to know where a title stops, but the pre-trained scorer does not know that our answers stop
# there (notebook 03, section 6). So it puts them among the hard tokens.

# %% [markdown]
# ## 4. Choosing K
#
# The usual recipe plots how much variance $K$ groups explain, and looks for an elbow. A fair test needs a control: the same curve for values
# that certainly hold *no* groups. We take a bell curve and a skewed exponential, of as many values.

# %%
predict("04.b", "Five groups explain what share of the variance of relevance, and of values without any groups?", ...)

# %%
x, w = known["relevance"].to_numpy(), known["count"].to_numpy()


def explained(x: np.ndarray, w: np.ndarray, k: int) -> float:
    """Share of the variance that K-means groups explain."""
    total = w.sum() * np.cov(x, fweights=w, ddof=0)
    return 1 - KMeans(k, n_init=3, random_state=0).fit(x[:, None], sample_weight=w).inertia_ / total


flat = np.ones(len(x), dtype=int)
samples = {
    "relevance": (x, w),
    "bell curve": (random.normal(size=len(x)), flat),
    "exponential": (random.exponential(size=len(x)), flat),
}
elbow = pd.DataFrame(
    [
        {"K": k, "values": name, "explained": explained(*sample, k)}
        for k in range(1, 11)
        for name, sample in samples.items()
    ]
)

# %% jupyter={"source_hidden": true}
at_five = elbow[elbow["K"] == 5].set_index("values")["explained"]
figure = plots.learning_curve(
    elbow,
    "K",
    "explained",
    "values",
    xlabel="K, number of groups",
    ylabel="share of variance explained",
    title=f"Five groups explain {at_five['relevance']:.0%} of relevance, but also "
    f"{at_five['exponential']:.0%} of a smooth exponential",
)
plots.show(
    figure,
    alt="Explained variance over K for relevance, a bell curve and an exponential: three similar curves "
    "without a sharp elbow",
)

# %% [markdown]
# The curves bend alike, so values without any groups have the same "elbow". Relevance rises faster up to about four groups, because of its tall peak
# of easy tokens, and then flattens as the others do. So nothing in the data calls for five groups, or for any other number. $K$ is a choice about
# *resolution*, and its cost can be computed:
#
# - The smallest group gets rarer with $K$, so its loss in a batch is noisier (notebook 05, section 6).
# - Sooner or later a batch holds no token of it at all.

# %% [markdown]
# ### Exercise 04.3 · A batch without a group
#
# *Difficulty 3/5 · importance 3/5 · 10 minutes*
#
# A batch draws `batch_size` targets independently, each title as often as `counts` says. How probable is a
# batch in which no token belongs to `group`? `groups_by_title[i]` are the groups of title $i$'s tokens.


# %% tags=["exercise"]
def absent_probability(
    groups_by_title: list[np.ndarray], counts: list[int], group: int, batch_size: int
) -> float:
    """Probability that none of the batch's tokens belongs to the group."""
    raise NotImplementedError


# %% tags=["check"]
checks.check("04.3", absent_probability);

# %% [markdown]
# <details><summary>I used the group's share of all tokens</summary>
#
# Tokens arrive in titles, and two tokens of one title are not independent. Count *titles* without the group.
# </details>
#
# <details><summary>My result does not depend on counts</summary>
#
# A popular title is drawn more often, so you need a weighted mean over titles.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 04.3
def absent_probability(
    groups_by_title: list[np.ndarray], counts: list[int], group: int, batch_size: int
) -> float:
    """Probability that none of the batch's tokens belongs to the group."""
    without = [group not in ids for ids in groups_by_title]
    return float(np.average(without, weights=counts) ** batch_size)


checks.check("04.3", absent_probability);

# %%
titles = [title for title in splits.catalogue if title in set(targets)]
often = Counter(targets)
sizes = [often[title] for title in titles]
by_k = {k: groups.fit(scored, targets, n_groups=k) for k in (3, 5, 8, 12)}
costs = []
for k, g in by_k.items():
    tokens = g.table().groupby("group")["count"].sum()
    rarest = int(tokens.idxmin())
    absent = absent_probability([g.of(t) for t in titles], sizes, rarest, batch_size=16)
    costs.append(
        {
            "K": k,
            "rarest group": rarest,
            "its share of tokens": tokens.min() / tokens.sum(),
            "absent from a batch of 16": absent,
        }
    )
costs = pd.DataFrame(costs).set_index("K")
costs.assign(**{name: costs[name].map("{:.1%}".format) for name in costs.columns[1:]})

# %% [markdown]
# With few groups, nearly every batch holds every group. The course uses five. The summary that we have read does not give the paper's number, and
# notebook 07 tries others.

# %% [markdown]
# ## 5. Stability
#
# K-means starts at random points, and it can settle in different places. Does the *seed* change the groups? Would another *sample of titles*
# change them? The adjusted Rand index compares two groupings: it is one if they are identical, and zero if they agree as chance would.

# %%
predict("04.c", "Which changes the groups more: another seed, or another sample of titles?", ...)

# %%
def all_ids(g: groups.TokenGroups) -> np.ndarray:
    """Group of every token of the catalogue."""
    return np.concatenate([g.of(title) for title in splits.catalogue])


n = pick(quick=6, standard=20, full=50)
rows = []
for k, base in by_k.items():
    for i in range(n):
        drawn = [titles[j] for j in np.random.default_rng(i).integers(len(titles), size=len(titles))]
        resampled = [title for title in drawn for _ in range(often[title])]
        again = {
            "another seed": groups.fit(scored, targets, n_groups=k, seed=i + 1),
            "other titles": groups.fit(scored, resampled, n_groups=k),
        }
        rows += [
            {"K": k, "changed": what, "agreement": adjusted_rand_score(all_ids(base), all_ids(g))}
            for what, g in again.items()
        ]
stability = pd.DataFrame(rows)

# %% jupyter={"source_hidden": true}
means = stability.groupby("changed")["agreement"].mean()
weaker = means.idxmin()
least, most = (stability[stability["changed"] == name].groupby("K")["agreement"].mean() for name in (weaker, means.idxmax()))
apart = most - least
figure = plots.learning_curve(
    stability,
    "K",
    "agreement",
    "changed",
    xlabel="K, number of groups",
    ylabel="adjusted Rand index with the original",
    title=f"'{weaker.capitalize()}' moves the groups more, most of all at K = {apart.idxmax()}: {least[apart.idxmax()]:.2f} against "
    f"{most[apart.idxmax()]:.2f}",
)
plots.show(
    figure,
    alt="Agreement of groupings over K for other seeds and for resampled titles, with ranges from least to "
    "greatest",
)

# %% jupyter={"source_hidden": true}
other = stability[stability["changed"] == "other titles"].groupby("K")["agreement"].agg(["min", "mean"])
say(
    "Least stable over titles: **K = {k}**, with an agreement of {mean:.2f} on average and {low:.2f} at "
    "worst.",
    k=other["mean"].idxmin(),
    mean=other["mean"].min(),
    low=other.loc[other["mean"].idxmin(), "min"],
)

# %% [markdown]
# The seed matters little: cuts shift slightly, and only tokens next to a cut change sides. (`groups.fit` keeps the best of ten starts.) The titles
# in the data can matter more, and more groups are not simply less stable. The agreement is low where two different sets of cuts are about
# equally good, because then a few titles decide between them, and many tokens change sides together. So check the $K$ that you use.

# %% [markdown]
# ## 6. Item-level groups in comparison
#
# The obvious alternative is one group for a whole title, by its mean relevance. Are item groups a coarse version of token groups?

# %%
item = groups.fit(scored, targets, n_groups=5, level="item")
cross = pd.crosstab(all_ids(fitted), all_ids(item), normalize="index")
cross.index.name, cross.columns.name = "token-level group", "item-level group"
cross.map("{:.0%}".format)

# %% jupyter={"source_hidden": true}
agreement = adjusted_rand_score(all_ids(fitted), all_ids(item))
say(
    "Agreement of the two groupings: **{ari:.2f}** (zero is chance). Token-level centres reach from {a:.1f} "
    "to {b:.1f} nats, item-level ones only from {c:.1f} to {d:.1f}.",
    ari=agreement,
    a=fitted.centers[0],
    b=fitted.centers[-1],
    c=item.centers[0],
    d=item.centers[-1],
)
assert np.ptp(item.centers) < np.ptp(fitted.centers), "averaging over a title narrows the range"

# %% [markdown]
# The rows of the cross table overlap widely, so a token's own group says little about its title's group. Item groups are not a coarse version of token
# groups but another partition. They ask "is this *title* unusual?", while token groups ask "is this *place* hard?". The mean over a title
# mixes its one hard beginning with a dozen easy tokens, and so it hardly shows the beginning.

# %% [markdown]
# ## 7. The weights that DRO would give them
#
# Group DRO (*distributionally robust optimisation*, notebook 05) gives group $g$ the weight $e^{L(g)/\tau} / \sum_h e^{L(h)/\tau}$, where
# $L(g)$ is its loss *with* the history present. A small $\tau$ ("tau") gives nearly all weight to the worst group, and a large one gives
# all groups nearly the same. GDRT tunes with these weights. So we measure the losses of the pre-trained model on real examples, for token
# groups, item groups, and token groups assigned at random.

# %%
windows = data.sample(splits.valid, pick(quick=64, standard=256, full=1024), seed=0)
with_history = lm.target_logprobs(model, [model.encode(e.history, e.target) for e in windows])
token_losses = -torch.cat(with_history)
partitions = {"token": fitted, "item": item, "random": fitted.shuffled(seed=0)}
ids = {
    name: torch.from_numpy(np.concatenate([g.of(e.target) for e in windows]))
    for name, g in partitions.items()
}

# %%
rows = []
for name in partitions:
    L, counts = dro.group_losses(token_losses, ids[name], 5)
    q = dro.group_weights(L, tau=1.0, present=counts > 0)
    rows += [
        {"partition": name, "group": g, "loss": L[g].item(), "weight at tau = 1": q[g].item()}
        for g in range(5)
    ]
start_of_training = pd.DataFrame(rows)
wide = start_of_training.pivot(index="group", columns="partition", values=["loss", "weight at tau = 1"])
wide.round(2)

# %% jupyter={"source_hidden": true}
loss_of = {name: part["loss"].to_numpy() for name, part in start_of_training.groupby("partition")}
assert (np.diff(loss_of["token"]) < 0).all(), "token groups are ordered by loss; shuffled ones would not be"
assert np.ptp(loss_of["random"]) < np.ptp(loss_of["token"]) / 2

figure, axes = canvas.axes(
    f"Losses span {np.ptp(loss_of['token']):.1f} nats over token groups, {np.ptp(loss_of['item']):.1f} over "
    f"item groups, {np.ptp(loss_of['random']):.1f} over random ones",
    (9, 3.6),
    2,
)
for ax, column in zip(axes, ("loss", "weight at tau = 1")):
    canvas.bars(ax, start_of_training, "group", column, "partition", list(range(5)), None)
axes[0].set_ylabel("loss with history (nats per token)")
plots.show(
    figure,
    alt="Bars of loss and DRO weight per group for token, item and random groups: steep for tokens, flat "
    "for random ones",
)

# %% [markdown]
# This gives three lessons before any training.
#
# 1. Token groups come out *ordered by loss*. They were cut by the loss without a history, and the history changes it only so much. So "group 0
#    has the highest loss" follows from the construction, and is no discovery.
# 2. The gaps are wide. A tau that is small beside them puts nearly all weight on group 0 (notebook 05, section 6).
# 3. Random groups have about equal losses, so they get about equal weights. They are the control for "is it the grouping?".
#
# Is it wise to give weight to group 0? That depends on whether *the history helps there*. To find out, compare the loss without a history ($-r$) with
# the loss with it, on the same targets.
#
# One control is needed: any list of film titles shows the model *that* film titles are wanted, and how they are written. This helps, and has nothing to
# do with this user. So we also give it a **stranger's** history. What the user's own history gains over a stranger's is personal.

# %%
predict("04.d", "In which group is the personal gain largest, the own history over a stranger's?", ...)

# %%
strangers = [*windows[1:], windows[0]]
assert all(own.user != other.user for own, other in zip(windows, strangers))
with_stranger = lm.target_logprobs(
    model, [model.encode(o.history, e.target) for e, o in zip(windows, strangers)]
)

gain = pd.DataFrame(
    {
        "group": ids["token"].numpy(),
        "any history": (torch.cat(with_stranger) - torch.cat([scored[e.target] for e in windows])).numpy(),
        "personal": (-token_losses - torch.cat(with_stranger)).numpy(),
        "user": np.repeat([e.user for e in windows], [len(part) for part in with_history]),
    }
)
helped = {
    name: {g: metrics.bootstrap(part[name], clusters=part["user"]) for g, part in gain.groupby("group")}
    for name in ("any history", "personal")
}
pd.DataFrame(
    {name: {g: f"{interval:+.2f}" for g, interval in of.items()} for name, of in helped.items()}
).rename_axis("group")

# %% [markdown]
# The table shows the gain in nats per token, with intervals over users. Left: a stranger's history instead of none. Right: one's own instead of a
# stranger's.

# %% jupyter={"source_hidden": true}
def reading(interval: metrics.Interval) -> str:
    """What the interval allows one to say."""
    return "it helps" if interval.low > 0 else "it hurts" if interval.high < 0 else "no clear effect"


say(
    "In group 0 a stranger's history is worth **{any:+.2f}** nats ({any_word}); replacing it by the user's "
    "own, another **{own:+.2f}** ({own_word}). All this is the *pre-trained* model, before any tuning.",
    any=helped["any history"][0],
    any_word=reading(helped["any history"][0]),
    own=helped["personal"][0],
    own_word=reading(helped["personal"][0]),
)

# %% [markdown]
# The second number is what group 0 can offer to a method that gives it more weight. If it is small, the histories hold little signal, or this model cannot
# read it yet. Counting found signal in such histories (notebook 02, section 3). Whether tuning finds it is the question of notebook 06.

# %%
personal = {g: interval.estimate for g, interval in helped["personal"].items()}
reveal({
    "04.a": f"group {largest}, {share[largest]:.0%}",
    "04.b": f"{at_five['relevance']:.0%} of relevance, {at_five['bell curve']:.0%} of a bell curve, {at_five['exponential']:.0%} of an exponential",
    "04.c": f"{weaker}: mean agreement {means.min():.2f} against {means.max():.2f}",
    "04.d": f"group {max(personal, key=personal.get)}, {max(personal.values()):+.2f} nats; group 0 {personal[0]:+.2f}",
})

# %% [markdown]
# ## Recap
#
# In this notebook we have
#
# - **run** K-means by hand (choose, move, repeat), which in one dimension gives a set of cuts,
# - **read** the groups: mostly beginnings in group 0, years and easy tokens in the last, and ends in the wrong place,
# - **chosen** K as a resolution, since values without groups have the same elbow,
# - **tested** stability, over seeds and over titles,
# - **contrasted** token groups with item groups (another partition) and random ones (equal losses).
#
# **Quick check.** Why does the group with the highest loss come first, whatever the data?
#
# <details><summary>Answer</summary>
#
# The groups are cut by the log-probability without history, and that is nearly minus the loss at the start of training.
# </details>
#
# **What could still be wrong.** Groups are fitted once, with the scorer before tuning, so they describe the model less and less as it learns. And
# K-means minimises squares, so a few very low values can get a group of their own.
#
# **Next:** `05_dro_weights_by_hand` turns group losses into weights.
