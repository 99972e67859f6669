"""Training batches: tokenised once, grouped by length, in an order that a resumed training repeats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from gdrt_lite.data import Example, chunks_of
from gdrt_lite.groups import TokenGroups
from gdrt_lite.lm import LanguageModel
from gdrt_lite.lm.packing import collate, legal_tensors, unpacked


class SeededLengthGroups(LengthGroupedSampler):
    """Batches of similar length whose order depends on the seed and the epoch alone, so that training can be resumed.

    Args:
        batch_size: examples of an optimiser step: however many processes and micro-batches share it, the order is the same.
        lengths: one per example.
        seed: random seed for the order.
        multiple: the epoch is filled up to a multiple of this with indices from `len(lengths)` on, which stand for fillers:
            each process then holds equally many examples, and none is seen twice.
    """

    def __init__(self, batch_size: int, lengths: list[int], seed: int, multiple: int = 1) -> None:
        super().__init__(batch_size, lengths=lengths)
        self.seed, self.multiple = seed, multiple
        self.set_epoch(0)

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.multiple) * self.multiple

    def __iter__(self) -> Iterator[int]:
        yield from super().__iter__()
        yield from range(len(self.lengths), len(self))

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of each epoch."""
        self.generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)


class SeededChunks(torch.utils.data.Sampler):
    """The examples of a chunk one after the other, the chunks shuffled by the seed and the epoch alone.

    A batch then holds the targets of few users. Their history is read once, see `lm.packing`.
    """

    def __init__(self, chunks: Sequence[Sequence[int]], seed: int, multiple: int = 1) -> None:
        self.chunks, self.seed = chunks, seed
        self.n = sum(map(len, chunks))
        self.fillers = range(self.n, self.n + -self.n % multiple)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of each epoch."""
        self.generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)

    def __len__(self) -> int:
        return self.n + len(self.fillers)

    def __iter__(self) -> Iterator[int]:
        for chunk in torch.randperm(len(self.chunks), generator=self.generator).tolist():
            yield from self.chunks[chunk]
        yield from self.fillers


class TokenisedExamples(torch.utils.data.Dataset):
    """Prompts as token ids, the group of each target token (0 without groups, -1 in a filler, which counts nowhere), and the
    chunks of growing windows.
    """

    def __init__(
        self,
        lm: LanguageModel,
        examples: Sequence[Example],
        groups: TokenGroups | None,
        legal: Mapping[str, list[np.ndarray]] | None = None,
    ) -> None:
        self.packed = lm.packed
        self.legal = None if legal is None else [legal[example.target] for example in examples]
        self.chunks = chunks_of(examples)
        self.rows = [lm.encode(example.history, example.target) for example in examples]
        self.group_ids = [
            np.zeros(len(row.labels), dtype=np.int64) if groups is None else groups.of(example.target)
            for row, example in zip(self.rows, examples, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= len(self):
            index, group_ids = 0, np.full_like(self.group_ids[0], -1)
        else:
            group_ids = self.group_ids[index]
        row = {"encoded": self.rows[index], "group_ids": group_ids, "alone": len(self.rows[index]) > self.packed}
        return row if self.legal is None else row | {"legal": self.legal[index]}


@dataclass
class Collator:
    """Batches rows into the tensors of `packing.collate`, plus the group id of each label: group_ids (N,).

    Where the model must read a row alone, the batch keeps its prompts as they are, under "alone".
    """

    pad_id: int
    packed: bool

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        prompts = [item["encoded"] for item in items]
        batch: dict[str, Any] = {"alone": prompts}
        if not any(item["alone"] for item in items):
            batch = collate(prompts) if self.packed else unpacked(prompts, self.pad_id)
        if "legal" in items[0]:
            batch |= legal_tensors([tokens for item in items for tokens in item["legal"]])
        return batch | {"group_ids": torch.from_numpy(np.concatenate([item["group_ids"] for item in items]))}
