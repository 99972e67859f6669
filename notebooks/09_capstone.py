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
# # Is adapter B the better recommender?
#
# This is the capstone. You get a brief, two adapters without names, and the tools of the course. You hand in one page: a *model report* with six figures and a
# recommendation.
#
# After this notebook you can:
#
# - **select** the figures that answer a question, and leave out those that do not,
# - **measure** two models on the same users, with intervals,
# - **decide** by a rule that was fixed before the figures were seen,
# - **report** what is known, what is not, and what would change the recommendation.
#
# *Prerequisites:* notebooks 00, 01, 06 and 07. Plan an hour alone, or 90 minutes in pairs with a discussion of the reports.

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
card("09")

# %% tags=["imports"] jupyter={"source_hidden": true}
import json

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from gdrt_lite import baselines, data, lm, metrics, stranger
from gdrt_lite.course.notebook import predict, reveal
from gdrt_lite.study import report
from gdrt_lite.study.cell import Cell

# %% [markdown]
# ## 1. The brief
#
# > *From: the head of recommendations. To: you.*
# >
# > We have two fine-tuned versions of the same small language model, A and B. Both were tuned on the same examples, from the same start. The
# > team that made B writes: "The bias ratio of B is clearly lower than that of A, so B reads its users more. We should ship B." Please check
# > this. I need one page by tonight: which one do we ship, if any, on which evidence, and what would change your mind? I read six figures
# > at most.
#
# Both adapters lie in the repository, with their lists and attributions for 300 examples of users whom neither has seen. The last cell says which objective made which
# adapter, so please do not look into the folders before.

# %%
splits = data.load_movielens(500).split("new_users", history=5)
folders = dict(zip("AB", sorted((path for path in (data.data_folder() / "adapters").iterdir() if path.is_dir()), reverse=True)))
cells = {name: Cell.read(folder / "cell.json") for name, folder in folders.items()}
users, targets = cells["A"].users, cells["A"].targets
assert users == cells["B"].users and targets == cells["B"].targets, "both were measured on the same examples"
table = report.comparison(cells, reference="A")
claim = table[(table.model == "B") & (table.metric == "bias attention")].iloc[0]
say("The claim can be reproduced: B's bias ratio is {b:.1f}, A's is {a:.1f}, and the difference is **{d:+.1f}** [{low:+.1f}, {high:+.1f}].", b=claim.estimate,
    a=claim.estimate - claim.difference, d=claim.difference, low=claim.difference_low, high=claim.difference_high)

# %% [markdown]
# ## 2. Which figures answer the question?
#
# ### Exercise 09.1 · Select the figures
#
# *Difficulty 3/5 · importance 5/5 · 10 minutes*
#
# The brief asks two things: does B *read its users* more, and does it *recommend* better? Select the three figures that answer these questions directly, as a set of letters.
# The other five may be background, but they are no reason to ship.
#
# - **a** mean loss of the training in the last steps
# - **b** NDCG@10 of B minus A on the same new users, with an interval
# - **c** the bias ratio of B minus A
# - **d** own minus stranger of B minus A: the log-probability of the right title after the user's own history, less that after a stranger's
# - **e** the share of the attention heads that look at the history
# - **f** NDCG@10 of each minus that of best-sellers, on the same users
# - **g** the number of different titles that each recommends
# - **h** mean absolute attribution of the history

# %% tags=["exercise"]
chosen = ...  # for example {"a", "c", "e"}

# %% tags=["check"]
checks.check("09.1", chosen);

# %% [markdown]
# <details><summary>Is the ratio not the measure of the paper?</summary>
#
# It is a ratio of absolute effects. Notebook 07 showed that it follows the NLL, and that the control `reversed` lowers it too.
# </details>
#
# <details><summary>Why compare with best-sellers?</summary>
#
# B may be better than A while both are worse than a list that is the same for everybody.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 09.1
chosen = {"b", "d", "f"}
checks.check("09.1", chosen);

# %% [markdown]
# ## 3. A rule before the figures
#
# ### Exercise 09.2 · Decide by rule
#
# *Difficulty 3/5 · importance 5/5 · 15 minutes*
#
# Fix the decision before you see the figures. Each entry of `evidence` is an interval (low, high):
#
# - `"A over popularity"`, `"B over popularity"`: NDCG@10 minus that of best-sellers. A model is *admissible* if its interval lies above zero.
# - `"B minus A"`: NDCG@10 of B minus that of A.
# - `"ratio"`: the bias ratio of B minus that of A. It is reported, and plays no part in the decision.
#
# Return `"neither"` if no model is admissible, the name of the model if only one is, and otherwise `"A"` or `"B"` where the interval of the difference
# excludes zero and `"undecided"` where it does not. An interval that ends exactly at zero includes it.

