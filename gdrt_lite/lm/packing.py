"""Prompts that share beginnings form a tree, and the model reads every token of the tree once.

Three prompts (h: title of the history, a: closing words, y: target), and their tree in depth-first order:

    h1 a y1             h1 ─┬─ a  y1                    place    0   1  2   3  4  5   6
    h1 h2 a y1              └─ h2 ── a ─┬─ y1           token    h1  a  y1  h2 a  y1  y2
    h1 h2 a y2                          └─ y2           seen by  0-6 1-2 2  3-6 4-6 5  6

A token attends to its ancestors and to itself, and its position is the one that it has in its prompts. In depth-first order
the descendants of a token stand right behind it, so "who sees this token" is one range of places. A masked token is left out
unless it predicts a label; then nobody sees it, and the range is empty. Each label is scored at the token before it.

A large tree is cut into rows of neighbouring prompts, because the attention of one row grows with its square. What many rows
share is read before them as the trunk, and every row attends to the trunk's keys and values.
Used by `lm.scoring`, by training and by `decoding`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from gdrt_lite.prompts import Encoded

Batch = dict[str, torch.Tensor]
Path = np.ndarray  # one number per token that the model reads, equal where position, id and visibility are equal
LAYERS_COST = 1500  # what the linear layers cost per token, in attended keys
TRUNK_COST = 32  # what a second forward pass costs, in tokens
PARTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # how many rows a batch is tried in


def batches(prompts: Sequence[Encoded], batch_tokens: int) -> Iterator[list[int]]:
    """Prompts, by their index, that are best read together: neighbours in the tree, of at most `batch_tokens` tokens."""
    paths = [_path(prompt) for prompt in prompts]
    order = _depth_first(paths)
    length, common = _lengths([paths[i] for i in order])
    for start, end in _cut(length, common, batch_tokens):
        yield order[start:end]


def batches_of_similar_length(prompts: Sequence[Encoded], batch_tokens: int) -> Iterator[list[int]]:
    """The same for prompts with a row each: rows of similar length hardly need padding."""
    batch: list[int] = []
    for i in sorted(range(len(prompts)), key=lambda i: len(prompts[i])):
        if batch and (len(batch) + 1) * len(prompts[i]) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    yield batch


def collate(prompts: Sequence[Encoded]) -> Batch:
    """The tensors of one batch, cut into rows of W tokens and a trunk of P so that the model has the least to compute.

    Returns:
        trunk_ids, trunk_positions (P,): the trunk.
        input_ids, position_ids (B, W): the rows, padded on the right.
        seen_from, seen_to (B, P + W): the tokens of a row that see a key are those at seen_from <= column < seen_to.
        trunk_read (R,); row, column (M - R,): the M places where log-probabilities are asked for, in the trunk and the rows.
        place, labels (N,): for each label, in the order of the prompts, which of the M places predicts it, and its token.
    """
    paths = [_path(prompt) for prompt in prompts]
    order = _depth_first(paths)
    length, common = _lengths([paths[i] for i in order])
    runs, leader, depth = _cheapest_rows(length, common, [_visible_prefix(paths[i]) for i in order])
    return _lay_out(prompts, paths, [order[start:end] for start, end in runs], paths[order[leader]][:depth])


def one_row_each(prompts: Sequence[Encoded]) -> Batch:
    """The tensors of a batch with a row for every prompt, in their order, whose trunk is the opening that all share."""
    paths = [_path(prompt) for prompt in prompts]
    order = _depth_first(paths)
    first, last = paths[order[0]], paths[order[-1]]
    depth = min(_shared(first, last), _visible_prefix(first), min(map(len, paths)) - 1)  # every row reads a token
    return _lay_out(prompts, paths, [[i] for i in range(len(prompts))], first[:depth])


def unpacked(prompts: Sequence[Encoded], pad_id: int | None) -> Batch:
    """The tensors of a batch that shares nothing, for models whose layers do not attend to all tokens by their position.

    Returns:
        As `collate`, without a trunk, and with attention_mask (B, W) in place of seen_from and seen_to.
    """
    kept = [_read_positions(prompt) for prompt in prompts]
    shape = len(prompts), max(map(len, kept))
    ids, mask, positions = (np.full(shape, fill) for fill in (pad_id or 0, 0, 0))
    for row, (prompt, places) in enumerate(zip(prompts, kept, strict=True)):
        ids[row, : len(places)] = np.array(prompt.ids)[places]
        mask[row, : len(places)] = np.array(prompt.attend)[places]
        positions[row, : len(places)] = places
    at = [(row, int(np.searchsorted(kept[row], p))) for row, prompt in enumerate(prompts) for p in prompt.predict_at]
    rows, columns = np.array(at, dtype=np.int64).reshape(-1, 2).T
    nothing = np.zeros(0, dtype=np.int64)
    arrays = dict(trunk_ids=nothing, trunk_positions=nothing, trunk_read=nothing, input_ids=ids, position_ids=positions)
    arrays |= dict(attention_mask=mask, row=rows, column=columns, place=np.arange(len(rows)), labels=_labels(prompts))
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def legal_tensors(legal: Sequence[np.ndarray]) -> Batch:
    """What a softmax over each label's legal tokens needs, see `scoring.legal_logprobs`: legal and legal_of, both (L,)."""
    of = np.repeat(np.arange(len(legal)), [len(tokens) for tokens in legal])
    return {"legal": torch.from_numpy(np.concatenate(legal)), "legal_of": torch.from_numpy(of)}


