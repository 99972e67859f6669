"""Prompts as the tensors of a batch: similar lengths together, what rows share read once, nothing that nobody reads.

Used by the scoring core (`lm`), by training and by decoding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import torch

from gdrt_lite.prompts import Encoded

Pack = list[int]  # prompts, by their index, that are equal up to the target: one row of a batch, with an ending each
SHARED = -1  # in place of the index of a prompt: a token before the endings


def collate(
    prompts: Sequence[Encoded], pad_id: int | None, share_prefix: bool = True, packs: Sequence[Pack] | None = None
) -> dict[str, torch.Tensor]:
    """Tensors of a batch: the opening that all rows share once, and the rest of each row padded on the left.

    A masked token is left out unless it predicts a label: nothing sees it. The others keep their positions.

    Args:
        prompts: what to read.
        pad_id: token that fills short rows.
        share_prefix: read the common opening once.
        packs: the prompts of each row, see `equal_up_to_the_target`; by default every prompt has a row of its own.

    Returns:
        prefix_ids (P,); input_ids, position_ids (B, W); attention_mask, (B, P + W) or, with several endings in a row,
        bool (B, 1, W, P + W); and for each of the N labels, in the order of the packs, the place it is predicted from,
        row (N,) and column (N,), and its token, labels (N,).
    """
    packs = packs or [[i] for i in range(len(prompts))]
    prefix = _shared_opening([prompts[i] for pack in packs for i in pack]) if share_prefix else 0
    rows = [_row(prompts, pack, prefix) for pack in packs]
    width = max(map(len, rows))
    ids, visible, positions, ending, predicted_from, labels = [], [], [], [], [], []
    for r, (pack, row) in enumerate(zip(packs, rows, strict=True)):
        gap = width - len(row)
        stem = _stem(prompts[pack[0]]) if len(pack) > 1 else len(prompts[pack[0]])
        ids.append([pad_id or 0] * gap + [prompts[i].ids[p] for i, p in row])
        visible.append([1] * prefix + [0] * gap + [prompts[i].attend[p] for i, p in row])
        positions.append([0] * gap + [p for _, p in row])
        ending.append([SHARED] * (prefix + gap) + [i if p >= stem else SHARED for i, p in row])
        column = {token: gap + n for n, token in enumerate(row)}
        for i in pack:
            predicted_from += [(r, column[i if p >= stem else pack[0], p]) for p in prompts[i].predict_at]
            labels += prompts[i].labels
    row_index, column_index = torch.tensor(predicted_from, dtype=torch.long).reshape(-1, 2).T
    mask = torch.tensor(visible)
    if any(len(pack) > 1 for pack in packs):
        mask = _within_endings(mask, torch.tensor(ending), width)
    return {
        "prefix_ids": torch.tensor(prompts[packs[0][0]].ids[:prefix], dtype=torch.long),
        "input_ids": torch.tensor(ids),
        "attention_mask": mask,
        "position_ids": torch.tensor(positions),
        "row": row_index,
        "column": column_index,
        "labels": torch.tensor(labels, dtype=torch.long),
    }


def equal_up_to_the_target(prompts: Sequence[Encoded]) -> list[Pack]:
    """Gather the prompts that differ from the target's first token on; for example one with and one without PREFIX.

    A pack has no more tokens in its endings than before them, so that its attention matrix stays small.
    """
    packs: list[Pack] = []
    newest: dict[tuple, Pack] = {}  # by what stands before the target
    for i, prompt in enumerate(prompts):
        stem = _stem(prompt)
        key = (prompt.ids[:stem], prompt.attend[:stem])
        pack = newest.get(key)
        if pack is None or sum(len(prompts[j]) - stem for j in [*pack, i]) > stem:
            packs.append(pack := [])
            newest[key] = pack
        pack.append(i)
    return packs


def batches_of_similar_length(prompts: Sequence[Encoded], packs: Sequence[Pack], batch_tokens: int) -> Iterator[list[Pack]]:
    """Packs sorted by opening, then length: the rows of a batch share their prefix and hardly need padding."""

    def opening(pack: Pack) -> tuple[int, int]:
        return prompts[pack[0]].ids[0], prompts[pack[0]].attend[0]

    length = {pack[0]: len(_row(prompts, pack, 0)) for pack in packs}
    batch: list[Pack] = []
    for pack in sorted(packs, key=lambda pack: (opening(pack), length[pack[0]], pack[0])):
        # Sorted ascending, so this pack sets the padded width of the batch it joins.
        full = (len(batch) + 1) * length[pack[0]] > batch_tokens
        if batch and (full or opening(pack) != opening(batch[0])):
            yield batch
            batch = []
        batch.append(pack)
    if batch:
        yield batch


def _row(prompts: Sequence[Encoded], pack: Pack, prefix: int) -> list[tuple[int, int]]:
    """(prompt, position) of the tokens of a row: what the first prompt reads after the prefix, then the others' endings."""
    starts = [prefix] + [_stem(prompts[i]) for i in pack[1:]]
    return [(i, p) for i, start in zip(pack, starts, strict=True) for p in _read_positions(prompts[i]) if p >= start]


def _within_endings(visible: torch.Tensor, ending: torch.Tensor, width: int) -> torch.Tensor:
    """Who sees whom: the visible tokens before it that are of its own ending or shared by all endings."""
    keys = ending.shape[1]
    causal = torch.ones(width, keys, dtype=torch.bool).tril(keys - width)
    own = (ending[:, None] == SHARED) | (ending[:, None] == ending[:, -width:, None])
    return (causal & own & visible.bool()[:, None])[:, None]


def _stem(prompt: Encoded) -> int:
    """Tokens up to the one that the first label is predicted from, this one included."""
    return prompt.predict_at[0] + 1 if prompt.predict_at else len(prompt)


def _read_positions(prompt: Encoded) -> list[int]:
    """Positions that the model must read: neither masked tokens that predict nothing, nor a last token that predicts nothing."""
    predicts = set(prompt.predict_at)
    end = max(prompt.predict_at, default=len(prompt) - 1) + 1
    return [p for p in range(end) if prompt.attend[p] or p in predicts]


def _shared_opening(prompts: Sequence[Encoded]) -> int:
    ends = [_stem(prompt) - 1 for prompt in prompts]  # every row reads at least one token of its own
    openings = [tuple(zip(p.ids[:end], p.attend[:end], strict=True)) for p, end in zip(prompts, ends, strict=True)]
    common = os.path.commonprefix(openings)
    return next((i for i, (_, visible) in enumerate(common) if not visible), len(common))
