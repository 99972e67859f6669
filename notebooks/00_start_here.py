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
# # Does the model read the user?
#
# A language model has been fine-tuned to recommend movies. It is given the titles that somebody has rated, and it answers with a list of ten.
# The list looks sensible, but is it *this user's* list? We first compare the lists of two very different people, and then take the user away.
#
# After this notebook you can:
#
# - **see** in a model's lists whether it tells its users apart,
# - **test** whether a list depends on the user: wipe the history, swap it with a stranger's, and know the noise floor of the test,
# - **question** what the order of a history means in these data,
# - **compare** two recommenders on the same users, with a confidence interval,
# - **recommend** with a language model in one call, and explain how the list is made,
# - **find** your way through the course.
#
# *Prerequisites:* Python, and a little PyTorch.

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
card("00")

# %% tags=["imports"] jupyter={"source_hidden": true}
import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import pandas as pd

from gdrt_lite import baselines, data, decoding, lm, metrics, stranger
from gdrt_lite.course import doctor
from gdrt_lite.study.cell import read_cells
from gdrt_lite.course.notebook import predict, reveal
from gdrt_lite.data import Example
from gdrt_lite.plots import canvas

# %% [markdown]
# ## 1. Two people, two lists?
#
# The data are real: MovieLens records who rated which movie. The model is real too: SmolLM2 is a small language model, which was fine-tuned in the
# usual way (*supervised fine-tuning*, SFT) on the histories of other users. The repository keeps the lists that it gave to people it had never
# seen. Beside them stand the lists of a recommender that only *counts* which title follows which. Section 5 builds it, under the name *item-to-item transitions*.

# %%
splits = data.load_movielens(500).split("new_users", history=5)
cells = read_cells(data.data_folder() / "results" / "archive" / "cells")
kept = [cell for cell in cells if (cell.config.data, cell.config.model) == ("movielens", "smollm2-135m")]
after_sft = [cell for cell in kept if cell.method == "sft"]  # one a training seed
counting = next(cell for cell in kept if cell.method == "item-transitions")
shown, titles = after_sft[0], splits.catalogue

# %% [markdown]
# Which two people differ most? We take the first 120 histories, and of all pairs the one whose genres overlap least,
# the first where several overlap equally little. The pair is picked for its contrast, so it is an illustration and no estimate.

# %%
predict("00.a", "After SFT, how many of ten titles will these two people be given in common?", ...)

# %% jupyter={"source_hidden": true}
def genres_of(history: Sequence[int]) -> Counter[str]:
    """Share of each genre in a history; a title with two genres counts half for each."""
    own = Counter()
    for title in history:
        for genre in (genres := splits.genres.get(titles[title], ())):
            own[genre] += 1 / len(genres) / len(history)
    return own


tastes = {i: own for i in range(120) if sum((own := genres_of(shown.histories[i])).values()) > 0.9}
overlap = {(a, b): (sum((tastes[a] & tastes[b]).values()), a, b) for a, b in itertools.combinations(tastes, 2) if shown.users[a] != shown.users[b]}
one, other = min(overlap, key=overlap.get)
pair = pd.DataFrame({(f"user {shown.users[i]}", name): [titles[t] for t in cell.lists[i]] for i in (one, other) for name, cell in (("SFT", shown), ("counting", counting))},
                    index=range(1, 11))
for i in (one, other):
    print(f"user {shown.users[i]} has rated:", "; ".join(titles[t] for t in shown.histories[i]))
twice = set(pair.iloc[:, 0]) & set(pair.iloc[:, 2]), set(pair.iloc[:, 1]) & set(pair.iloc[:, 3])
pair.apply(lambda column: column.map(lambda t: f"= {t}" if t in twice[column.name[1] == "counting"] else t)).style.set_uuid("pair").set_properties(**{"text-align": "left"})

# %% jupyter={"source_hidden": true}
say(
    "`=` marks a title that both are given. Their histories share no genre to speak of (overlap {overlap:.0%}). After SFT they share **{sft}** of 10 titles, "
    "with counting **{count}**.",
    overlap=overlap[one, other][0], sft=len(twice[0]), count=len(twice[1]),
)

# %% [markdown]
# That was one pair. For all users we ask two questions, which have different answers. How many users get the *same first title*? And how many
# lists *contain* the title that is recommended most often, in whatever place?

# %% jupyter={"source_hidden": true}
def same_first(lists: Sequence[Sequence[int]]) -> float:
    return Counter(ranked[0] for ranked in lists).most_common(1)[0][1] / len(lists)


def contain_commonest(lists: Sequence[Sequence[int]]) -> float:
    return Counter(title for ranked in lists for title in ranked).most_common(1)[0][1] / len(lists)


say(
    "Over {seeds} trainings by SFT, **{first_low:.0%} to {first_high:.0%}** of {n} lists begin with the same title, and **{low:.0%} to {high:.0%}** contain the title "
    "recommended most often. With counting it is {first:.0%} and {contain:.0%}.",
    seeds=len(after_sft), n=len(shown.lists), first_low=min(same_first(c.lists) for c in after_sft), first_high=max(same_first(c.lists) for c in after_sft),
    low=min(contain_commonest(c.lists) for c in after_sft), high=max(contain_commonest(c.lists) for c in after_sft),
    first=same_first(counting.lists), contain=contain_commonest(counting.lists),
)