def _lay_out(prompts: Sequence[Encoded], paths: list[Path], rows: Sequence[Sequence[int]], trunk: Path) -> Batch:
    """The tensors of a batch of B rows of W tokens, which attend to a trunk of P tokens and to their own row.

    `rows` names the prompts of each row, neighbours in the tree beside each other; `trunk` has no masked token.
    """
    laid = [_lay_row([paths[i] for i in row], trunk) for row in rows]
    width = max(1, max(len(tokens) for tokens, *_ in laid))
    shape = len(rows), len(trunk) + width
    tokens, seen_from, seen_to = (np.zeros(s, dtype=np.int64) for s in ((len(rows), width), shape, shape))
    seen_from[:, len(trunk) :] = np.arange(width)
    seen_to[:, len(trunk) :] = np.arange(width) + 1  # padding sees itself
    asked: list[np.ndarray] = [np.zeros(0, dtype=np.int64)] * len(prompts)
    for r, (row, (new, start, end, keys)) in enumerate(zip(rows, laid, strict=True)):
        tokens[r, : len(new)] = new
        seen_from[r, : len(start)], seen_to[r, : len(end)] = start, end
        for i, key in zip(row, keys, strict=True):
            at = key[np.searchsorted(_position(paths[i]), prompts[i].predict_at)]
            asked[i] = np.where(at < len(trunk), at, at + r * width)  # places: the trunk, then row after row
    places, place = np.unique(np.concatenate(asked), return_inverse=True)
    in_trunk, in_rows = places[places < len(trunk)], places[places >= len(trunk)] - len(trunk)
    arrays = dict(
        trunk_ids=_id(trunk), trunk_positions=_position(trunk), trunk_read=in_trunk, input_ids=_id(tokens),
        position_ids=_position(tokens), seen_from=seen_from, seen_to=seen_to, row=in_rows // width,
        column=in_rows % width, place=place, labels=_labels(prompts),
    )  # fmt: skip
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _lay_row(paths: Sequence[Path], trunk: Path) -> tuple[Path, np.ndarray, np.ndarray, list[np.ndarray]]:
    """One row: its n tokens; who sees each key, from and to (P + n,); and for each prompt the keys on its path."""
    trunk_keys, most = np.arange(len(trunk)), sum(map(len, paths))
    # A token of the row is seen from itself on, a token of the trunk from the first prompt on that begins with it.
    seen_from = np.concatenate([np.full(len(trunk), most), np.arange(most)])
    seen_to = np.zeros_like(seen_from)
    tokens: list[Path] = []
    keys: list[np.ndarray] = []
    n, before, before_keys = 0, trunk, trunk_keys
    for path in paths:
        with_trunk, with_before = _shared(trunk, path), _shared(before, path)
        known = before_keys[:with_before] if with_before > with_trunk else trunk_keys[:with_trunk]
        new = path[len(known) :]
        key = np.concatenate([known, len(trunk) + n + np.arange(len(new))])
        seen_from[:with_trunk] = np.minimum(seen_from[:with_trunk], n)
        n += len(new)
        seen_to[key[_is_visible(path)]] = n
        tokens.append(new)
        keys.append(key)
        before, before_keys = path, key
    return np.concatenate(tokens), seen_from[: len(trunk) + n], seen_to[: len(trunk) + n], keys


