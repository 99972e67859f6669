"""Ranking the catalogue for a user: exactly, or by beam search over the trie of tokenised titles, which is faster.

The score of a title is the sum of its tokens' log-probabilities under the whole vocabulary (nothing is masked before the
softmax), EOS included. Derived in notebook 00, section 6 and notebook 06, section 4.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from gdrt_lite.data import Ranked
from gdrt_lite.lm import (
    LanguageModel,
    additive,
    attention_mask,
    keys_and_values,
    only_rows,
    packing,
    read_trunk,
    shares_prefix,
    target_logprobs,
)
from gdrt_lite.prompts import Encoded, normal_title, target_ids
from gdrt_lite.system.processes import over_processes
from gdrt_lite.trie import TitleTrie, trie_of


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
        k, beams: length of each list, and width of the search, default k; as wide as the catalogue it is exhaustive.
        exclude_history: leave out titles that stand in the user's history.
        batch_size: users decoded together; it does not change the result.

    Returns:
        Per user, in order: up to k pairs (title, score in nats), best first; fewer only when excluding leaves fewer.

    Raises:
        ValueError: an empty catalogue, k or beams out of range, a history title outside the catalogue, or a window too small
            for the task text and the longest title; or a model whose layers do not all attend to all of that.
    """
    trie = _checked_trie(lm, histories, catalogue, k)
    beams = k if beams is None else beams
    if beams < k:
        raise ValueError(f"beams={beams} is below k={k}: a list of k titles needs at least k beams.")
    encoded = [lm.encode(history, None, room=trie.depth) for history in histories]  # every title must fit behind the prompt
    longest = max(map(len, encoded), default=0)
    _check_reach(lm, longest + trie.depth)
    places = longest + beams * trie.depth
    if places > 2 * lm.packed:
        what = f"{2 * lm.packed} tokens where {places} are needed" if lm.packed else "one prompt"
        raise ValueError(
            f"a row of {lm.name!r} may hold {what}, so beams cannot share it; rank titles with score_catalogue."
        )
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    lm.model.eval()

    def search(batches: Sequence[list[int]]) -> Iterator[list[Ranked]]:
        for chosen in tqdm(batches, desc="recommend", disable=not progress):
            closed = [trie.closed_nodes(histories[i] if exclude_history else ()) for i in chosen]
            yield [ranked[:k] for ranked in _beam_search(lm, [encoded[i] for i in chosen], trie, beams, closed)]

    with torch.inference_mode():
        lists = over_processes(search, [order[start : start + batch_size] for start in range(0, len(order), batch_size)])
    found = dict(zip(order, itertools.chain(*lists), strict=True))
    return [found[i] for i in range(len(order))]


def rank_catalogue(
    lm: LanguageModel,
    histories: Sequence[Sequence[str]],
    catalogue: Sequence[str] | TitleTrie,
    k: int = 10,
    exclude_history: bool = False,
    progress: bool = False,
) -> list[Ranked]:
    """The k best titles for each user, exactly: every title of the catalogue is scored in full.

    The catalogue is read as one tree behind each user's prompt (see `lm.packing`), so that the prompt and whatever titles
    share are read once. The result of `recommend` with beams enough to miss no title, for models of every kind of attention.

    The arguments are those of `recommend`.

    Returns:
        Per user, in order: up to k pairs (title, score in nats), best first, ties by title.

    Raises:
        ValueError: as `recommend`, but for beams and layers.
    """
    trie = _checked_trie(lm, histories, catalogue, k)

    def rank(users: Sequence[Sequence[str]]) -> Iterator[Ranked]:
        for history in tqdm(users, desc="rank", disable=not progress):
            known = {normal_title(title) for title in history} if exclude_history else ()
            ranked = score_catalogue(lm, history, trie.titles)
            yield [pair for pair in ranked if normal_title(pair[0]) not in known][:k]

    return over_processes(rank, histories)


