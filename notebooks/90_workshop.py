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
# # Does a language model that recommends read its user?
#
# This is the course in 90 minutes, for a group with an instructor: the phenomenon (20), its measurement (25), the remedy (20), the verdict
# (20), and the end (5). The long form of each part is named where it begins. After this notebook you can:
#
# - **test** with a stranger's history whether a model reads its user,
# - **measure** which part of the prompt a prediction depends on,
# - **compute** the weights of Group DRO with a pencil, and say what tau does,
# - **judge** from registered evidence whether the remedy helps.
#
# *Prerequisites:* Python, softmax, the logarithm.

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
card("90")

# %% tags=["imports"]
import dataclasses
import itertools
import json
from collections import Counter

import ipywidgets as widgets
import pandas as pd
import torch
from IPython.display import display

from gdrt_lite import attribution, baselines, data, dro, lm, metrics, stranger
from gdrt_lite.ablation import ablate
from gdrt_lite.prompts import HISTORY, SEGMENT_NAMES, TARGET, TASK
from gdrt_lite.study import verdicts
from gdrt_lite.study.cell import Cell

# %% [markdown]
# ## 1. One list for everybody (20 minutes)
#
# *The long form is notebook 00.* A small language model was fine-tuned in the usual way (*supervised fine-tuning*, SFT) to recommend films. We
# take the two users whose histories have the fewest genres in common, and print what each of them is offered. Before you run the cell,
# write down how many of the ten titles the two lists will share.

# %%
adapter = data.data_folder() / "adapters" / "movielens-sft"
splits, kept = data.load_movielens(500).split("new_users", history=5), Cell.read(adapter / "cell.json")
titles = splits.catalogue
histories = [[titles[t] for t in history] for history in kept.histories]
lists = [[titles[t] for t in ranked] for ranked in kept.lists]
counted = [[title for title, _ in ranked] for ranked in baselines.item_transitions(splits.train, titles, histories, exclude_history=True)]
genres = [{genre for title in history for genre in splits.genres.get(title, ())} for history in histories]
one, other = min(itertools.combinations(range(100), 2), key=lambda pair: len(genres[pair[0]] & genres[pair[1]]))
for i in (one, other):
    print(f"user {kept.users[i]} has rated:", "; ".join(histories[i]))
pd.DataFrame({f"user {kept.users[i]}": lists[i][:5] for i in (one, other)}, index=pd.RangeIndex(1, 6, name="place"))

# %% tags=["say"] jupyter={"source_hidden": true}
def commonest(lists: list[list[str]]) -> float:
    """Share of the lists that contain the title recommended most often."""
    return Counter(title for ranked in lists for title in ranked).most_common(1)[0][1] / len(lists)


say(
    "The two share **{shared} of 10** titles. Over {n} lists, the title that is recommended most often stands in **{sft:.0%}** of those that the language "
    "model gives. When one only counts which title follows which, it stands in {count:.0%}.",
    shared=len(set(lists[one]) & set(lists[other])), n=len(lists), sft=commonest(lists), count=commonest(counted),
)

# %% [markdown]
# Lists that agree are a symptom, and a direct test needs the model itself. We ask how much likelier the right title is after the user's own
# history than after a stranger's. This measure is called **own minus stranger**, and its unit is the *nat*, since we use natural logarithms. What is the
# same for all users cancels in the difference, and zero means that the model does not read the user.

# %%
tuned = lm.load("smollm2-135m", adapter=adapter)
people = data.sample(splits.test, pick(quick=16, standard=64, full=256), seed=0)
worth = stranger.own_minus_stranger(tuned, people, strangers=5)
own_worth = metrics.bootstrap(worth.difference, worth.user)

# %% tags=["say"] jupyter={"source_hidden": true}
say(
    "The right title costs {cost:.1f} nats after the own history. Own minus stranger is **{worth:+.2f}** nats [95% interval over {n} users]. {reading}",
    cost=-worth.own.mean(), worth=own_worth, n=worth.user.nunique(),
    reading="The model reads something of its users, and most of the cost has nothing to do with who they are." if own_worth.low > 0 else
    "The interval includes zero, so these users do not show that the model reads them.",
)

