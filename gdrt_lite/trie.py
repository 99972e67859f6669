"""The catalogue as a trie of tokenised titles: after a beginning it says which tokens may follow.

Derived in notebook 00, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from gdrt_lite.prompts import target_ids


class TitleTrie:
    """The catalogue as a prefix tree in flat arrays.

    The children of `node` are `child[first[node] : first[node + 1]]`, entered by the tokens `token[...]` at the same
    places, ascending. A leaf (reached by EOS) is title number `leaf[node]`, any other node has -1.

    Raises:
        ValueError: the catalogue is empty, or two titles have the same tokens.
    """

    def __init__(self, titles: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        if not titles:
            raise ValueError("the catalogue is empty: there is nothing to recommend.")
        self.titles = list(titles)
        self.number = {title: i for i, title in enumerate(self.titles)}
        if len(self.number) < len(self.titles):
            raise ValueError("the catalogue holds a title twice; pass distinct titles.")
        paths = [target_ids(tokenizer, title) for title in self.titles]
        children: list[dict[int, int]] = [{}]
        leaf = [-1]
        self.paths: list[list[int]] = []  # the nodes on the way to each title
        for i, path in enumerate(paths):
            node, nodes = 0, []
            for token in path:
                if token not in children[node]:
                    children[node][token] = len(children)
                    children.append({})
                    leaf.append(-1)
                node = children[node][token]
                nodes.append(node)
            if leaf[node] >= 0:
                raise ValueError(f"{self.titles[leaf[node]]!r} and {self.titles[i]!r} have the same tokens; rename one.")
            leaf[node] = i
            self.paths.append(nodes)
        self.leaf = np.array(leaf)
        self.first = np.concatenate([[0], np.cumsum([len(c) for c in children])])
        self.token = np.array([t for c in children for t in sorted(c)], dtype=np.int64)
        self.child = np.array([c[t] for c in children for t in sorted(c)], dtype=np.int64)
        self.n_titles = np.zeros(len(children), dtype=np.int64)  # titles below each node
        for nodes in self.paths:
            self.n_titles[nodes] += 1

    def __len__(self) -> int:
        return len(self.titles)

    def closed_nodes(self, banned: Sequence[str]) -> set[int]:
        """Nodes below which every title is banned."""
        counts: dict[int, int] = {}
        for title in set(banned):
            for node in self.paths[self.number[title]]:
                counts[node] = counts.get(node, 0) + 1
        return {node for node, count in counts.items() if count == self.n_titles[node]}