# %% [markdown]
# This is the phenomenon that the course is about: the list looks like a recommendation, and much of it is the same for everybody.

# %% [markdown]
# ## 2. Take the user away
#
# Lists that agree are a symptom. A direct test needs the model itself, so we load it. We ask about people of the *test* part, whose ratings
# were not used in training. One example is a *history*, up to five titles that a user rated, and the *target*, which is the title rated next.
# A window that slides along a user's ratings gives many such examples. Most users are for training (*train*), some are for choosing
# settings (*valid*), and some are for the final measurement (*test*).

# %%
adapter = data.data_folder() / "adapters" / "movielens-sft"
tuned_here = (adapter / "adapter_config.json").exists()
model = lm.load("smollm2-135m", adapter=adapter) if tuned_here else lm.load("smollm2-135m")
people = data.sample(splits.test, pick(quick=12, standard=67, full=268), seed=0)
someone, somebody_else = people[1], people[2]
BEAMS = 16  # how widely the list is searched, section 6

# %% jupyter={"source_hidden": true}
say("The model is SmolLM2 {which}.", which="with the released SFT adapter, the few weights that such a fine-tuning has added" if tuned_here else "as it was before any tuning, since no adapter lies here")
print(someone)

# %% [markdown]
# First we look at probabilities. Take the title that this user rated next. How much likelier does the model find it when the prompt holds the
# user's *own* history than when it holds a *stranger's*? The *cost* of a title is minus the logarithm of its probability. The measure is called
# **own minus stranger**. It is a difference of log-probabilities, in *nats* (one nat is a factor of $e$). Zero means that the
# model does not read the user. Whatever is common to all users cancels in the difference: the task, popularity, and the wording of titles.

# %% jupyter={"source_hidden": true}
worth = stranger.own_minus_stranger(model, people, strangers=5)
own_worth = metrics.bootstrap(worth.difference, worth.user)
say(
    "The right title costs {cost:.1f} nats after the own history. Own minus stranger is **{worth:+.2f}** nats [95% interval over {n} users, explained in section 3]. {reading}",
    cost=-worth.own.mean(), worth=own_worth, n=worth.user.nunique(),
    reading="So the model reads something of its users, and most of this cost does not depend on who they are." if own_worth.low > 0 else
    "The interval includes zero, so these users do not show that the model reads them.",
)

# %% [markdown]
# Then we look at lists, and ask for the list of one person in four ways:
#
# - **own**: with the user's own history,
# - **own, again**: the same question, in a batch with other people,
# - **wiped**: with no history at all,
# - **swapped**: with the history of a stranger.
#
# The second one looks superfluous. But numerical rounding depends on which prompts share a batch, and a search that follows only the best
# beginnings can amplify tiny differences. So *own, again* shows how many titles change without any reason, which is the **noise floor** of the test.

# %%
predict("00.b", "With a stranger's history, how many of this user's ten titles will remain?", ...)

# %%
Lists = list[list[str]]

def ask(histories: Sequence[Sequence[str]], **options) -> Lists:
    lists = decoding.recommend(
        model, histories, splits.catalogue, k=10, beams=BEAMS, exclude_history=True, progress=len(histories) > 20, **options
    )
    return [[title for title, _ in ranked] for ranked in lists]

own, wiped, swapped = ask([someone.history, (), somebody_else.history])
again = ask([somebody_else.history, people[0].history, someone.history, people[3].history, people[4].history])[2]
print("own history:     ", "; ".join(someone.history))
print("stranger's:      ", "; ".join(somebody_else.history))
print("rated next:      ", someone.target)
own_list = own
side_by_side = pd.DataFrame({"own": own, "own, again": again, "wiped": wiped, "swapped": swapped}, index=range(1, 11))
side_by_side.map(lambda t: f"= {t}" if t in own else t).style.set_uuid("lists").set_properties(**{"text-align": "left"})

# %% jupyter={"source_hidden": true}
say(
    "`=` marks what stands in the own list too. Asked again, **{again}** of 10 titles stay. Without any history **{wiped}** stay, and with a stranger's "
    "**{swapped}**.",
    again=len(set(own) & set(again)), wiped=len(set(own) & set(wiped)), swapped=len(set(own) & set(swapped)),
)

# %% [markdown]
# **How exercises work here.** Write your answer into the cell, run it, and run the check below it. If you are stuck, open the hint that matches
# your symptom. The solution is folded. When its cell runs, its function replaces yours, so that
# the notebook runs to its end; your text stays in your own cell.

# %% [markdown]
# ### Exercise 00.1 · How much survives
#
# *Difficulty 1/5 · importance 4/5 · 5 minutes*
#
# Return the share of the first list's titles that the second list still holds. Their places do not matter.