# %% [markdown]
# **Discuss in pairs.** A colleague says that identical lists prove a bad recommender. Which list, read by nobody, is quite good for
# everybody? Which second measurement do you need before you agree?

# %% [markdown]
# ## 2. Which words does it depend on? (25 minutes)
#
# *The long form is notebook 01.* A prompt has three **segments**. TASK is our wording, which is the same for everybody. HISTORY holds the
# user's titles. While the model writes the target title, the tokens that it has already written are the PREFIX. *Feature ablation attribution* (FAA) takes
# one segment $g$ away and measures how far the log-probability of target token $y_t$ falls:
#
# $$A_g(t) = \log P(y_t \mid x) - \log P(y_t \mid x \text{ without } g)$$

# %%
encoded = tuned.encode(people[0].history, people[0].target)
pieces = [(SEGMENT_NAMES[s], [i for i, _ in run]) for s, run in itertools.groupby(zip(encoded.ids, encoded.segments), key=lambda pair: pair[1])]
for segment, ids in pieces:
    print(f"{segment:8}", repr(tuned.tokenizer.decode(ids)))

# %% [markdown]
# TARGET is the title to be written. Each of its tokens, once written, belongs to the PREFIX of the next one. Start the next cell before you go on: it
# measures all users with the package's FAA, before and after SFT, while you write your own.

# %%
models = {"pre-trained": lm.load("smollm2-135m"), "SFT": tuned}
frames = {name: attribution.feature_ablation(model, people, "token").assign(model=name) for name, model in models.items()}

# %% [markdown]
# ### Exercise 90.1 · Leave a segment out
#
# *Difficulty 2/5 · importance 5/5 · 8 minutes*
#
# A prompt is a list of pieces as printed above, each a pair of its segment and its tokens. Return the tokens that the model reads when one segment is
# left out. With `"token"`, each of its tokens becomes the neutral token, and with `"delete"`, its tokens are gone. (`donor` is not needed here.)

