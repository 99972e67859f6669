"""How each step's cost grows: users, catalogue, history, batch. Written as a plot beside the table."""

from __future__ import annotations

import pandas as pd

from benchmarks.common import examples, seconds
from gdrt_lite import attribution, data, decoding, lm
from gdrt_lite.trie import TitleTrie


def run() -> dict:
    """Seconds by size, for one step and one size at a time, on the pocket model (the real one's curve has the same
    shape)."""
    rows = []
    all_titles = sorted(data.load_movielens(None).titles)
    some = examples(400)
    model = lm.pocket(all_titles)
    known = sorted({t for e in some for t in e.history})

    def measure(what: str, size: int, work: object) -> None:
        work()
        rows.append({"what": what, "size": size, "seconds": seconds(work)})

    trie = TitleTrie(sorted(set(known) | set(all_titles[:500])), model.tokenizer)
    for users in (50, 100, 200, 400):
        histories = [e.history for e in some[:users]]
        measure("recommend: users", users, lambda histories=histories: decoding.recommend(model, histories, trie))
    for titles in (250, 500, 1297, 6344):
        catalogue = all_titles[:titles]
        own = TitleTrie(catalogue, model.tokenizer)
        histories = [tuple(catalogue[i : i + 10]) for i in range(50)]
        measure("recommend: titles", titles, lambda h=histories, own=own: decoding.recommend(model, h, own))
    for length in (2, 5, 10, 20):
        shown = [data.Example(e.user, (e.history * 2)[:length], e.target, e.time) for e in some[:50]]
        measure("FAA: history", length, lambda shown=shown: attribution.feature_ablation(model, shown, "token"))
    for batch in (1, 4, 16, 64):
        histories = [e.history for e in some[:64]]
        measure("recommend: batch", batch, lambda b=batch, h=histories: decoding.recommend(model, h, trie, batch_size=b))
    return {"rows": pd.DataFrame(rows).to_dict("records")}