# %% tags=["exercise"]
def survival(before: Sequence[str], after: Sequence[str]) -> float:
    """Share of the titles in `before` that are still in `after`, from 0 to 1."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("00.1", survival);

# %% [markdown]
# <details><summary>My number is too small</summary>
#
# Do you compare place by place, or divide by the titles of *both* lists?
# </details>
#
# <details><summary>My number is above one</summary>
#
# A count is no share yet.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 00.1
def survival(before: Sequence[str], after: Sequence[str]) -> float:
    """Share of the titles in `before` that are still in `after`, from 0 to 1."""
    return len(set(before) & set(after)) / len(before)

checks.check("00.1", survival);

# %% [markdown]
# ## 3. Many users, with an interval
#
# One user proves little, so we ask for many. Each one's stranger is the next user in line, and *own, again* asks everybody a second time, in
# batches of other people. One wiped list serves everybody, because without a history all prompts are the same.

# %%
histories = [person.history for person in people]
strangers = histories[1:] + histories[:1]
lists = {"language model": {
    "own": ask(histories), "own, again": ask(histories[::-1], batch_size=3)[::-1],
    "swapped": ask(strangers), "wiped": ask([()]) * len(people),
}}

# %% jupyter={"source_hidden": true}
def survivals(lists: dict[str, Lists], other: str) -> list[float]:
    return [survival(before, after) for before, after in zip(lists["own"], lists[other])]

kept_share = {other: metrics.bootstrap(survivals(lists["language model"], other)) for other in ("own, again", "wiped", "swapped")}
say(
    "Over {n} users, **{again:.0%}** of the list survives when the same question is asked again, **{wiped:.0%}** when the history is wiped, and "
    "**{swapped:.0%}** when it is a stranger's [95% intervals]. All users together are offered {coverage} different titles out of {catalogue}.",
    n=len(people), again=kept_share["own, again"], wiped=kept_share["wiped"], swapped=kept_share["swapped"],
    coverage=metrics.coverage(lists["language model"]["own"]), catalogue=len(splits.catalogue),
)

# %% [markdown]
# A *95% interval* is a confidence interval, made here by a *bootstrap*. We draw users from our users, with repeats, two thousand times, and compute the
# mean of each draw. The interval holds the middle 95 of 100 such means. It says how far the figure would move with other users like these, but
# not what another model or another training would show. You will build one yourself in notebook 06.
#
# The three figures belong together. *Own, again* is the noise floor: the swap shows something only as far as it keeps fewer titles than that.
# *Wiped* is not a neutral zero, because a prompt without any title is unusual, and the list may change because of that alone. *Swapped* is the
# cleaner test. For comparison, two random lists share next to nothing, and a list of best-sellers survives almost whole (section 5).
#
# A list that changes *reacts* to the history. Whether it changes towards what this user likes is another question, which own minus stranger asks.

# %% [markdown]
# ### Exercise 00.2 · What survival means
#
# *Difficulty 1/5 · importance 5/5 · 3 minutes*
#
# For another model, nine of ten titles survive a swap with a stranger. What follows?
#
# - **a** It reads the user very well.
# - **b** Its recommendations are bad.
# - **c** Its list depends little on who the user is.
# - **d** It recommends at random.

# %% tags=["exercise"]
meaning = ...  # "a", "b", "c" or "d"

# %% tags=["check"]
checks.check("00.2", meaning);

# %% [markdown]
# <details><summary>Surely such a list is bad?</summary>
#
# A list of everybody's favourites suits many people quite well. Have we compared it with the truth yet?
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 00.2
meaning = "c"
checks.check("00.2", meaning);

# %% [markdown]
# ## 4. What does "next" mean in these data?
#
# We have said "the title that came next". The ratings carry time stamps, so this can be examined. MovieLens asks its users to rate films that
# they remember, and shows them a page of films.

# %%
predict("00.c", "What is the median time between one rating of a user and the next?", ...)

# %% [markdown]
# ### Exercise 00.3 · Look at the clock
#
# *Difficulty 2/5 · importance 5/5 · 10 minutes*
#
# Each entry of `times` holds the times of one user's ratings, in seconds and in order. Return the share of the steps from one rating to the
# next that take less than 60 seconds.

# %% tags=["exercise"]
def within_a_minute(times: Sequence[Sequence[int]]) -> float:
    """Share of the steps between neighbouring ratings of a user that take less than 60 seconds."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("00.3", within_a_minute);

# %% [markdown]
# <details><summary>My share is a little too low or too high</summary>
#
# Only steps within one user count: n ratings have n - 1 steps. Put the steps of all users into one list, and then take the share.
# </details>
#
# <details><summary>How do I get pairs of neighbours?</summary>
#
# `zip(own, own[1:])`.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 00.3
def within_a_minute(times: Sequence[Sequence[int]]) -> float:
    """Share of the steps between neighbouring ratings of a user that take less than 60 seconds."""
    gaps = [after - before for own in times for before, after in zip(own, own[1:])]
    return sum(gap < 60 for gap in gaps) / len(gaps)

checks.check("00.3", within_a_minute, ours=True);