def score_catalogue(lm: LanguageModel, history: Sequence[str], titles: Sequence[str]) -> Ranked:
    """Every title scored in full, best first, ties by title.

    A long history is cut to leave room for the longest title, so that all titles are scored after the same one.
    """
    lengths = [len(target_ids(lm.tokenizer, title)) for title in titles]
    encoded = [lm.encode(history, title, room=max(lengths) - n) for title, n in zip(titles, lengths, strict=True)]
    scores = target_logprobs(lm, encoded)
    ranked = [(title, float(score.sum())) for title, score in zip(titles, scores, strict=True)]
    return sorted(ranked, key=lambda pair: (-pair[1], pair[0]))


def _checked_trie(
    lm: LanguageModel, histories: Sequence[Sequence[str]], catalogue: Sequence[str] | TitleTrie, k: int
) -> TitleTrie:
    """The catalogue's trie, once k and the histories are known to fit it."""
    trie = catalogue if isinstance(catalogue, TitleTrie) else trie_of(tuple(catalogue), lm.tokenizer)
    if not 1 <= k <= len(trie):
        raise ValueError(f"k={k} is out of range: it must be between 1 and the {len(trie)} titles of the catalogue.")
    for user, history in enumerate(histories):
        for title in history:
            if normal_title(title) not in trie.number:
                raise ValueError(
                    f"histories[{user}] holds {title!r}, which is not in the catalogue; "
                    "check its spelling (titles carry the year) or add it to the catalogue."
                )
    return trie


@dataclass
class _Beams:
    """The running beams of all users of a batch, or what may follow them: one entry each, those of a user together."""

    user: np.ndarray
    place: np.ndarray  # column of a beam within its user's row; of what follows a beam, the number of that beam
    node: np.ndarray  # of the trie
    score: np.ndarray


class _RoomyLayer(DynamicLayer):
    """Keys and values with room behind them: a plain layer copies all it holds whenever a token is appended."""

    ROOM = 256  # columns added when the room is used up

    def __init__(self, plain: DynamicLayer) -> None:
        super().__init__()
        self.lazy_initialization(plain.keys, plain.values)
        self._held: tuple[torch.Tensor, ...] = (plain.keys, plain.values)
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


def _beam_search(
    lm: LanguageModel, encoded: list[Encoded], trie: TitleTrie, width: int, closed: list[np.ndarray]
) -> list[Ranked]:
    """The best `width` titles of each user of a batch; `closed` holds the nodes that each may not enter."""
    users = len(encoded)
    closed_pairs = np.concatenate([user * len(trie.token) + nodes for user, nodes in enumerate(closed)])
    logits, past, prompt_seen = _read_prompts(lm, encoded)  # (users, vocabulary), keys, (users, prompt)
    position = torch.tensor([len(prompt) for prompt in encoded], device=lm.device)[:, None]  # of the next token, (users, 1)
    running = _Beams(np.arange(users), np.zeros(users, int), np.zeros(users, int), np.zeros(users))
    ancestry = torch.zeros(users, 1, 0, dtype=torch.bool, device=lm.device)  # (users, beams, tokens decoded so far)
    finished: list[Ranked] = [[] for _ in range(users)]
    while True:
        found = _open_continuations(running, logits, trie, closed_pairs)
        running, parents, tokens = _select(running, found, trie, width, finished)
        if not len(running.user):
            return finished
        columns = int(running.place.max()) + 1
        user, slot = (torch.from_numpy(part).to(lm.device) for part in (running.user, running.place))
        # Columns without a running beam repeat the first one; nothing reads what they produce.
        parent, token = torch.zeros(2, users, columns, dtype=torch.long, device=lm.device)
        parent[user, slot], token[user, slot] = (torch.from_numpy(part).to(lm.device) for part in (parents, tokens))
        inherited = torch.gather(ancestry, 1, parent[..., None].expand(-1, -1, ancestry.shape[2]))
        itself = torch.eye(columns, dtype=torch.bool, device=lm.device).expand(users, -1, -1)
        ancestry = torch.cat([inherited, itself], dim=2)  # (users, columns, tokens decoded so far)
        sees = torch.cat([prompt_seen[:, None].expand(-1, columns, -1), ancestry], dim=2)
        with only_rows(lm.model, user, slot):
            logits = lm.model(
                input_ids=token,
                attention_mask=additive(sees[:, None], lm.model.dtype),
                position_ids=position.expand(-1, columns),
                use_cache=True,
                **keys_and_values(lm.model, past),
            ).logits  # (beams, vocabulary)
        position = position + 1


