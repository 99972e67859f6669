"""How each step's cost grows: users, titles, history, batch; and the catalogue up to a million synthetic titles."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.common import examples, language_model, seconds
from gdrt_lite import attribution, data, decoding, plots
from gdrt_lite.trie import TitleTrie

CATALOGUES = (1_000, 10_000, 100_000, 1_000_000)
CODE = """
import sys, time
from benchmarks.common import language_model
from benchmarks.growth import synthetic_titles
from gdrt_lite import decoding
from gdrt_lite.system import machine
from gdrt_lite.trie import TitleTrie
n, tiny = int(sys.argv[1]), sys.argv[2] == "True"
titles, tokenizer = synthetic_titles(n), language_model(tiny).tokenizer
TitleTrie(titles[:100], tokenizer)
before, start = machine.peak_memory_gib(), time.perf_counter()
trie = TitleTrie(titles, tokenizer)
build, memory, model = time.perf_counter() - start, machine.peak_memory_gib() - before, language_model(tiny)
histories = [titles[i : i + 10] for i in range(0, 40, 10)]
decoding.recommend(model, histories[:1], trie)
start = time.perf_counter()
decoding.recommend(model, histories, trie)
print(build, memory, (time.perf_counter() - start) / len(histories))
"""


def synthetic_titles(n: int) -> list[str]:
    """n distinct titles, made of the words of MovieLens' titles."""
    words = sorted({word for title in data.load_movielens(None).titles for word in title[:-7].split() if word.isalpha()})
    size = len(words)
    spread = ((i * 7919 % size, i * 104_729 // 3 % size, i // 100 % size) for i in range(n))  # holds no memory
    return [f"{words[a]} {words[b]} and {words[c]} {i} ({1920 + i % 100})" for i, (a, b, c) in enumerate(spread)]


def catalogue_rows(tiny: bool) -> list[dict]:
    """Seconds and GiB that a trie takes to build, and seconds a user of beam 10, each size in a process of its own."""
    rows = []
    for size in CATALOGUES[: 1 if tiny else None]:
        command = [sys.executable, "-c", CODE, str(size), str(tiny)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-3:]
        rows.append({"titles": size, **dict(zip(("build_s", "memory_gib", "user_s"), map(float, output), strict=True))})
    return rows


def run(tiny: bool = False) -> dict:
    """Seconds by size, one step and one size at a time, on the pocket model (the real one's curve has the same shape)."""
    rows: list[dict] = []
    all_titles, some, model = sorted(data.load_movielens(None).titles), examples(400), language_model(True)
    some = some[: 8 if tiny else None]
    trie = TitleTrie(sorted({t for e in some for t in e.history} | set(all_titles[:500])), model.tokenizer)

    def measure(what: str, size: int, work: object) -> None:
        work()
        rows.append({"what": what, "size": size, "seconds": seconds(work)})

    for users in (len(some) // 8, len(some) // 4, len(some) // 2, len(some)):
        histories = [e.history for e in some[:users]]
        measure("recommend: users", users, lambda histories=histories: decoding.recommend(model, histories, trie))
    for titles in (250, 500, 1297, 6344):
        catalogue = all_titles[:titles]
        own = TitleTrie(catalogue, model.tokenizer)
        histories = [tuple(catalogue[i : i + 10]) for i in range(0, len(some) // 8)]
        measure("recommend: titles", titles, lambda h=histories, own=own: decoding.recommend(model, h, own))
    for length in (2, 5, 10, 20):
        shown = [data.Example(e.user, (e.history * 2)[:length], e.target, e.time) for e in some[:50]]
        measure("FAA: history", length, lambda shown=shown: attribution.feature_ablation(model, shown, "token"))
    for batch in (1, 4, 16, 64):
        histories = [e.history for e in some[:64]]
        measure("recommend: batch", batch, lambda b=batch, h=histories: decoding.recommend(model, h, trie, batch_size=b))
    catalogue = catalogue_rows(tiny)
    return {"rows": rows + catalogue_curves(catalogue), "catalogue": catalogue}


def catalogue_curves(catalogue: list[dict]) -> list[dict]:
    """The rows of `catalogue_rows` as two curves of seconds over titles."""
    curves = {"trie: synthetic titles": "build_s", "recommend: synthetic titles": "user_s"}
    return [{"what": what, "size": row["titles"], "seconds": row[of]} for what, of in curves.items() for row in catalogue]


def figure(rows: pd.DataFrame) -> Figure:
    """Seconds against size, both relative to the smallest, on logarithmic axes: in proportion is a slope of one."""
    first = rows.groupby("what")[["size", "seconds"]].transform("first")
    relative = rows.assign(size=rows["size"] / first["size"], seconds=rows.seconds / first.seconds)
    last = relative.groupby("what").last()
    parts = [
        f"{last['size'][f'recommend: {what}']:.0f} x the {what}: {last.seconds[f'recommend: {what}']:.1f} x the seconds"
        for what in ("users", "titles")
    ]
    drawn = plots.learning_curve(
        relative, "size", "seconds", "what", "size, relative to the smallest", "seconds, relative to the smallest",
        "; ".join(parts),
    )  # fmt: skip
    drawn.axes[0].set(xscale="log", yscale="log")
    return drawn