# %% jupyter={"source_hidden": true}
ratings = data.load_movielens(500).frame
times = [own.tolist() for _, own in ratings.groupby("user").time]
gaps = pd.Series([after - before for own in times for before, after in zip(own, own[1:])])
say(
    "The median time between two ratings is **{median:.0f} seconds**. **{minute:.0%}** of the steps take less than a minute, {same:.0%} have the very same time "
    "stamp, and {hour:.0%} take less than an hour.",
    median=gaps.median(), minute=checks.yours("00.3")(times), same=(gaps == 0).mean(), hour=(gaps < 3600).mean(),
)

# %% jupyter={"source_hidden": true}
steps = {"same second": 0, "1 to 9 s": 9, "10 to 59 s": 59, "1 to 59 min": 3599, "1 to 23 h": 86_399, "longer": math.inf}
width = pd.cut(gaps, [-math.inf, *steps.values()], labels=list(steps)).value_counts(normalize=True, sort=False)
figure, (ax,) = canvas.axes(f"{(gaps < 60).mean():.0%} of the steps take less than a minute (hatched), {(gaps == 0).mean():.0%} no time at all", (8.4, 3.2))
bars = ax.bar(width.index, width, color=canvas.colours(1)[0], edgecolor="white")
for bar in bars[:3]:
    bar.set(hatch="//", facecolor=canvas.colours(4)[3])
ax.bar_label(bars, fmt="{:.0%}")
ax.grid(visible=False, axis="x")
ax.set(xlabel="time from one rating of a user to the next", ylabel="share of the steps", ylim=(0, width.max() * 1.15))
plots.show(figure, alt="Bars of the time between two ratings of a user. " + "; ".join(f"{name}: {share:.0%}" for name, share in width.items()))

# %% [markdown]
# A film lasts longer than a minute. So the order of a history is the order of a *rating form*, and within one second it is merely the order of the
# films' numbers. "Next" means "rated next on the page", and part of what any method can learn here is which films the site showed together. This
# limits what every figure of this course on MovieLens says about taste. Where order matters, rely on data with real times, such as
# purchases (notebook 08).

# %% [markdown]
# ## 5. Compare with a recommender that only counts
#
# Is the list any good? We know what each user rated next. **NDCG@10** (*normalised discounted cumulative gain*) rewards a list for holding that
# title, and the more so the higher it stands. It is one for the first place, less for each place below, and zero if the title is missing.

# %% [markdown]
# ### Exercise 00.4 · NDCG with one target
#
# *Difficulty 2/5 · importance 4/5 · 10 minutes*
#
# With one right title, at rank $r$ counted from $0$, NDCG is $1 / \log_2(r + 2)$. If the title is not in the list, it is $0$.

# %% tags=["exercise"]
def ndcg(ranked: Sequence[str], target: str) -> float:
    """NDCG of one list with one right title."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("00.4", ndcg);

# %% [markdown]
# <details><summary>The first place does not give one</summary>
#
# Python counts from 0. What is $\log_2(0 + 2)$? And which function takes the logarithm to base 2?
# </details>
#
# <details><summary>It stops with an error when the title is missing</summary>
#
# `list.index` raises if there is nothing to find. Ask first.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 00.4
def ndcg(ranked: Sequence[str], target: str) -> float:
    """NDCG of one list with one right title."""
    return 1 / math.log2(ranked.index(target) + 2) if target in ranked else 0.0

checks.check("00.4", ndcg);

# %% [markdown]
# The recommender to compare with needs no network and no text. It counts *item-to-item transitions*: how often people who saw this movie went on to
# that one. Libraries file such counting under item-kNN.

# %% [markdown]
# ### Exercise 00.5 · Count what followed what
#
# *Difficulty 2/5 · importance 3/5 · 10 minutes*
#
# Go through the training examples. For each pair (title in the history, target), count the examples that contain it. An example has the
# fields `.history` and `.target`; the keys of the result are pairs `(earlier title, target)`.

# %% tags=["exercise"]
def followed(train: Sequence[Example]) -> Counter[tuple[str, str]]:
    """Windows that have the first title in their history and the second as their target."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("00.5", followed);

# %% [markdown]
# <details><summary>Which title comes first in a pair?</summary>
#
# The earlier one. `counts["Alien", "Aliens"]` is: Alien was in the history, Aliens came next.
# </details>
#
# <details><summary>My counts are too low</summary>
#
# Every title of the history makes a pair with the target, not only the last.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 00.5
def followed(train: Sequence[Example]) -> Counter[tuple[str, str]]:
    """Windows that have the first title in their history and the second as their target."""
    return Counter((title, example.target) for example in train for title in example.history)

checks.check("00.5", followed);

# %% [markdown]
# A raw count favours best-sellers, because they follow everything. So we divide by how often both occur at all, the square root of the product of
# their counts (the *cosine*). We add 10 to the denominator (*shrinkage*), because a pair that was seen once is weak evidence.

