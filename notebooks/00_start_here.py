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
# Give a language model the movies that somebody has seen, and ask for the next one. It answers with a list. At first sight the list
# looks sensible. But is it *this user's* list? In this notebook we find out, by taking the user away.
#
# After this notebook you can:
#
# - **check** that your computer is ready for the course,
# - **recommend** with a language model in one call, and say what happens inside,
# - **test** whether a list depends on the user: wipe the history, swap it with a stranger's,
# - **compare** two recommenders on the same users, with an interval,
# - **find** your way through the course.
#
# *Before:* Python, and a little PyTorch. Nothing else.

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
card("00")

# %% tags=["imports"]
import math
from collections import Counter
from collections.abc import Callable, Sequence

import pandas as pd

from gdrt_lite import baselines, data, decoding, lm, metrics
from gdrt_lite.course import doctor
from gdrt_lite.study.cell import read_cells
from gdrt_lite.data import Example

# %% [markdown]
# ## 1. Is this computer ready?
#
# The doctor looks at everything the course needs. `OK` is good, `--` is worth knowing, `FAIL` comes with a remedy. For
# all details run `python -m gdrt_lite doctor` in a terminal.

# %%
answers = doctor.run_checks()
for name in dict.fromkeys(check.name for check in answers):
    own = [check for check in answers if check.name == name]
    print(f"{name:<12}", " ".join(check.status for check in own), *(f"-> {c.remedy}" for c in own if c.status == doctor.FAIL))

# %%
broken = sum(check.status == doctor.FAIL for check in answers)
say("{verdict}", verdict="Ready." if not broken else f"**{broken} to repair first**, see the arrows.")

# %% [markdown]
# ## 2. A recommendation in one call
#
# The data are real: MovieLens, who rated which movie, in which order. We keep the movies rated most. The model is
# real too: SmolLM2, a small language model that has read a lot of text and was never trained to recommend. On its first use it
# is fetched and kept.

# %%
splits = data.load_movielens(500).split("new_users", history=5)
model = lm.load("smollm2-135m")
people = data.sample(splits.test, pick(quick=16, standard=67, full=268), seed=0)
BEAMS = 16  # idea 3, below, says what these are
print(splits)
print(people[1])

# %% [markdown]
# One example is one moment in a user's life: the movies rated last, up to five (the *history*), and the one rated next (the *target*).
# We read "rated" as "watched". Sliding a *window* along a user's ratings gives many such examples. They are split by user (`"new_users"`):
# most users are for training (*train*), some for choosing settings (*valid*), some for the final measurement (*test*). So the test users
# are *new*: nothing of theirs is in the training part.
#
# **Predict:** what will a small model recommend to this person, if nobody has ever taught it to recommend?

# %%
someone = people[1]
ranked = decoding.recommend(model, [someone.history], splits.catalogue, k=10, beams=BEAMS, exclude_history=True)[0]
print("seen:", *someone.history, sep="\n  ")
print("\nrecommended:")
for title, score in ranked:
    print(f"  {score:6.1f}  {title}")
print("\nwhat came next:", someone.target)

# %% [markdown]
# That was the one call. What happens inside? Three ideas.
#
# **Idea 1: a title's score is the probability of its text.** The model reads a prompt and says how likely each next
# token is. The score of a title is the sum of the log-probabilities of its tokens, in *nats* (natural logarithm: 0 is certain, and a
# nat less is a factor of $e$). The last token, written `<|im_end|>`, says that the title ends here; without it *Alien* could not be told
# from the beginning of *Aliens*.

# %%
title = ranked[0][0]
encoded = model.encode(someone.history, title)
print(model.tokenizer.decode(encoded.ids))
tokens = [model.tokenizer.decode([i]) for i in encoded.labels]
by_token = lm.target_logprobs(model, [encoded])[0]
pd.DataFrame({"log-probability": by_token.round(decimals=2)}, index=pd.Index(tokens, name="token")).T