# %% tags=["exercise"]
def leave_out(prompt: list[tuple[str, list[int]]], segment: str, how: str, neutral: int, donor: object = None) -> list[int]:
    """The tokens that are read without `segment`; how is "token" or "delete"."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("90.1", leave_out);

# %% [markdown]
# <details><summary>My prompt has become shorter although how is "token"</summary>
#
# A piece holds several tokens. Put one neutral token for each of them: `[neutral] * len(ids)`.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 90.1
def leave_out(prompt: list[tuple[str, list[int]]], segment: str, how: str, neutral: int, donor: object = None) -> list[int]:
    """The tokens that are read without `segment`; how is "token" or "delete"."""
    read = []
    for own, ids in prompt:
        if own != segment:
            read += ids
        elif how == "token":
            read += [neutral] * len(ids)
    return read

checks.check("90.1", leave_out, ours=True);

# %% [markdown]
# With your function FAA takes two lines, and the package must agree with it. The figure below has the mean over all users. **Write down first:** which
# segment will be the tallest?

# %%
nothing, left_out = attribution.neutral_id(tuned), checks.yours("90.1")
without = dataclasses.replace(encoded, ids=tuple(left_out(pieces, "HISTORY", "token", nothing, pieces)))
whole, ablated, ours = (score.double() for score in lm.target_logprobs(tuned, [encoded, without, ablate(encoded, HISTORY, "token", nothing)]))
assert torch.allclose(ablated, ours, atol=0.05), "your prompt and the package's give the same scores"
print("A_HISTORY(t), nats:", dict(zip((tuned.tokenizer.decode([i]) for i in encoded.labels), (whole - ablated).numpy().round(2).tolist())))

# %% tags=["say"] jupyter={"source_hidden": true}
heights = {name: attribution.segment_table(frame).mean_abs for name, frame in frames.items()}
tallest = {table.idxmax() for table in heights.values()}
ratio = {name: attribution.bias_ratio(frame) for name, frame in frames.items()}
plots.show(
    plots.faa_by_segment(pd.concat(frames.values()), hue="model", title=f"{tallest.pop()} weighs most, before and after SFT" if len(tallest) == 1 else "SFT changes which segment weighs most"),
    alt="Bars of mean absolute attribution for each segment, before and after SFT. " + "; ".join(f"{n}: {', '.join(f'{s} {v:.2f}' for s, v in t.items())}" for n, t in heights.items()),
)
say(
    "HISTORY has **{before:.0%}** of the attribution before SFT and **{after:.0%}** after. The *bias ratio*, (TASK + PREFIX) / HISTORY, goes from {a:.1f} to {b:.1f}.",
    before=heights["pre-trained"]["HISTORY"] / heights["pre-trained"].sum(), after=heights["SFT"]["HISTORY"] / heights["SFT"].sum(), a=ratio["pre-trained"], b=ratio["SFT"],
)

# %% [markdown] tags=["paper"]
# > **The paper** (arXiv 2510.10978): according to the summary that we have read, these *auxiliary* tokens weigh more than six times as much as the
# > user's after SFT, and giving more weight to hard tokens repairs it. We cannot compare our ratio with that figure, because the summary names no ablation.

# %% [markdown]
# **Discuss in pairs.** A title of ten tokens is often decided after two, so that its prefix must weigh a lot. Is a large PREFIX a fault of the model? What would you measure to tell?

# %% [markdown] tags=["definition"]
# ## 3. Give the hard tokens more weight (20 minutes)
#
# *The long form is notebooks 03 to 05.* Some tokens can be guessed without the user, and others cannot. GDRT (*Group-DRO based tuning*) sorts the target tokens into
# groups by how guessable they are. With $L(g)$ the mean loss of group $g$, $P$ a uniform prior and $\tau$ a temperature in nats, training weighs the groups by
#
# $$Q^*(g) = \frac{P(g)\, e^{L(g)/\tau}}{\sum_h P(h)\, e^{L(h)/\tau}}$$

# %% [markdown] tags=["definition"]
# ### Exercise 90.2 · Weights with a pencil
#
# *Difficulty 1/5 · importance 5/5 · 7 minutes*
#
# Three groups have the losses 0.5, 1.2 and 2.0, and tau is 0.5. Divide by tau, exponentiate, and divide by the total. Write the three weights to three digits.

# %% tags=["exercise"]
pencil = ...  # a list of three numbers

# %% tags=["check"]
checks.check("90.2", pencil);

# %% [markdown]
# <details><summary>My weights are nearly equal</summary>
#
# Is tau above or below the fraction bar? A small tau must make the weights sharper.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 90.2
pencil = [0.040, 0.161, 0.799]

checks.check("90.2", pencil);

# %% [markdown]
# Move the slider and watch the weights. At which tau does the worst group have half of the weight? Which rule do you get for a very large tau? (Without a
# running kernel the slider does not move, and the figure below holds both answers.)

# %% tags=["interactive"]
losses = torch.tensor([0.5, 1.2, 2.0])  # L(g), nats
knob = widgets.FloatLogSlider(value=0.5, base=10, min=-1.5, max=1.5, step=0.05, description="tau (nats)")
bars = widgets.HTML()


def redraw(change: object = None) -> None:
    shares = zip(losses.tolist(), dro.group_weights(losses, knob.value).tolist())
    bars.value = "<pre>" + "<br>".join(f"L = {loss:.1f}  Q* = {q:.3f}  " + "█" * round(40 * q) for loss, q in shares) + "</pre>"


knob.observe(redraw, names="value")
redraw()
display(widgets.VBox([knob, bars]))

# %% tags=["say"] jupyter={"source_hidden": true}
taus = torch.logspace(-1.5, 1.5, 40).tolist()
ends = [dro.group_weights(losses, t)[2].item() for t in (taus[0], taus[-1])]
plots.show(
    plots.weights_over_tau(losses.tolist(), taus, title=f"The worst group's weight falls from {ends[0]:.2f} to {ends[1]:.2f} as tau grows"),
    alt="Weights of three groups over tau: the worst group alone at the left end, all equal at the right end",
)

# %% [markdown]
# For a huge tau all groups have the same weight. This rule is called `balanced`, and it already makes the tokens of a small group count for more. So whoever claims that *DRO* helps
# must compare with `balanced`, and not with SFT alone.

# %% [markdown]
# ## 4. Did it help? (20 minutes)
#
# *The long form is notebooks 06 and 07.* Six hypotheses were written down before the test was run. A model enters only if it passes a gate: after SFT it ranks better than
# popularity, and it reads its users. The test has models of its own, named below, and tuned longer than that of parts 1 and 2. **Vote first:** write `"supported"`,
# `"contradicted"`, `"undecided"` or `"not tested"` beside each one. An effect whose interval includes zero is undecided.

# %%
votes = {
    "H1": ...,  # SFT raises the dependence on auxiliary tokens
    "H2": ...,  # GDRT lowers it, at equal item NLL (negative log-likelihood of the title)
    "H3": ...,  # GDRT ranks better than SFT
    "H4": ...,  # GDRT reads the user more than SFT
    "H5": ...,  # GDRT is fairer than SFT to unpopular titles
    "H6": ...,  # the DRO and the groups do it, and not the regrouping alone
}

# %%
told = json.loads((data.data_folder() / "results" / "verdicts.json").read_text(encoding="utf-8"))
results = verdicts.table(told)
results.insert(2, "your vote", ["-" if votes[id] is ... else votes[id] for id in results[""]])
results.drop(columns=[c for c in ("measure", "users") if c in results]).style.hide().set_uuid("verdicts").set_properties(**{"text-align": "left"})

# %% tags=["say"] jupyter={"source_hidden": true}
rows = pd.DataFrame(told["hypotheses"])
if "effect" in rows:
    intervals = "; ".join(f"{row.id} {row.verdict}" for row in rows.dropna(subset="effect").itertuples())
    plots.show(plots.forest(rows), alt=f"Effects of the hypotheses that were tested, with intervals scaled to the same width. {intervals}")

gates, by_verdict = told["gates"], {word: rows.id[rows.verdict == word].tolist() for word in ("supported", "contradicted", "undecided", "not tested")}
passed = [gate["place"] for gate in gates if gate["passed"]]
say("Of {n} places (a model on a data set), **{passed}** passed the gate{names}.", n=len(gates), passed=len(passed), names=f": {'; '.join(passed)}" if passed else "")
say("The verdicts: **{counts}.** {h6} {seeds}",
    counts="; ".join(f"{word}: {', '.join(ids)}" for word, ids in by_verdict.items() if ids),
    h6={"supported": "GDRT ranks better than every control, so the DRO and the groups contribute.", "contradicted": "A control ranks better than GDRT, which speaks against the DRO or the groups.",
        "undecided": "Whether the DRO adds anything to its strongest control stays open.", "not tested": "The controls have not been run."}[rows.set_index("id").verdict["H6"]],
    seeds="Where the table says *one seed in a place*, one of the models was trained once by each method, and another training may turn it round." if "seeds" in rows and rows.seeds.min() == 1 else "")
agreed = [id for id in rows.id if votes[id] == rows.set_index("id").verdict[id]]
if any(vote is not ... for vote in votes.values()):
    say("Your vote agrees with the verdict in **{n}** of {of} hypotheses{which}.", n=len(agreed), of=len(rows), which=f": {', '.join(agreed)}" if agreed else "")

# %% [markdown]
# **Debate.** One half of the room argues that an engineer should use GDRT tomorrow, and the other half argues against it. Each side may use only rows of the table, must name the
# control that the row was compared with, and must say what result would change its mind. `sft-at-nll` is an SFT that costs about what GDRT costs, a negative effect in H5
# means fairer lists, and *p (Holm)* is corrected for six tests. *Undecided* means that the evidence does not suffice, and never that there is no effect.

# %% [markdown]
# ## Recap (5 minutes)
#
# In this notebook we have **tested** with strangers' histories whether a model reads its user, **measured** what a prediction depends on, **computed** the weights of Group DRO, and
# **judged** from registered evidence whether they help.
#
# **Quick check.** A blog reports that the bias ratio fell by half after GDRT. What do you ask first?
#
# <details><summary>Answer</summary>
#
# Which ablation, which users, and how wide is the interval? Do both models pay the same item NLL? Did own minus stranger grow? And what did `balanced` do on the same seeds?
# </details>
#
# **Next:** [notebook 00](00_start_here.ipynb) begins the course in full, and [notebook 08](08_your_data_your_model.ipynb) applies it to your own data.