# %%
def transitions(train: Sequence[Example], catalogue: Sequence[str]) -> Callable[[Sequence[str]], list[str]]:
    """Item-to-item transitions: returns a function from a history to the ten best titles."""
    pairs, before, after = followed(train), Counter(), Counter()
    for (earlier, later), n in pairs.items():
        before[earlier] += n
        after[later] += n

    def similarity(earlier: str, later: str) -> float:
        return pairs[earlier, later] / (math.sqrt(before[earlier] * after[later]) + 10)

    def recommend(history: Sequence[str]) -> list[str]:
        def rank(title: str) -> tuple[float, int, str]:
            return -sum(similarity(seen, title) for seen in history), -after[title], title

        return sorted((t for t in catalogue if t not in history), key=rank)[:10]

    return recommend

followers = transitions(splits.train, splits.catalogue)
print("seen:", "; ".join(someone.history), "\nnext:", "; ".join(followers(someone.history)))

# %% [markdown]
# The package has the same method as a helper, with matrices. Both must agree:

# %%
helper = baselines.item_transitions(splits.train, splits.catalogue, histories[:5], exclude_history=True)
for history, ranked in zip(histories[:5], helper):
    assert followers(history) == [title for title, _ in ranked]

# %% [markdown]
# The third recommender is a list of best-sellers, which by construction does not read the user. All three get the same users.

# %%
predict("00.d", "Which has the highest NDCG@10 on many users: language model, transitions, or best-sellers?", ...)

# %%
def bestsellers(histories: Sequence[Sequence[str]]) -> Lists:
    ranked = baselines.popularity(splits.train, splits.catalogue, histories, exclude_history=True)
    return [[title for title, _ in own] for own in ranked]

for name, answer in {"transitions": lambda hs: [followers(h) for h in hs], "best-sellers": bestsellers}.items():
    lists[name] = {"own": answer(histories), "swapped": answer(strangers), "wiped": answer([()]) * len(people)}

targets = [person.target for person in people]
gains = {name: metrics.ndcg_at_k(own["own"], targets, 10) for name, own in lists.items()}
assert all(math.isclose(ndcg(r, t), g) for r, t, g in zip(lists["transitions"]["own"], targets, gains["transitions"]))

# %%
rows = []
for name, own in lists.items():
    for metric, values in {
        "survives wiping": survivals(own, "wiped"),
        "survives a stranger": survivals(own, "swapped"),
        "NDCG@10": gains[name],
    }.items():
        rows.append({"model": name, "metric": metric, **metrics.bootstrap(values)._asdict()})
table = pd.DataFrame(rows)
least = table[table.metric == "survives a stranger"].set_index("model").estimate.idxmin()
title = f"The list that depends most on the user: {least} ({len(people)} users, 95%)"
figure = plots.accuracy_intervals(table, ("survives wiping", "survives a stranger", "NDCG@10"), title=title)
for ax in figure.axes[:2]:
    ax.set_xlim(-0.03, 1.03)  # the same scale, so that the two can be compared