def _read_prompts(lm: LanguageModel, encoded: list[Encoded]) -> tuple[torch.Tensor, DynamicCache, torch.Tensor]:
    """Logits after each prompt (users, vocabulary), the keys and values, and which keys a user's beams see (users, keys)."""
    asked = [replace(prompt, predict_at=(len(prompt) - 1,), labels=(0,)) for prompt in encoded]
    packed = shares_prefix(lm.model)
    batch = packing.one_row_each(asked) if packed else packing.unpacked(asked, lm.tokenizer.pad_token_id)
    batch = {name: tensor.to(lm.device) for name, tensor in batch.items()}
    past, _ = read_trunk(lm.model, batch)
    past = past or DynamicCache()  # keeps all keys, in sliding layers too: see `_check_reach`
    with only_rows(lm.model, batch["row"], batch["column"]):
        output = lm.model(
            input_ids=batch["input_ids"],
            attention_mask=attention_mask(batch, lm.model.dtype),
            position_ids=batch["position_ids"],
            use_cache=True,
            **keys_and_values(lm.model, past),
        )
    past.layers[:] = map(_RoomyLayer, past.layers)
    last = batch["column"][:, None]  # of each prompt's last token
    seen = (batch["seen_from"] <= last) & (last < batch["seen_to"]) if packed else batch["attention_mask"].bool()
    return output.logits, past, seen


def _open_continuations(beams: _Beams, logits: torch.Tensor, trie: TitleTrie, closed_pairs: np.ndarray) -> _Beams:
    """All tokens that may follow a beam and are not closed to its user, the best of a user first."""
    rows = logits.float()  # (beams, vocabulary)
    n_children = trie.first[beams.node + 1] - trie.first[beams.node]
    beam = np.repeat(np.arange(len(beams.node)), n_children)
    child = np.arange(len(beam)) - np.repeat(np.cumsum(n_children) - n_children, n_children)  # 0, 1, ... within each beam
    node = trie.first[beams.node][beam] + child
    index = torch.from_numpy(beam).to(rows.device)
    step = rows[index, torch.from_numpy(trie.token[node]).to(rows.device)] - rows.logsumexp(-1)[index]
    score = beams.score[beam] + step.cpu().numpy().astype(np.float64)
    user = beams.user[beam]
    order = np.lexsort((-score, user))
    order = order[~np.isin((user * len(trie.token) + node)[order], closed_pairs)]
    return _Beams(user[order], beam[order], node[order], score[order])


def _select(
    beams: _Beams, found: _Beams, trie: TitleTrie, width: int, finished: list[Ranked]
) -> tuple[_Beams, np.ndarray, np.ndarray]:
    """The next beams, the column of each one's parent, and its token; titles that end are added to `finished`.

    Of the 2 * width best continuations, titles that end among the first `width` are finished, and the best `width` of
    the others run on: the rule of transformers' beam search, so that both return the same lists.
    """
    rank = np.arange(len(found.user)) - np.searchsorted(found.user, found.user)  # place among the user's continuations
    leaf = trie.leaf[found.node]
    for i in np.flatnonzero((leaf >= 0) & (rank < width)):
        finished[found.user[i]].append((trie.titles[leaf[i]], float(found.score[i])))
    for ranked in finished:
        ranked.sort(key=lambda pair: -pair[1])
        del ranked[width:]
    # Scores only fall: a beam below a full list of finished titles can never enter it.
    bar = np.array([ranked[-1][1] if len(ranked) == width else -np.inf for ranked in finished])
    chosen = np.flatnonzero((leaf < 0) & (rank < 2 * width) & (found.score > bar[found.user]))
    user = found.user[chosen]
    slot = np.arange(len(chosen)) - np.searchsorted(user, user)
    chosen, slot = chosen[slot < width], slot[slot < width]
    following = _Beams(found.user[chosen], slot, found.node[chosen], found.score[chosen])
    return following, beams.place[found.place[chosen]], trie.token[found.node[chosen]]
