"""SASRec (Kang and McAuley 2018): a small transformer over item numbers, trained from scratch. It knows no words.

The yardstick beside the baselines that count (notebook 00, section 5): what the order of a history is worth without a
language model. Each place of a sequence predicts the next item by a softmax over the whole catalogue.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from gdrt_lite.baselines import Ranked, best_titles, numbered
from gdrt_lite.data import Example


class _SASRec(nn.Module):
    """Item and place embeddings, causal self-attention, scores by the item embeddings themselves. Number 0 is padding."""

    def __init__(self, n_items: int, length: int, width: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, width, padding_idx=0)
        self.places = nn.Embedding(length, width)
        block = nn.TransformerEncoderLayer(width, heads, width, dropout, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, blocks, enable_nested_tensor=False)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        for embedding in (self.items, self.places):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, numbers: Tensor) -> Tensor:
        """(B, T) item numbers, padded behind -> (B, T, items) scores of the item after each place."""
        length = numbers.shape[1]
        x = self.items(numbers) + self.places.weight[:length]  # (B, T, width)
        later = torch.ones(length, length, dtype=torch.bool, device=numbers.device).triu(1)
        # Padding stands behind, so the causal mask hides it from every item.
        x = self.norm(self.blocks(self.dropout(x), mask=later))
        return x @ self.items.weight[1:].T


def sasrec(
    train: Sequence[Example],
    catalogue: Sequence[str],
    histories: Sequence[Sequence[str]],
    k: int = 10,
    exclude_history: bool = False,
    epochs: int = 20,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    width: int = 64,
    blocks: int = 2,
    heads: int = 2,
    dropout: float = 0.2,
    seed: int = 0,
) -> list[Ranked]:
    """Train SASRec on the windows, by Adam on the CPU, and rank the catalogue for each history.

    Args:
        train, catalogue, histories, k, exclude_history: as in `baselines.popularity`; other titles are skipped.
        epochs, batch_size, learning_rate: of the training.
        width, blocks, heads, dropout: of the model.
        seed: of the initial weights, the order of the windows and the dropout.

    Returns:
        Per user k pairs (title, log-probability), best first, ties by title.

    Raises:
        ValueError: an empty catalogue, no window with a title of it, or `k` out of range.
    """
    number = {title: i + 1 for title, i in numbered(catalogue, k).items()}
    rows = [[number[t] for t in (*e.history, e.target) if t in number] for e in train]
    rows = [row for row in rows if len(row) > 1]
    if not rows:
        raise ValueError("no training window holds two titles of the catalogue, so there is nothing to learn from.")
    length = max(len(row) for row in rows) - 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _SASRec(len(catalogue), length, width, blocks, heads, dropout)
        optimizer = torch.optim.Adam(model.parameters(), learning_rate, betas=(0.9, 0.98))
        for _ in range(epochs):
            for batch in torch.randperm(len(rows)).split(batch_size):
                numbers = _padded([rows[i] for i in batch.tolist()], length + 1)
                scores = model(numbers[:, :-1]).flatten(0, 1)
                loss = nn.functional.cross_entropy(scores, numbers[:, 1:].flatten() - 1, ignore_index=-1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    model.eval()
    lists: list[np.ndarray] = []
    with torch.inference_mode():
        for start in range(0, len(histories), batch_size):
            known = [[number[t] for t in h if t in number][-length:] for h in histories[start : start + batch_size]]
            logprobs = model(_padded(known, length)).log_softmax(-1)
            last = torch.tensor([max(len(row) - 1, 0) for row in known])
            lists += list(logprobs[torch.arange(len(known)), last].double().numpy())
    return best_titles(lists, catalogue, histories, k, exclude_history)


def _padded(rows: list[list[int]], length: int) -> Tensor:
    return torch.tensor([row + [0] * (length - len(row)) for row in rows]).reshape(len(rows), length)