spoken = "; ".join(f"{r.model}, {r.metric}: {r.estimate:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in table.itertuples())
plots.show(figure, alt=f"Estimates with 95% intervals of three recommenders on three measures. {spoken}")

# %% jupyter={"source_hidden": true}
gap = metrics.paired_bootstrap(gains["transitions"], gains["language model"])
verdict = "The interval lies above zero: counting wins." if gap.low > 0 else (
    "The interval lies below zero: the language model wins." if gap.high < 0 else "The interval includes zero: with so few users we cannot tell."
)
stays = table[table.metric == "survives a stranger"].set_index("model").estimate
say(
    "NDCG@10: transitions {counted:.3f}, best-sellers {top:.3f}, language model {lm:.3f}. Transitions minus language model, on the same users: "
    "**{gap:+.3f}** [95% interval]. {verdict} And where a stranger's history leaves **{lm_stays:.0%}** of the model's list standing, it "
    "leaves {counted_stays:.0%} of the list that counting made.",
    counted=gains["transitions"].mean(), top=gains["best-sellers"].mean(), lm=gains["language model"].mean(), gap=gap, verdict=verdict,
    lm_stays=stays["language model"], counted_stays=stays["transitions"],
)
say(
    "The ceiling, best-sellers, which read nobody: **{top:.0%}** survive a stranger. Not all, since titles already seen are left out.",
    top=stays["best-sellers"],
)

# %% [markdown]
# With so few users the intervals are wide. The lists of section 1 give the same comparison on many more examples of the test part.

# %% jupyter={"source_hidden": true}
pre_trained = next(cell for cell in kept if cell.method == "pre-trained")
popular = next(cell for cell in kept if cell.method == "popularity")
many = {"transitions": counting, "language model": shown, "best-sellers": popular, "before tuning": pre_trained}
gains_kept = {name: metrics.ndcg_at_k(cell.lists, cell.targets, 10) for name, cell in many.items()}
say(
    "On **{n}** examples of {users} users: {all}. Transitions minus the language model after SFT is **{gap:+.3f}**, and minus best-sellers, which read no history, "
    "**{over:+.3f}** [95% intervals over users].",
    n=len(shown.users), users=len(set(shown.users)), all=", ".join(f"{name} {gain.mean():.3f}" for name, gain in gains_kept.items()),
    gap=metrics.paired_bootstrap(gains_kept["transitions"], gains_kept["language model"], shown.users),
    over=metrics.paired_bootstrap(gains_kept["transitions"], gains_kept["best-sellers"], shown.users),
)

# %% [markdown]
# A list that changes may change at random. Does the *user's own* history help? For the same targets, we take NDCG@10 of the own lists minus that
# of the stranger's lists, and the same minus that of the wiped lists.

# %% jupyter={"source_hidden": true}
for name, own in lists.items():
    for other, words in {"swapped": "a stranger's history", "wiped": "no history"}.items():
        gain = metrics.paired_bootstrap(gains[name], metrics.ndcg_at_k(own[other], targets, 10))
        hits = sum(target in ranked for which in ("own", other) for ranked, target in zip(own[which], targets))
        say(
            "- *{name}*: own history less {words}, **{gain:+.3f}**: {verdict}", name=name, words=words, gain=gain,
            verdict=f"no target is in any of these lists, and from zeros alone we cannot tell. (No hit among {len(people)} users: the true "
            f"rate may still be {3 / len(people):.0%}.)" if not hits else "every user has the same score with both, so that nothing is compared."
            if gain.low == gain.high == 0 else "the own history helps." if gain.low > 0 else
            "the own history harms." if gain.high < 0 else "we cannot tell.",
        )

# %% [markdown]
# *We cannot tell* is an answer about these few users: the interval includes zero, which is not the same as 'no effect'. That the histories *do*
# contain information is shown by the many examples above: there a table of counts, which reads them, is compared with best-sellers, which do not.
# (Without a history, transitions fall back to the best-sellers, which are hard to beat with few users.)

# %%
say(
    "And the language model? **{same:.0%}** of its list is there for a stranger too. What decides that part? Notebook 01 looks.",
    same=stays["language model"],
)

# %% [markdown]
# This comparison favours counting, because the counts come from all training windows, and the model was tuned on a part of them. Whether more or other
# fine-tuning teaches the model to read the *user*, or only to spell the *titles*, is the question of this course.

# %% [markdown] tags=["paper"]
# > **The paper behind the course** is arXiv 2510.10978. Version 1 (October 2025) has the title *Does LLM Focus on the Right Words? Diagnosing Language
# > Bias in LLM-based Recommenders*; versions 2 and 3, and the publication at WWW 2026 (doi 10.1145/3774904.3792607), have *... Mitigating Context
# > Bias in LLM-based Recommenders*. We have read its abstract and a summary, and words such as "mechanism", "break condition" and "failure signature"
# > are the summary's. According to them, the words around the user weigh more than six times as much as the user after plain fine-tuning. The remedy,
# > GDRT (*group distributionally robust optimisation-based tuning*), gives more weight to hard tokens, and NDCG@10 improves by 24.29% on average, as the
# > abstract has it. The authors announce their code at github.com/WANGBohaO-jpg/GDRT.

# %% [markdown] tags=["paper"]
# <details><summary><b>Since then</b>: seven papers, and what each changes for you</summary>
#
# - **MSL** (arXiv 2504.04178) takes the softmax over the tokens that continue some title, so that part of the loss that no user decides disappears.
# - **BEAR** (2601.22925) adapts training to beam search, which prunes titles that it should find: accuracy may be lost in the search.
# - **CFT** (2410.22809) trains on the difference that a user's history makes, a direct rival of reweighting tokens.
# - **IGD** (2506.13229) weighs tokens by how much they decide, and turns down those that follow from the prefix.
# - **Lost in Sequence** (2502.13909) asks whether LLM recommenders use the order of a history at all.
# - **SASRec with full cross-entropy** (2408.14238) shows that a small sequence model, well trained, is a stronger baseline than many reports suggest.
# - **ContextCite** (2409.00729) attributes an answer to parts of its context by a sparse linear model of many ablations, an alternative to leaving out
#   one segment at a time.
# </details>

# %% [markdown]
# ## 6. How the list is made
#
# One call made the lists. Here it is once more, with the scores.

# %%
ranked = decoding.recommend(model, [someone.history], splits.catalogue, k=10, beams=BEAMS, exclude_history=True)[0]
for title, score in ranked:
    print(f"  {score:6.1f}  {title}")

# %% [markdown]
# Three ideas stand behind this.
#
# **Idea 1: a title's score is the probability of its text.** The model reads a prompt, and gives each possible next token a probability. The score
# of a title is the sum of the log-probabilities of its tokens, in nats (zero is certain). The last token, written `<|im_end|>`, says that
# the title ends here. Without it, *Alien* could not be told from the beginning of *Aliens*.

# %%
title = ranked[0][0]
encoded = model.encode(someone.history, title)
print(model.tokenizer.decode(encoded.ids))
tokens = [model.tokenizer.decode([i]) for i in encoded.labels]
by_token = lm.target_logprobs(model, [encoded])[0]
pd.DataFrame({"log-probability": by_token.round(decimals=2)}, index=pd.Index(tokens, name="token")).T

# %% jupyter={"source_hidden": true}
say(
    "The tokens add up to **{total:.1f}** nats. The list above says {listed:.1f}. (They may differ in the first decimal: the "
    "model computes in `{dtype}`, and rounds.) Which token cost the most? `{dearest}`.",
    total=by_token.sum().item(), listed=ranked[0][1], dtype=str(model.model.dtype).removeprefix("torch."),
    dearest=tokens[by_token.argmin()].strip(),
)

# %% [markdown]
# **Idea 2: only titles that exist.** Left alone, the model would invent movies. So we write the catalogue as a tree of tokens, a *trie*. At each
# step the model may only choose among the tokens that continue some title.

# %%
few = [t for t in splits.catalogue if t.startswith(("Back to", "Batman", "Die Hard"))]
trie: dict = {}
for t in few:
    node = trie
    for token in model.encode((), t).labels:
        node = node.setdefault(model.tokenizer.decode([token]), {})
print(*few, sep="\n")
print("\nfirst token:", list(trie))
for word, node in trie.items():
    while len(node) == 1:  # no choice here: go on to where the titles part
        (piece,) = node
        word, node = word + piece, node[piece]
    print(f"after {word!r}:", list(node))

# %% [markdown]
# **Idea 3: follow several beginnings at once.** It would be slow to score every title in full. *Beam search* walks down the tree, and keeps only the best
# few beginnings (the *beams*) at each step. So it can miss a title that begins badly and ends well. A tree with made-up probabilities shows how:

# %%
toy = {
    "The": (0.45, {"Matrix": 0.34, "Rock": 0.33, "Mask": 0.33}),
    "Star": (0.35, {"Wars": 0.5, "Trek": 0.5}),
    "Batman": (0.20, {"(end)": 1.0}),
}
leaves = [(first, rest, p * q) for first, (p, ends) in toy.items() for rest, q in ends.items()]
best = max(leaves, key=lambda leaf: leaf[2])
followed_two = sorted(toy, key=lambda first: -toy[first][0])[:2]  # two beams
assert best[0] not in followed_two

# %% jupyter={"source_hidden": true}
figure, (ax,) = canvas.axes(f"The likeliest title, {best[0]} ({best[2]:.0%}), is lost with two beams: its beginning ranks third", (7.4, 3.4))
height = {first: sum(i for i, leaf in enumerate(leaves) if leaf[0] == first) / len(toy[first][1]) for first in toy}
box = dict(boxstyle="round", facecolor="white", edgecolor="grey")
for first, (p, _) in toy.items():
    line = dict(color=canvas.colours(1)[0], lw=2.5) if first in followed_two else dict(color=canvas.colours(4)[3], lw=2, ls="--")
    ax.plot([0, 1], [-2.5, -height[first]], **line)
    ax.text(1, -height[first], f"{first}  {p:.0%}", ha="center", va="center", bbox=box)
    for i, leaf in enumerate(leaves):
        if leaf[0] == first:
            ax.plot([1, 2], [-height[first], -i], **line)
            ax.text(2, -i, f" {leaf[1]}: {leaf[2]:.0%} in all", va="center", weight="bold" if leaf == best else "normal", bbox=box)
ax.text(0, -2.5, "start", ha="center", va="center", bbox=box)
ax.text(1.35, -5.45, "dashed: not followed", color=canvas.colours(4)[3], va="center")
ax.set(xlim=(-0.2, 2.9), ylim=(-5.8, 0.6))
ax.axis("off")
plots.show(figure, alt="A tree of titles. Two beams follow " + " and ".join(followed_two) + f"; the branch of {best[0]}, the likeliest title, is dashed because it is dropped.")

# %% [markdown]
# How often does this happen to our model? We try it on a small catalogue, where it is quick to score every title in full.

# %%
small = splits.catalogue[:40]
full = [t for t, _ in decoding.score_catalogue(model, (), small)][:10]  # each title in full
found = {
    beams: len(set(full) & {t for t, _ in decoding.recommend(model, [()], small, k=10, beams=beams)[0]})
    for beams in (10, BEAMS, len(small))
}
say(
    "Of the ten best of {n} titles, beam search finds {found}. (At the full width only rounding can make a difference.) "
    "We use {beams} beams.",
    n=len(small), found=", ".join(f"**{hits}** with {beams} beams" for beams, hits in found.items()), beams=BEAMS,
)

# %% [markdown]
# That was a small catalogue and an empty history. With more titles the same beams miss more, as the next cell shows. So when somebody reports the
# accuracy of such a recommender, a part of it is due to the search.

# %% jupyter={"source_hidden": true}
few_users, wide_beams = range(pick(quick=2, standard=8, full=20)), 3 * BEAMS
broad = [
    [[title for title, _ in ranked] for ranked in decoding.recommend(
        model, part, splits.catalogue, k=10, beams=wide_beams, exclude_history=True, batch_size=2, progress=True)]
    for part in ([histories[u] for u in few_users], [strangers[u] for u in few_users])
]
narrower = [lists["language model"][which][u] for which in ("own", "swapped") for u in few_users]
stay_broad = [survival(a, b) for a, b in zip(*broad)]
stay_narrower = [survival(lists["language model"]["own"][u], lists["language model"]["swapped"][u]) for u in few_users]
shift = metrics.paired_bootstrap(stay_broad, stay_narrower)
say(
    "The same {n} users, stranger's history: **{broad:.0%}** of the list survives with {wide} beams, {ten:.0%} with {beams}. {verdict} "
    "The lists themselves differ: {same:.0%} of a {beams}-beam list is in the wide one.",
    n=len(few_users), broad=sum(stay_broad) / len(stay_broad), ten=sum(stay_narrower) / len(stay_narrower), wide=wide_beams,
    beams=BEAMS,
    verdict=f"{len(few_users)} users are too few for a confidence interval." if len(few_users) < 6 else
    f"Difference {shift:+.2f} [95% interval]: " + ("the wide search keeps more." if shift.low > 0 else "the wide search keeps less."
    if shift.high < 0 else "so few users cannot tell the two apart."),
    same=sum(survival(a, b) for a, b in zip(narrower, broad[0] + broad[1])) / len(narrower),
)

# %% [markdown]
# The survival figures of this notebook belong to the model *with its search*. A figure from a beam search says nothing about the model's full
# ranking.

# %% [markdown]
# ## 7. Is this computer ready?
#
# The doctor checks everything that the course needs. `OK` is good, `--` is worth knowing, and `FAIL` comes with a remedy. For all details run
# `python -m gdrt_lite doctor` in a terminal.

# %%
answers = doctor.run_checks()
for name in dict.fromkeys(check.name for check in answers):
    own = [check for check in answers if check.name == name]
    print(f"{name:<12}", " ".join(check.status for check in own), *(f"-> {c.remedy}" for c in own if c.status == doctor.FAIL))

# %% jupyter={"source_hidden": true}
broken = sum(check.status == doctor.FAIL for check in answers)
say("{verdict}", verdict="Ready." if not broken else f"**{broken} to repair first**, see the arrows.")

# %% [markdown]
# ## 8. Map of the course
#
# | notebook | question | you will have |
# |---|---|---|
# | **00 start here** | Does the model read the user? | a first suspicion |
# | [01 diagnose context bias](01_diagnose_context_bias_with_faa.ipynb) | Which words does it lean on? | a measure, and its limits |
# | [02 co-occurrence rates](02_cooccurrence_rates.ipynb) | Why would it learn to? | a cause, put to the test |
# | [03 token relevance](03_token_relevance.ipynb) | Which targets can be guessed without the user? | a score per token |
# | [04 cluster groups](04_cluster_groups.ipynb) | How do we group them? | groups of tokens |
# | [05 DRO weights](05_dro_weights_by_hand.ipynb) | Whom do we listen to? | weights, with pencil and in code |
# | [06 fine-tuning](06_gdrt_fine_tuning.ipynb) | Does it work? | models side by side, with intervals |
# | [07 stress tests](07_stress_tests.ipynb) | What would change our mind? | a table of claims and verdicts |
# | [08 your data, your model](08_your_data_your_model.ipynb) | And on mine? | your own run |
# | [09 capstone](09_capstone.ipynb) | Is B the better recommender? | a model report of your own |
#
# Notebooks 01 and 02 are the diagnosis. The remedy is built in 03, 04 and 05, and tried in 06, and 07 tests the results. Every notebook can be
# opened first. If you have little time, take 00, 01, 05 and 06.
#
# `GDRT_PROFILE` sets the size of all runs: `quick` for a laptop, `standard` for a small GPU or patience, `full` for the paper's
# sizes. The code is the same in all three.

# %%
reveal({
    "00.a": f"{len(twice[0])} of 10",
    "00.b": f"{len(set(own_list) & set(swapped))} of 10 (and {len(set(own_list) & set(again))} when asked again)",
    "00.c": f"{gaps.median():.0f} seconds",
    "00.d": f"{max(list(lists), key=lambda name: gains_kept[name].mean())} on {len(shown.users)} examples; for the {len(people)} users of section 5: {verdict}",
})

# %% [markdown]
# ## Recap
#
# In this notebook we have **seen** that a tuned model gives much the same list to different people, and **tested** whether the list depends on the
# user, with the noise floor beside it. We have **questioned** what "next" means in a rating form, and **compared** the model with twenty lines of counting on
# the same users. We have **recommended** in one call, and **found** our way through the course.
#
# **Quick check.** A model's list changes completely when the history is swapped. Has it read the user?
#
# <details><summary>Answer</summary>
#
# It has reacted to the user. Whether it has understood the user is another question, since a random list changes too. You need both: the list
# changes, *and* the user's own history gives better lists than a stranger's.
# </details>
#
# **What could still be wrong.** The order of the ratings is that of a form. The users are few, and each has one test moment. The search may not find
# the model's best titles, and the model may never have read about some of them. Another wording of the prompt may work better. Finally, the
# counting recommender has seen more of these data than the model; notebook 06 gives both the same.
#
# **Next:** notebook 01 looks inside one prompt, and asks which words decided.