# %%
say(
    "The tokens add up to **{total:.1f}** nats. The list above says {listed:.1f}. (They may differ in the first decimal: the "
    "model computes in `{dtype}`, and rounds.) Which token cost the most? `{dearest}`.",
    total=by_token.sum().item(), listed=ranked[0][1], dtype=str(model.model.dtype).removeprefix("torch."),
    dearest=tokens[by_token.argmin()].strip(),
)

# %% [markdown]
# **Idea 2: only titles that exist.** Left alone, the model would invent movies. So we write the catalogue down as a tree of
# tokens, a *trie*. At each step the model may only choose among the tokens that continue some title.

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
# **Idea 3: follow several beginnings at once.** Scoring every title in full is slow. *Beam search* walks down the tree and
# keeps only the best few beginnings (the *beams*) at each step. It can miss a title that begins badly and ends well, and the
# narrower it is, the more it misses. **Predict:** with as many beams as titles on the list, how many of the true ten best are
# found? We try it on a small catalogue, where full scoring is quick.

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
# That was a small catalogue and an empty history. With more titles the same beams miss more, as section 4 will show. Keep this in mind
# when somebody reports the accuracy of such a recommender: part of it is the search.

# %% [markdown]
# ## 3. Now take the user away
#
# Here is the test of this notebook. It needs no theory. Ask for the list three times:
#
# - **own**: with the user's own history,
# - **wiped**: with no history at all,
# - **swapped**: with the history of a stranger.
#
# If the model reads the user, the second and the third list must be other lists. **Predict:** how many of the ten titles
# will still be there after the swap?

# %%
Lists = list[list[str]]
stranger = people[2]

def ask(histories: Sequence[Sequence[str]]) -> Lists:
    lists = decoding.recommend(
        model, histories, splits.catalogue, k=10, beams=BEAMS, exclude_history=True, progress=len(histories) > 20
    )
    return [[title for title, _ in ranked] for ranked in lists]

own, wiped, swapped = ask([someone.history, (), stranger.history])
print("own history:     ", "; ".join(someone.history))
print("stranger's:      ", "; ".join(stranger.history))
side_by_side = pd.DataFrame({"own": own, "wiped": wiped, "swapped": swapped}, index=range(1, 11))
side_by_side.map(lambda t: f"= {t}" if t in own else t).style.set_uuid("lists").set_properties(**{"text-align": "left"})

# %%
say(
    "`=` marks what stands in the own list too. Without any history **{wiped}** of 10 titles stay. With a stranger's "
    "**{swapped}** of 10.",
    wiped=len(set(own) & set(wiped)), swapped=len(set(own) & set(swapped)),
)

# %% [markdown]
# **How exercises work here.** Write into the cell, run it, run the check below it. Hints are folded by symptom, the solution too (where a page
# does not fold, look away). The cell of the solution replaces your function by ours, so that the notebook runs to its end in any case.

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
def survival(before: Sequence[str], after: Sequence[str]) -> float:
    """Share of the titles in `before` that are still in `after`, from 0 to 1."""
    return len(set(before) & set(after)) / len(before)

checks.check("00.1", survival);

# %% [markdown]
# ## 4. One user is an anecdote
#
# So we ask for many users. Each one's stranger is the next user in line. One wiped list serves everybody: with no
# history, all prompts are the same prompt.

# %%
histories = [person.history for person in people]
strangers = histories[1:] + histories[:1]
lists = {"language model": {"own": ask(histories), "swapped": ask(strangers), "wiped": ask([()]) * len(people)}}

# %%
def survivals(lists: dict[str, Lists], other: str) -> list[float]:
    return [survival(before, after) for before, after in zip(lists["own"], lists[other])]

kept = {other: metrics.bootstrap(survivals(lists["language model"], other)) for other in ("wiped", "swapped")}
say(
    "Over {n} users, **{wiped:.0%}** of the list survives when the history is wiped, and **{swapped:.0%}** when it is a "
    "stranger's [95% intervals]. All users together are offered {coverage} different titles out of {catalogue}.",
    n=len(people), wiped=kept["wiped"], swapped=kept["swapped"],
    coverage=metrics.coverage(lists["language model"]["own"]), catalogue=len(splits.catalogue),
)

