"""Training batches: tokenised once, grouped by length, in an order that a resumed training repeats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from gdrt_lite.data import Example, chunks_of
from gdrt_lite.groups import TokenGroups
from gdrt_lite.lm import LanguageModel
from gdrt_lite.lm.packing import collate, unpacked


class SeededLengthGroups(LengthGroupedSampler):
    """Batches of similar length whose order depends on the seed and the epoch alone, so that training can be resumed."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int) -> None:
        super().__init__(batch_size, lengths=lengths)
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of each epoch."""
        self.generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)


class SeededChunks(torch.utils.data.Sampler):
    """The examples of a chunk one after the other, the chunks shuffled by the seed and the epoch alone.

    A batch then holds the targets of few users. Their history is read once, see `lm.packing`.
    """

    def __init__(self, chunks: Sequence[Sequence[int]], seed: int) -> None:
        self.chunks, self.seed = chunks, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of each epoch."""
        self.generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)

    def __len__(self) -> int:
        return sum(map(len, self.chunks))

    def __iter__(self) -> Iterator[int]:
        for chunk in torch.randperm(len(self.chunks), generator=self.generator).tolist():
            yield from self.chunks[chunk]


class TokenisedExamples(torch.utils.data.Dataset):
    """Prompts as token ids, the group of each target token (0 without groups), and the chunks of growing windows."""

    def __init__(self, lm: LanguageModel, examples: Sequence[Example], groups: TokenGroups | None) -> None:
        self.chunks = chunks_of(examples)
        self.rows = [lm.encode(example.history, example.target) for example in examples]
        self.group_ids = [
            np.zeros(len(row.labels), dtype=np.int64) if groups is None else groups.of(example.target)
            for row, example in zip(self.rows, examples, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"encoded": self.rows[index], "group_ids": self.group_ids[index]}


@dataclass
class Collator:
    """Batches rows into the tensors of `packing.collate`, with the group of each label beside: group_ids (N,)."""

    pad_id: int
    packed: bool

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        prompts = [item["encoded"] for item in items]
        batch = collate(prompts) if self.packed else unpacked(prompts, self.pad_id)
        return batch | {"group_ids": torch.from_numpy(np.concatenate([item["group_ids"] for item in items]))}
