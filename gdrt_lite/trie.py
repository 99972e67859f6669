"""The catalogue as a trie of tokenised titles: after a beginning it says which tokens may follow.

Derived in notebook 00, section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from transformers import PreTrainedTokenizerBase

from gdrt_lite.prompts import many_title_ids, normal_title

CHUNK = 20_000  # titles tokenised at once


class TitleTrie:
    """The catalogue as a prefix tree in flat arrays, one entry per node, in the order of a walk level by level.

        titles: a b, a c, d             nodes:  0 ─a─ 1 ─b─ 3 ─EOS─ 5
                                                │     └──c─ 4 ─EOS─ 6
                                                └─d─ 2 ─EOS─ ...

    The children of a node stand side by side, first[node] to first[node + 1] - 1, ordered by their token.

    Attributes:
        titles: the catalogue; `number` gives the place of a title in it, by its `prompts.normal_title`.
        token: the token that leads to each node; -1 for the root.
        parent: the node above each node; -1 for the root.
        first: the first child of each node, and behind them the number of nodes.
        leaf: the number of the title that ends in a node (reached by EOS); -1 elsewhere.
        end: for each title the node it ends in.
        n_titles: titles below each node.
        depth: tokens of the longest title, EOS included.

    Raises:
        ValueError: the catalogue is empty, or two titles have the same tokens.
    """

    def __init__(self, titles: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        if not titles:
            raise ValueError("the catalogue is empty: there is nothing to recommend.")
        self.titles = list(titles)
        self.number = {normal_title(title): i for i, title in enumerate(self.titles)}
        if len(self.number) < len(self.titles):
            raise ValueError("the catalogue holds a title twice; pass distinct titles.")
        tokens, length = _tokens(self.titles, tokenizer)
        start = np.cumsum(length) - length  # of each title in `tokens`
        self.depth = int(length.max())
        self.end = np.zeros(len(length), dtype=np.int64)  # the node that each title has reached
        levels = [(np.array([-1]), np.array([-1]))]  # (parent, token) of the nodes of each level
        n_nodes = 1
        for level in range(self.depth):
            going = np.flatnonzero(length > level)
            # Titles that come from one node by one token reach the same node: these pairs, sorted, are the next level.
            pair = self.end[going] << 32 | tokens[start[going] + level]
            pairs, node = np.unique(pair, return_inverse=True)
            self.end[going] = n_nodes + node
            n_nodes += len(pairs)
            levels.append((pairs >> 32, pairs & (1 << 32) - 1))
        self.parent, self.token = (np.concatenate(arrays) for arrays in zip(*levels, strict=True))
        self.leaf = np.full(n_nodes, -1)
        self.leaf[self.end] = np.arange(len(self.titles))
        twice = np.flatnonzero(self.leaf[self.end] != np.arange(len(self.titles)))
        if len(twice):
            one, other = self.titles[twice[0]], self.titles[self.leaf[self.end[twice[0]]]]
            raise ValueError(f"{one!r} and {other!r} have the same tokens; rename one.")
        self.first = np.searchsorted(self.parent, np.arange(n_nodes + 1))  # children stand in the order of their parents
        self.n_titles = (self.leaf >= 0).astype(np.int64)
        below = n_nodes
        for parents, _ in levels[:0:-1]:  # from the deepest level up
            np.add.at(self.n_titles, parents, self.n_titles[below - len(parents) : below])
            below -= len(parents)

    def __len__(self) -> int:
        return len(self.titles)

    def path(self, title: str) -> list[int]:
        """The nodes on the way to a title, from the first token to EOS."""
        nodes = [int(self.end[self.number[normal_title(title)]])]
        while self.parent[nodes[-1]]:
            nodes.append(int(self.parent[nodes[-1]]))
        return nodes[::-1]

    def legal(self, title: str) -> list[np.ndarray]:
        """For each token of a title the tokens that the catalogue allows in its place, itself among them, T arrays."""
        above = self.parent[self.path(title)]
        return [self.token[self.first[node] : self.first[node + 1]] for node in above]

    def closed_nodes(self, banned: Sequence[str]) -> np.ndarray:
        """Nodes below which every title is banned, ascending."""
        nodes, counts = np.unique([node for title in set(banned) for node in self.path(title)], return_counts=True)
        nodes = nodes.astype(np.int64)  # of no title, numpy makes an array of floats
        return nodes[counts == self.n_titles[nodes]]


@lru_cache(maxsize=4)
def trie_of(catalogue: tuple[str, ...], tokenizer: PreTrainedTokenizerBase) -> TitleTrie:
    """The trie of a catalogue; the last few are kept, so that a call for each user does not build it again."""
    return TitleTrie(catalogue, tokenizer)


def _tokens(titles: list[str], tokenizer: PreTrainedTokenizerBase) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of all titles one behind the other, each as `prompts.target_ids` has them, and their lengths (n,)."""
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer has no end-of-sequence token, which ends a title; set tokenizer.eos_token.")
    tokens, lengths, eos = [], [], [tokenizer.eos_token_id]
    for at in range(0, len(titles), CHUNK):
        rows = many_title_ids(tokenizer, titles[at : at + CHUNK])
        lengths.append(np.fromiter((len(row) + 1 for row in rows), dtype=np.int64, count=len(rows)))
        tokens.append(np.concatenate([np.array([*row, *eos], dtype=np.int32) for row in rows]))
    return np.concatenate(tokens), np.concatenate(lengths)