# %% [markdown]
# The interval is a *bootstrap* interval. We draw users from our users, with repeats, two thousand times, and look at where
# the mean falls: the interval holds the middle 95 of 100 such means. It answers: with other users like these, how different could the
# figure be?
#
# One user in section 3 was an anecdote indeed: compare. And do not read *wiped* as a neutral zero. A prompt with no title in it is an odd
# prompt, and the list may move because of that alone. *Swapped* is the cleaner test.
#
# Is that much, or little? A figure needs something beside it. Two lists of 10 would share next to nothing if both were drawn
# blindly. A list of best-sellers would survive almost whole: it is the same for all, but for the titles a user has already seen.
# Those are left out, and they differ. That ceiling is our real 'everything survives'; section 5 computes it. For the other
# end we need a recommender of which we *know* that it reads the user. We build one in section 5, too.
#
# First the doubt about the search: the same measurement, wide beam, few users.

# %%
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
    verdict=f"{len(few_users)} users are an anecdote: drawn again, they give no interval worth the name." if len(few_users) < 6 else
    f"Difference {shift:+.2f} [95% interval]: " + ("the wide search keeps more." if shift.low > 0 else "the wide search keeps less."
    if shift.high < 0 else "so few users cannot tell the two apart."),
    same=sum(survival(a, b) for a, b in zip(narrower, broad[0] + broad[1])) / len(narrower),
)

# %% [markdown]
# The survival figures of this notebook belong to the model *with its search*. A figure from a beam search is no
# statement about the model's full ranking.

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
# Everybody's favourites are a list that suits many people quite well. Did we compare with the truth yet?
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
meaning = "c"
checks.check("00.2", meaning);

# %% [markdown]
# ## 5. Twenty lines that read the user
#
# Is the list any good? We know what each user chose next. **NDCG@10** (*normalised discounted cumulative gain*) rewards a list for holding that title, the more the
# higher it stands: one for the first place, less for each place below, zero if it is missing.

# %% [markdown]
# ### Exercise 00.3 · NDCG with one target
#
# *Difficulty 2/5 · importance 4/5 · 10 minutes*
#
# With one right title, at rank $r$ counted from $0$, NDCG is $1 / \log_2(r + 2)$. If the title is not in the list, it is $0$.