# %% tags=["exercise"]
def decide(evidence: dict[str, tuple[float, float]]) -> str:
    """"A", "B", "neither" or "undecided"."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("09.2", decide);

# %% [markdown]
# <details><summary>One case comes out as B although the check wants A</summary>
#
# Is B admissible in that case? The order of the questions matters: first who may be shipped at all, then who is better.
# </details>
#
# <details><summary>An interval around zero</summary>
#
# It is evidence neither for equality nor for a difference. Return the word that says so.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 09.2
def decide(evidence: dict[str, tuple[float, float]]) -> str:
    """"A", "B", "neither" or "undecided"."""
    admissible = [name for name in "AB" if evidence[f"{name} over popularity"][0] > 0]
    if len(admissible) < 2:
        return admissible[0] if admissible else "neither"
    low, high = evidence["B minus A"]
    return "B" if low > 0 else "A" if high < 0 else "undecided"

checks.check("09.2", decide, ours=True);

# %% [markdown]
# ## 4. Measure
#
# Your rule is fixed, and the next cells measure.

# %%
predict("09.a", "What will the rule say: A, B, neither or undecided?", ...)
predict("09.b", "Is own minus stranger higher for B than for A, by an interval that excludes zero?", ...)

# %%
histories = [[splits.catalogue[title] for title in history] for history in cells["A"].histories]
best_sellers = baselines.popularity(splits.train, splits.catalogue, histories, exclude_history=True)
wanted = [splits.catalogue[title] for title in targets]
gains = {name: metrics.ndcg_at_k(cell.lists, targets, 10) for name, cell in cells.items()}
gains["popularity"] = metrics.ndcg_at_k([[title for title, _ in ranked[:10]] for ranked in best_sellers], wanted, 10)
found = {f"{name} over popularity": metrics.paired_bootstrap(gains[name], gains["popularity"], users) for name in "AB"}
found["B minus A"] = metrics.paired_bootstrap(gains["B"], gains["A"], users)
cost = metrics.paired_bootstrap(cells["B"].nll, cells["A"].nll, users)
display(pd.DataFrame({"NDCG@10": {name: f"{values.mean():.3f}" for name, values in gains.items()}}))
pd.DataFrame({"difference in NDCG@10 [95%]": {name: f"{interval:+.3f}" for name, interval in found.items()}})

# %% [markdown]
# The lists do not show whether a model *reads* its users. For that we measure own minus stranger, on the same examples for both models.

# %%
people = data.sample(splits.test, pick(quick=24, standard=200, full=1000), seed=0)
worth = {}
for name, folder in folders.items():
    model = lm.load("smollm2-135m", adapter=folder)
    worth[name] = stranger.own_minus_stranger(model, people, strangers=3)
    del model
reading = {name: metrics.bootstrap(own.difference, own.user) for name, own in worth.items()}
reads_more = metrics.paired_bootstrap(worth["B"].difference, worth["A"].difference, worth["A"].user)
pd.DataFrame({"own minus stranger, nats a title [95%]": {**{name: f"{interval:+.2f}" for name, interval in reading.items()}, "B minus A": f"{reads_more:+.2f}"}})

# %%
evidence = {name: (interval.low, interval.high) for name, interval in found.items()} | {"ratio": (claim.difference_low, claim.difference_high)}
answer = checks.yours("09.2")(evidence)
say("The rule says: **{answer}**.", answer=answer)

# %% [markdown]
# ## 5. The report
#
# | points | the report ... |
# |---|---|
# | 3 | answers the brief in its first two sentences |
# | 3 | names at most six figures, each with its interval and its number of users |
# | 3 | says whether the claim "B reads its users more" is shown, by own minus stranger and not by the ratio |
# | 2 | explains why the ratio could fall without any gain for the user (what does B pay for a title?) |
# | 2 | compares both with a list that reads nobody |
# | 2 | names what was not measured: other seeds, other data, equal NLL, the search |
# | 1 | says what result would change the recommendation |
#
# A report with fourteen of the 16 points can be sent. In a workshop, exchange reports and grade each other's.
#
# ### Exercise 09.3 · One page
#
# *Difficulty 4/5 · importance 5/5 · 30 minutes*
#
# Write the report as a text of at most 400 words. Put figures in by name, as `{reads_more:+.2f}` in an f-string, so that they stay true when the
# evidence changes. The check reads only what a machine can see: length, and whether the necessary subjects occur. Grade the rest by the rubric.

# %% tags=["exercise"]
page = ...  # f"""We should ..."""

# %% tags=["check"]
checks.check("09.3", page);

# %% [markdown]
# <details><summary>How do I begin?</summary>
#
# Begin with the answer: which one do we ship, if any? Then give the two figures on which it rests.
# </details>
#
# <details><summary>The check says that a subject is missing</summary>
#
# It looks for these words: NDCG, own minus stranger, popularity or best-sellers, ratio, NLL, seed, users.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 09.3
try:
    verdict = {"neither": "We should ship neither A nor B", "undecided": "The evidence does not choose between A and B"}.get(answer, f"We should ship {answer}")
    direction = "higher for B" if reads_more.low > 0 else "lower for B" if reads_more.high < 0 else "not told apart"
    nll_reading = "B pays more for the right title, so it has got less far, and a smaller ratio is what that alone would bring." if cost.low > 0 else (
        "B does not pay more for the right title, so this is not for want of progress.")
    page = f"""**{verdict}.** Minus best-sellers, which read nobody, NDCG@10 is {found["A over popularity"]:+.3f} for A and {found["B over popularity"]:+.3f} for B (figures 1 and 2;
popularity on the same {len(users)} examples of {len(set(users))} users), and B minus A is {found["B minus A"]:+.3f} (figure 3).

