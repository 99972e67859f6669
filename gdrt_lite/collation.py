"""Prompts as the tensors of a batch: similar lengths together, what all rows share once, nothing that nobody reads.

Used by the scoring core (`lm`), by training and by decoding. Shown in notebook 01, section 2.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import torch

from gdrt_lite.prompts import Encoded


def collate(rows: Sequence[Encoded], pad_id: int | None, share_prefix: bool = True) -> dict[str, torch.Tensor]:
    """Tensors of a batch: the opening that all rows share once, and the rest of each row padded on the left.

    A masked token is left out unless it predicts a label: nothing sees it. The others keep their positions.

    Returns:
        prefix_ids (P,); input_ids, position_ids (B, W); attention_mask (B, P + W); and for each of the N labels of the
        batch the place it is predicted from, row (N,) and column (N,), and its token, labels (N,).
    """
    prefix = _shared_opening(rows) if share_prefix else 0
    kept = [[p for p in _read_positions(row) if p >= prefix] for row in rows]
    width = max(map(len, kept))
    pad = pad_id or 0
    ids, mask, positions, row_index, column, labels = [], [], [], [], [], []
    for b, (row, own) in enumerate(zip(rows, kept, strict=True)):
        gap = width - len(own)
        ids.append([pad] * gap + [row.ids[p] for p in own])
        mask.append([1] * prefix + [0] * gap + [row.attend[p] for p in own])
        positions.append([0] * gap + own)
        place = {p: gap + i for i, p in enumerate(own)}
        row_index += [b] * len(row.labels)
        column += [place[p] for p in row.predict_at]
        labels += row.labels
    return {
        "prefix_ids": torch.tensor(rows[0].ids[:prefix], dtype=torch.long),
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "position_ids": torch.tensor(positions),
        "row": torch.tensor(row_index, dtype=torch.long),
        "column": torch.tensor(column, dtype=torch.long),
        "labels": torch.tensor(labels, dtype=torch.long),
    }


def _read_positions(row: Encoded) -> list[int]:
    """Positions that the model must read: neither masked tokens that predict nothing, nor a last token that predicts nothing."""
    predicts = set(row.predict_at)
    end = max(row.predict_at, default=len(row) - 1) + 1
    return [p for p in range(end) if row.attend[p] or p in predicts]


def _shared_opening(rows: Sequence[Encoded]) -> int:
    ends = [row.predict_at[0] if row.predict_at else len(row) - 1 for row in rows]
    openings = [tuple(zip(row.ids[:end], row.attend[:end], strict=True)) for row, end in zip(rows, ends, strict=True)]
    common = os.path.commonprefix(openings)
    return next((i for i, (_, visible) in enumerate(common) if not visible), len(common))


def batches_of_similar_length(encoded: Sequence[Encoded], batch_tokens: int) -> Iterator[list[int]]:
    """Indices sorted by opening, then length: rows of a batch share their prefix and hardly need padding."""

    def opening(i: int) -> tuple[int, int]:
        return encoded[i].ids[0], encoded[i].attend[0]

    length = [len(_read_positions(row)) for row in encoded]
    batch: list[int] = []
    for i in sorted(range(len(encoded)), key=lambda i: (opening(i), length[i], i)):
        # Sorted ascending, so row i sets the padded width of the batch it joins.
        full = (len(batch) + 1) * length[i] > batch_tokens
        if batch and (full or opening(i) != opening(batch[0])):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch
