"""Co-occurrence of source tokens with target tokens, and what it is worth as information (arXiv 2510.10978, section 2.2.3).

    rate(s, v) = P(s in segment | v in target)          PMI(s, v) = log P(s, v) / (P(s) P(v))

counted over examples. A token that occurs in every example has rate 1 and PMI 0: it says nothing about the target. So the
two are always shown side by side. Derived in notebook 02, sections 1 and 2.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from gdrt_lite.prompts import HISTORY, PREFIX, SEGMENT_NAMES, TASK, Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from gdrt_lite.data import Example


def rates(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> pd.DataFrame:
    """Every pair of a source token and a target token that occur together in an example.

    For the segments TASK and HISTORY, s and v occur together when s stands in the segment and v in the target. For PREFIX,
    when s stands in the target before the first v.

    Returns:
        One row per (segment, source, target): segment, source, target (token strings), count (examples with both),
        source_count, target_count, rate, pmi (nats), npmi (PMI / -log P(s, v), from -1 to 1; 0 where P(s, v) = 1).

    Raises:
        ValueError: there is no example.
    """
    if not examples:
        raise ValueError("examples is empty: there is nothing to count.")
    encoded = [prompt.encode(tokenizer, example.history, example.target) for example in examples]
    targets = [list(dict.fromkeys(row.labels)) for row in encoded]
    has_target = _indicator(targets)
    frames = []
    for segment in (TASK, HISTORY):
        sources = _indicator([{row.ids[p] for p in row.positions(segment)} for row in encoded])
        frames.append(_frame(segment, (sources.T @ has_target).tocoo(), sources, has_target))
    frames.append(_frame(PREFIX, _pairs_in_order(targets), _indicator([own[:-1] for own in targets]), has_target))
    table = pd.concat(frames, ignore_index=True)
    spell = {int(i): tokenizer.decode([int(i)]) for i in np.unique(table[["source", "target"]].to_numpy())}
    return table.assign(source=table.source.map(spell), target=table.target.map(spell))


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Per segment: mean rate, mean |PMI| and mean NPMI over the pairs that occur, number of pairs."""
    grouped = frame.assign(abs_pmi=frame.pmi.abs()).groupby("segment")
    table = grouped.agg(mean_rate=("rate", "mean"), mean_abs_pmi=("abs_pmi", "mean"), mean_npmi=("npmi", "mean"))
    table["pairs"] = grouped.size()
    return table.reindex([SEGMENT_NAMES[s] for s in (TASK, HISTORY, PREFIX)])


def _indicator(sets: Sequence[Collection[int]]) -> sparse.csr_matrix:
    """1 where a token id (column) occurs in an example (row)."""
    rows = [np.full(len(own), i) for i, own in enumerate(sets)]
    columns = [np.fromiter(own, dtype=np.int64, count=len(own)) for own in sets]
    row, column = np.concatenate(rows), np.concatenate(columns)
    width = int(column.max(initial=0)) + 1
    return sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(len(sets), width))


def _pairs_in_order(targets: Sequence[list[int]]) -> sparse.coo_matrix:
    """Number of examples where s comes before v in the target."""
    pairs = [(s, v) for own in targets for i, v in enumerate(own) for s in own[:i]]
    width = max(max(own) for own in targets) + 1
    row, column = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    counts = sparse.coo_matrix((np.ones(len(row)), (row, column)), shape=(width, width))
    counts.sum_duplicates()
    return counts


def _frame(
    segment: int, together: sparse.coo_matrix, sources: sparse.csr_matrix, targets: sparse.csr_matrix
) -> pd.DataFrame:
    """The rows of one segment, from the examples that hold a source, a target, and both (sources, targets)."""
    n_examples = targets.shape[0]
    source_count = np.asarray(sources.sum(0)).ravel()[together.row]
    target_count = np.asarray(targets.sum(0)).ravel()[together.col]
    joint = together.data / n_examples
    pmi = np.log(together.data * n_examples / (source_count * target_count))
    with np.errstate(divide="ignore", invalid="ignore"):
        npmi = np.where(joint == 1, 0.0, pmi / -np.log(joint))
    frame = pd.DataFrame({"segment": SEGMENT_NAMES[segment], "source": together.row, "target": together.col})
    counts = dict(count=together.data, source_count=source_count, target_count=target_count)
    counts = {name: values.astype(int) for name, values in counts.items()}
    return frame.assign(**counts, rate=together.data / target_count, pmi=pmi, npmi=npmi)
