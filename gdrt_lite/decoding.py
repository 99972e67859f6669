"""Recommendation by beam search over the catalogue: a trie of tokenised titles says which tokens may follow.

The score of a title is the sum of its tokens' log-probabilities under the whole vocabulary (nothing is masked before the
softmax), EOS included. Derived in notebook 00, section 2 and notebook 06, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from gdrt_lite.lm import LanguageModel, only_rows, shared_past, shares_prefix, target_logprobs
from gdrt_lite.lm.packing import collate
from gdrt_lite.prompts import target_ids
from gdrt_lite.trie import TitleTrie

Ranked = list[tuple[str, float]]


def recommend(
    lm: LanguageModel,
    histories: Sequence[Sequence[str]],
    catalogue: Sequence[str] | TitleTrie,
    k: int = 10,
    beams: int | None = None,
    exclude_history: bool = False,
    batch_size: int = 16,
    progress: bool = False,
) -> list[Ranked]:
    """The k best titles for each user by constrained beam search.

    All beams of a user share one row: in a step, the newest token of each beam is one more query of the row, and the
    attention mask lets it see the prompt and its own beam only. So keys and values are appended once and never re-ordered.

    Args:
        histories: titles per user, oldest first.
        catalogue: distinct titles, or a `TitleTrie` built before.
        k: length of each list.
        beams: width, default k. A beam as wide as the catalogue is an exhaustive search.
        exclude_history: leave out titles that stand in the user's history.
        batch_size: users decoded together; it does not change the result.
        progress: show a progress bar.

    Returns:
        Per user, in order: up to k pairs (title, score in nats), best first; fewer only when excluding leaves fewer.

    Raises:
        ValueError: an empty catalogue, k or beams out of range, a history title outside the catalogue, or a window too small
            for the task text and the longest title; or a model whose layers do not all attend to all of that.
    """
    trie = catalogue if isinstance(catalogue, TitleTrie) else TitleTrie(catalogue, lm.tokenizer)
    beams = k if beams is None else beams
    if not 1 <= k <= len(trie):
        raise ValueError(f"k={k} is out of range: it must be between 1 and the {len(trie)} titles of the catalogue.")
    if not k <= beams:
        raise ValueError(f"beams={beams} is below k={k}: a list of k titles needs at least k beams.")
    for user, history in enumerate(histories):
        for title in history:
            if title not in trie.number:
                raise ValueError(
                    f"histories[{user}] holds {title!r}, which is not in the catalogue; "
                    "check its spelling (titles carry the year) or add it to the catalogue."
                )
    from tqdm.auto import tqdm

    longest = max(map(len, trie.paths))  # every title must fit behind the prompt, whichever turns out best
    encoded = [lm.encode(history, None, room=longest) for history in histories]
    _check_reach(lm, max(map(len, encoded), default=0) + longest)
    places = max(map(len, encoded), default=0) + beams * longest
    if places > 2 * lm.packed:
        what = f"{2 * lm.packed} tokens where {places} are needed" if lm.packed else "one prompt"
        raise ValueError(f"a row of {lm.name!r} may hold {what}, so beams cannot share it; rank titles with score_catalogue.")
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    results: list[Ranked] = [[]] * len(encoded)
    lm.model.eval()
    with torch.inference_mode():
        for start in tqdm(range(0, len(order), batch_size), desc="recommend", disable=not progress):
            chosen = order[start : start + batch_size]
            closed = [trie.closed_nodes(histories[i]) if exclude_history else set() for i in chosen]
            lists = _beam_search(lm, [encoded[i] for i in chosen], trie, beams, closed)
            for i, ranked in zip(chosen, lists, strict=True):
                results[i] = ranked[:k]
    return results


def score_catalogue(lm: LanguageModel, history: Sequence[str], titles: Sequence[str]) -> Ranked:
    """Every title scored in full, best first: the exhaustive reference for `recommend`.

    A long history is cut to leave room for the longest title, so that all titles are scored after the same one.
    """
    lengths = [len(target_ids(lm.tokenizer, title)) for title in titles]
    encoded = [lm.encode(history, title, room=max(lengths) - n) for title, n in zip(titles, lengths, strict=True)]
    scores = target_logprobs(lm, encoded)
    ranked = [(title, float(score.sum())) for title, score in zip(titles, scores, strict=True)]
    return sorted(ranked, key=lambda pair: (-pair[1], pair[0]))


@dataclass
class _Beams:
    """The running beams of all users of a batch, one entry per beam."""

    user: np.ndarray
    slot: np.ndarray  # column of the beam within its user's row
    node: np.ndarray
    score: np.ndarray


class _RoomyLayer(DynamicLayer):
    """Keys and values with room behind them: a plain layer copies all it holds whenever a token is appended."""

    ROOM = 256  # columns added when the room is used up

    def __init__(self, plain: DynamicLayer) -> None:
        super().__init__()
        self.lazy_initialization(plain.keys, plain.values)
        self._held = (plain.keys, plain.values)
        self.keys, self.values = plain.keys, plain.values

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object) -> tuple:
        """Append, and return all keys and values, as views (B, G, K, D)."""
        start, end = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if end > self._held[0].shape[-2]:
            self._held = tuple(
                torch.nn.functional.pad(t, (0, 0, 0, self.ROOM + end - start)) for t in (self.keys, self.values)
            )
        for held, states in zip(self._held, (key_states, value_states), strict=True):
            held[..., start:end, :] = states
        self.keys, self.values = (held[..., :end, :] for held in self._held)
        return self.keys, self.values


def _check_reach(lm: LanguageModel, length: int) -> None:
    """Beams in one row need every layer to attend to all `length` tokens of a prompt and a title, wherever they stand."""
    config = lm.model.config.get_text_config(decoder=True)
    others = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    reach = getattr(config, "sliding_window", None) or length
    if others or reach < length:
        what = f"has layers of {sorted(others)}" if others else f"attends to {reach} tokens where {length} are read"
        raise ValueError(f"{lm.name!r} {what}, so beams cannot share a row; rank titles with score_catalogue instead.")


def _beam_search(lm: LanguageModel, encoded: list, trie: TitleTrie, width: int, closed: list[set[int]]) -> list[Ranked]:
    batch = collate(encoded, lm.tokenizer.pad_token_id, shares_prefix(lm.model))
    batch = {name: tensor.to(lm.device) for name, tensor in batch.items()}
    users = len(encoded)
    past = (
        shared_past(lm.model, batch["prefix_ids"], users) or DynamicCache()
    )  # keeps all keys, in sliding layers too: see `_check_reach`
    everyone = torch.arange(users, device=lm.device)
    with only_rows(lm.model, everyone, torch.full_like(everyone, batch["input_ids"].shape[1] - 1)):
        output = lm.model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            past_key_values=past,
            use_cache=True,
        )
    layers = output.past_key_values.layers
    layers[:] = map(_RoomyLayer, layers)
    prompt_mask = batch["attention_mask"].bool()[:, None]  # (users, 1, prompt)
    next_position = torch.tensor([len(e) for e in encoded], device=lm.device)[:, None]
    running = _Beams(np.arange(users), np.zeros(users, int), np.zeros(users, int), np.zeros(users))
    ancestry = torch.zeros(users, 1, 0, dtype=torch.bool, device=lm.device)  # (users, beams, tokens decoded so far)
    finished: list[Ranked] = [[] for _ in range(users)]
    while True:
        running, parents, tokens = _expand(running, output.logits, trie, width, closed, finished)
        if not len(running.user):
            return finished
        # Columns without a running beam repeat the last parent; nothing reads what they produce.
        columns = int(running.slot.max()) + 1
        parent = torch.zeros(users, columns, dtype=torch.long, device=lm.device)
        token = torch.zeros(users, columns, dtype=torch.long, device=lm.device)
        user, slot = (
            torch.from_numpy(running.user).to(lm.device),
            torch.from_numpy(running.slot).to(lm.device),
        )
        parent[user, slot] = torch.from_numpy(parents).to(lm.device)
        token[user, slot] = torch.from_numpy(tokens).to(lm.device)
        inherited = torch.gather(ancestry, 1, parent[..., None].expand(-1, -1, ancestry.shape[2]))
        itself = torch.eye(columns, dtype=torch.bool, device=lm.device).expand(users, -1, -1)
        ancestry = torch.cat([inherited, itself], dim=2)
        visible = torch.cat([prompt_mask.expand(-1, columns, -1), ancestry], dim=2)[:, None]
        with only_rows(lm.model, user, slot):
            output = lm.model(
                input_ids=token,
                attention_mask=_additive(visible, lm.model.dtype),
                position_ids=next_position.expand(-1, columns),
                past_key_values=output.past_key_values,
                use_cache=True,
            )
        next_position = next_position + 1


def _expand(
    beams: _Beams,
    logits: torch.Tensor,
    trie: TitleTrie,
    width: int,
    closed: list[set[int]],
    finished: list[Ranked],
) -> tuple[_Beams, np.ndarray, np.ndarray]:
    """One step of beam search for all users: the next beams, the column of each one's parent, and its token.

    Of the 2 * width best continuations, titles that end among the first `width` are finished, and the best `width` of
    the others run on: the rule of transformers' beam search, so that both return the same lists.
    """
    rows = logits.float()  # (beams, vocabulary)
    normaliser = rows.logsumexp(-1)
    first, n_children = trie.first[beams.node], np.diff(trie.first)[beams.node]
    beam = np.repeat(np.arange(len(beams.node)), n_children)
    edge = np.repeat(first - np.cumsum(n_children) + n_children, n_children) + np.arange(n_children.sum())
    index = torch.from_numpy(beam).to(rows.device)
    step = rows[index, torch.from_numpy(trie.token[edge]).to(rows.device)] - normaliser[index]
    score = beams.score[beam] + step.cpu().numpy().astype(np.float64)
    user = beams.user[beam]
    if any(closed):
        is_open = np.array([node not in closed[u] for u, node in zip(user, trie.child[edge], strict=True)], dtype=bool)
        beam, edge, score, user = beam[is_open], edge[is_open], score[is_open], user[is_open]
    order = np.lexsort((-score, user))  # by user, then best first
    user, beam, edge, score = user[order], beam[order], edge[order], score[order]
    rank = np.arange(len(user)) - np.searchsorted(user, user)  # place within the user's continuations
    node = trie.child[edge]
    leaf = trie.leaf[node]
    for i in np.flatnonzero((leaf >= 0) & (rank < width)):
        finished[user[i]].append((trie.titles[leaf[i]], float(score[i])))
    for ranked in finished:
        ranked.sort(key=lambda pair: -pair[1])
        del ranked[width:]
    keep = (leaf < 0) & (rank < 2 * width)
    # Scores only fall: a beam below a full list of finished titles can never enter it.
    bar = np.array([ranked[-1][1] if len(ranked) == width else -np.inf for ranked in finished])
    keep &= score > bar[user]
    chosen = np.flatnonzero(keep)
    slot = np.arange(len(chosen)) - np.searchsorted(user[chosen], user[chosen])
    chosen, slot = chosen[slot < width], slot[slot < width]
    following = _Beams(user[chosen], slot, node[chosen], score[chosen])
    return following, beams.slot[beam[chosen]], trie.token[edge[chosen]]


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """An attention mask in the form the model adds to its scores: 0 where visible, the lowest number elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, torch.finfo(dtype).min)