**Does B read its users more?** Own minus stranger is {direction}: {reads_more:+.2f} nats a title (figure 4, {len(set(worth["A"].user))} users). The claim rests on the bias ratio, which is indeed lower
by {-claim.difference:.1f} (figure 5). But the ratio compares absolute effects, and it follows the NLL. Here the NLL of B minus A is {cost:+.2f} nats (figure 6). {nll_reading}

**Not measured:** one seed for each, one data set, no comparison at equal NLL, and lists from a search with ten beams. **What would change this:** several seeds of both, tuned until they
beat popularity, in which own minus stranger and NDCG@10 are both clearly higher for B at equal NLL."""
except NameError:  # without the measurements above: what a report looks like
    page = "We ship neither: NDCG does not exceed popularity, own minus stranger is not told apart, the ratio follows the NLL; one seed, few users."
checks.check("09.3", page)
display(Markdown(page))

# %% [markdown]
# ## 6. The names
#
# Run the last cells only when your page is written.

# %% jupyter={"source_hidden": true}
made = {name: json.loads((folder / "settings.json").read_text()) for name, folder in folders.items()}
say("A was tuned by **{a}** and B by **{b}**{tau}, each on {n:,} examples. {lesson}", a=made["A"]["objective"], b=made["B"]["objective"],
    tau=f" with tau {made['B']['tau']:g}" if made["B"]["objective"] == "gdrt" else "", n=made["A"]["n_examples"],
    lesson="By the test that fits the question B does read its users more, and still its lists are not shown to be better. Reading and recommending are two questions, and the "
    "ratio answers neither." if reads_more.low > 0 and answer != "B" else "The lower ratio is real, and the conclusion drawn from it does not follow.")
reveal({"09.a": answer, "09.b": f"{'yes' if reads_more.low > 0 else 'no'} ({reads_more:+.2f} nats)"})

# %% [markdown]
# ## Recap
#
# In this notebook we have **selected** the figures that answer a brief, **measured** two adapters on the same users, **decided** by a rule that was fixed
# beforehand, and **reported** on one page.
#
# **Quick check.** Your colleague's report says: "B is better, p below one in twenty, on 64 users and one seed." What do you ask?
#
# <details><summary>Answer</summary>
#
# Better in which figure, and was that figure chosen beforehand? Does either beat a list that is the same for everybody? Would another seed of the same training agree? One
# seed covers other users of *this* training only.
# </details>
#
# **What could still be wrong.** There are only two adapters of one small model, with little training. The rubric rewards honesty about that, and it does not replace a
# larger study. **Two more capstones:** design the arm that decides Mechanism 1 (notebook 02), or beat GDRT with one line of loss (notebook 06).