# %% tags=["exercise"]
def ndcg(ranked: Sequence[str], target: str) -> float:
    """NDCG of one list with one right title."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("00.3", ndcg);

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
def ndcg(ranked: Sequence[str], target: str) -> float:
    """NDCG of one list with one right title."""
    return 1 / math.log2(ranked.index(target) + 2) if target in ranked else 0.0

checks.check("00.3", ndcg);

# %% [markdown]
# Now a rival. It needs no network and no text, and only counts *item-to-item transitions*: people who saw this movie went on to that
# one. It is often filed under item-kNN, as in the labels below. But it is not kNN: it counts which title followed which, and no
# neighbours are searched.

# %% [markdown]
# ### Exercise 00.4 · Count what followed what
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
checks.check("00.4", followed);

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
def followed(train: Sequence[Example]) -> Counter[tuple[str, str]]:
    """Windows that have the first title in their history and the second as their target."""
    return Counter((title, example.target) for example in train for title in example.history)

checks.check("00.4", followed);

# %% [markdown]
# A raw count favours best-sellers, which follow everything. So we divide by how often both occur at all, the square root of the product of
# their counts (the *cosine*). Ten is added below the fraction bar, so that a pair seen once does not look like a pair of twins.

# %%
def knn(train: Sequence[Example], catalogue: Sequence[str]) -> Callable[[Sequence[str]], list[str]]:
    """Item-kNN: returns a function from a history to the ten best titles."""
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

neighbours = knn(splits.train, splits.catalogue)
print("seen:", "; ".join(someone.history), "\nkNN: ", "; ".join(neighbours(someone.history)))

# %% [markdown]
# Twenty lines. The package has the same method as a helper, with matrices. Both must agree:

# %%
helper = baselines.item_transitions(splits.train, splits.catalogue, histories[:5], exclude_history=True)
for history, ranked in zip(histories[:5], helper):
    assert neighbours(history) == [title for title, _ in ranked]

# %% [markdown]
# And a third recommender, the best-sellers, which by construction reads nobody. All three get the same users.
#
# **Predict** the order of the three: by how much of the list survives, and by NDCG@10.

# %%
def bestsellers(histories: Sequence[Sequence[str]]) -> Lists:
    ranked = baselines.popularity(splits.train, splits.catalogue, histories, exclude_history=True)
    return [[title for title, _ in own] for own in ranked]

for name, answer in {"item-kNN": lambda hs: [neighbours(h) for h in hs], "best-sellers": bestsellers}.items():
    lists[name] = {"own": answer(histories), "swapped": answer(strangers), "wiped": answer([()]) * len(people)}

targets = [person.target for person in people]
gains = {name: metrics.ndcg_at_k(own["own"], targets, 10) for name, own in lists.items()}
assert all(math.isclose(ndcg(r, t), g) for r, t, g in zip(lists["item-kNN"]["own"], targets, gains["item-kNN"]))

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
best = table[table.metric == "NDCG@10"].set_index("model").estimate.idxmax()
least = table[table.metric == "survives a stranger"].set_index("model").estimate.idxmin()
title = f"Highest NDCG@10 here: {best}; the list that depends most on the user: {least} ({len(people)} users, 95%)"
figure = plots.accuracy_intervals(table, ("survives wiping", "survives a stranger", "NDCG@10"), title=title)
for ax in figure.axes[:2]:
    ax.set_xlim(-0.03, 1.03)  # the same scale, so that the two can be compared
spoken = "; ".join(f"{r.model}, {r.metric}: {r.estimate:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in table.itertuples())
plots.show(figure, alt=f"Estimates with 95% intervals of three recommenders on three measures. {spoken}")

# %%
gap = metrics.paired_bootstrap(gains["item-kNN"], gains["language model"])
verdict = "The interval lies above zero: counting wins." if gap.low > 0 else (
    "The interval lies below zero: the language model wins." if gap.high < 0 else "The interval holds zero: with so few users we cannot tell."
)
stays = table[table.metric == "survives a stranger"].set_index("model").estimate
say(
    "NDCG@10: item-kNN {knn:.3f}, best-sellers {top:.3f}, language model {lm:.3f}. Item-kNN minus language model, on the same users: "
    "**{gap:+.3f}** [95% interval]. {verdict} And where a stranger's history leaves **{lm_stays:.0%}** of the model's list standing, it "
    "leaves {knn_stays:.0%} of the list that counting made.",
    knn=gains["item-kNN"].mean(), top=gains["best-sellers"].mean(), lm=gains["language model"].mean(), gap=gap, verdict=verdict,
    lm_stays=stays["language model"], knn_stays=stays["item-kNN"],
)
say(
    "The ceiling, best-sellers, which read nobody: **{top:.0%}** survive a stranger. Not all, since titles already seen are left out.",
    top=stays["best-sellers"],
)

# %% [markdown]
# With so few users the intervals are wide. The repository keeps the lists of the same two recommenders for more examples of the same test
# part, which `python -m gdrt_lite study` has made. Here is the same comparison on those:

# %%
kept_lists = {
    cell.config.method: cell
    for cell in read_cells(data.data_folder() / "results" / "cells")
    if (cell.config.data, cell.config.model) == ("movielens", "smollm2-135m")
}
if {"pre-trained", "item-transitions"} <= set(kept_lists):
    model_cell, knn_cell = kept_lists["pre-trained"], kept_lists["item-transitions"]
    kept_gains = [metrics.ndcg_at_k(cell.lists, cell.targets, 10) for cell in (knn_cell, model_cell)]
    say(
        "On **{n}** windows of {users} users: item-kNN {knn:.3f}, language model {lm:.3f}, difference **{gap:+.3f}** [95% interval, over users].",
        n=len(model_cell.users), users=len(set(model_cell.users)), knn=kept_gains[0].mean(), lm=kept_gains[1].mean(),
        gap=metrics.paired_bootstrap(*kept_gains, model_cell.users),
    )
else:
    say("No kept lists lie in `data/results` here.")

# %% [markdown]
# A list that changes may change at random. Does the *user's own* history help? **Predict:** NDCG@10 of the own lists, less that of
# the stranger's and of the wiped lists, for the same targets.

# %%
for name, own in lists.items():
    for other, words in {"swapped": "a stranger's history", "wiped": "no history"}.items():
        gain = metrics.paired_bootstrap(gains[name], metrics.ndcg_at_k(own[other], targets, 10))
        hits = sum(target in ranked for which in ("own", other) for ranked, target in zip(own[which], targets))
        say(
            "- *{name}*: own history less {words}, **{gain:+.3f}**: {verdict}", name=name, words=words, gain=gain,
            verdict=f"no target is in any of these lists, and from zeros alone we cannot tell. (No hit among {len(people)} users: the true "
            f"rate may still be {3 / len(people):.0%}.)" if not hits else "the own history helps." if gain.low > 0 else
            "the own history harms." if gain.high < 0 else "we cannot tell.",
        )

# %% [markdown]
# *We cannot tell* is an answer about these few users: the interval includes zero, which is not the same as 'no effect'. Where the interval
# of the item-to-item transitions lies above zero, the histories *do* contain information, and a table of counts can read it. (Without a
# history, the transitions fall back to the best-sellers, which are hard to beat with few users.)

# %%
say(
    "And the language model? **{wiped:.0%}** of its list is there without any user. What decides that part? Notebook 01 looks.",
    wiped=table[table.metric == "survives wiping"].set_index("model").estimate["language model"],
)

# %% [markdown]
# To be fair: this model was never trained for the task, and the counts were. The usual remedy is fine-tuning. Whether fine-tuning
# teaches the model to read the *user*, or only to spell the *titles*, is the question of this course.

# %% [markdown] tags=["paper"]
# > **The paper behind the course** (arXiv 2510.10978, *Does LLM Focus on the Right Words?*) says that plain fine-tuning makes it
# > worse: after it, the words around the user weigh more than six times as much as the user. Its remedy, GDRT (*group distributionally
# > robust optimisation-based tuning*), gives more weight to the hard tokens. The paper reports that NDCG@10 improves by 24.29% on average.
# > We have read its abstract and a summary, and we will not take that on trust.

# %% [markdown]
# ## 6. Map of the course
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
#
# Diagnosis is 01 and 02. The cure is built in 03, 04 and 05, and tried in 06. Doubt is 07. Every notebook can be opened first.
# In a hurry: 00, 01, 05, 06.
#
# `GDRT_PROFILE` sets the size of all runs: `quick` for a laptop, `standard` for a small GPU or patience, `full` for the paper's
# sizes. The code is the same in all three.

# %% [markdown]
# ## Recap
#
# In this notebook we have **checked** the computer, **recommended** with a language model in one call, **tested** whether the list
# depends on the user, **compared** it with twenty lines of counting on the same users, and **found** our way through the course.
#
# **Quick check.** A model's list changes completely when the history is swapped. Has it read the user?
#
# <details><summary>Answer</summary>
#
# It has reacted to the user. Whether it understood is another question: a random list changes too. You need both: the list
# changes, *and* the user's own history gives better lists than a stranger's.
# </details>
#
# **What could still be wrong.** One test moment per user, and few users. A search that does not find the model's best titles. Titles that the model has never read about. A prompt that
# asks clumsily. And the neighbours were trained on this data while the model was not: notebook 06 makes that fair.
#
# **Next:** notebook 01 looks inside one prompt, and asks which words decided.