def _cheapest_rows(length: np.ndarray, common: np.ndarray, visible: list[int]) -> tuple[list[tuple[int, int]], int, int]:
    """Rows, as runs of prompts in depth-first order, and the trunk: the prompt that it begins, and its length."""
    total = int(length.sum() - common.sum())
    best: tuple[int, list[tuple[int, int]], int, int] | None = None
    for parts in PARTS:
        runs = _cut(length, common, -(-total // parts))
        read = np.array([length[start] + (length - common)[start + 1 : end].sum() for start, end in runs])
        for leader, depth, held in _trunks(common, runs, visible):
            width = max(1, int((read - held).max()))
            cost = len(runs) * width * (LAYERS_COST + depth + width) + bool(depth) * (depth + TRUNK_COST) * LAYERS_COST
            if best is None or cost < best[0]:
                best = cost, runs, leader, depth
        if total < 64 * parts:
            break  # shorter rows would save no attention worth having
    assert best is not None  # PARTS holds at least one count
    return best[1:]


def _trunks(common: np.ndarray, runs: list[tuple[int, int]], visible: list[int]) -> Iterator[tuple[int, int, np.ndarray]]:
    """No trunk, and the best one: the prompt that it begins, its length, and how much each row holds of it."""
    yield 0, 0, np.zeros(len(runs), dtype=np.int64)
    best, most = None, TRUNK_COST
    for border, (leader, _) in enumerate(runs[1:], start=1):  # the trunk is what the rows on both sides of a border share
        depth = min(int(common[leader]), visible[leader])
        # A row further away shares with the trunk what all prompts between the two share.
        later = [common[leader + 1 : start + 1].min(initial=depth) for start, _ in runs[border:]]
        earlier = [common[end : leader + 1].min(initial=depth) for _, end in runs[:border]]
        held = np.array([*earlier, *later])
        if held.sum() - depth > most:
            best, most = (leader, depth, held), held.sum() - depth
    if best:
        yield best


def _cut(length: np.ndarray, common: np.ndarray, budget: int) -> list[tuple[int, int]]:
    """Runs of at most `budget` tokens (or one prompt), each cut where neighbours share the least of its last third."""
    runs, start, tokens = [], 0, 0
    new = length - common
    for i in range(len(length)):
        tokens += int(new[i] if i > start else length[i])
        if tokens > budget and i > start:
            borders = range(i - (i - start - 1) // 3, i + 1)
            end = min(borders, key=lambda border: (common[border], -border))
            runs.append((start, end))
            start, tokens = end, int(length[end] + new[end + 1 : i + 1].sum())
    return [*runs, (start, len(length))]


def _depth_first(paths: list[Path]) -> list[int]:
    """The order in which a walk through the tree meets the prompts: that of their paths, compared as bytes."""
    return sorted(range(len(paths)), key=lambda i: (paths[i].astype(">i8").tobytes(), i))


def _lengths(paths: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of each path, and how many of them it shares with the path before it."""
    common = [0] + [_shared(a, b) for a, b in zip(paths, paths[1:], strict=False)]
    return np.array([len(path) for path in paths]), np.array(common)


def _shared(a: Path, b: Path) -> int:
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    return int(differ.argmax()) if differ.any() else n


def _path(prompt: Encoded) -> Path:
    places = _read_positions(prompt)
    return places << 33 | np.array(prompt.ids)[places] << 1 | np.array(prompt.attend)[places]


def _position(path: Path) -> np.ndarray:
    return path >> 33


def _id(path: Path) -> np.ndarray:
    return path >> 1 & (1 << 32) - 1


def _is_visible(path: Path) -> np.ndarray:
    return (path & 1).astype(bool)


def _visible_prefix(path: Path) -> int:
    visible = _is_visible(path)
    return len(path) if visible.all() else int(visible.argmin())


def _read_positions(prompt: Encoded) -> np.ndarray:
    """Positions that the model must read: neither masked tokens that predict nothing, nor what follows the last label."""
    read = np.array(prompt.attend[: max(prompt.predict_at, default=len(prompt) - 1) + 1])
    read[list(prompt.predict_at)] = 1
    return np.flatnonzero(read)


def _labels(prompts: Sequence[Encoded]) -> np.ndarray:
    return np.array([label for prompt in prompts for label in prompt.labels], dtype=np.int64)
