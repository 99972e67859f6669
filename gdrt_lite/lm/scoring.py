"""The scoring core: log-probabilities of target tokens, with shared prompt text read once.

Attribution, relevance, training and item NLL all go through `batch_logprobs`. Derived in notebook 01, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import DynamicCache

from gdrt_lite.lm import packing
from gdrt_lite.lm.model import LanguageModel
from gdrt_lite.lm.plain import plain_logprobs
from gdrt_lite.prompts import Encoded
from gdrt_lite.system.processes import over_processes

ALONE = "this model reads its prompts one by one, where the softmax cannot be taken over the legal tokens alone."


def target_logprobs(
    lm: LanguageModel,
    encoded: Sequence[Encoded],
    batch_tokens: int = 2048,
    legal: Sequence[Sequence[np.ndarray]] | None = None,
) -> list[torch.Tensor]:
    """log P(label | what stands before it) for every label of every prompt.

    Prompts that share beginnings are read as one tree, every token once (see `lm.packing`). The result depends neither on
    their order nor on `batch_tokens`, how many tokens are read together, which bounds the memory. `legal` names for
    each label of each prompt the tokens that the softmax is taken over; by default that is the whole vocabulary.

    Returns:
        One float32 tensor per prompt, shape (T,), in nats, in the order of `encoded`.
    """
    scores: list[torch.Tensor] = [torch.empty(0)] * len(encoded)
    lm.model.eval()
    if legal is not None and any(len(prompt) > lm.packed for prompt in encoded):
        raise ValueError(ALONE)
    alone = [i for i, prompt in enumerate(encoded) if len(prompt) > lm.packed]
    together = [i for i, prompt in enumerate(encoded) if len(prompt) <= lm.packed]
    packed = shares_prefix(lm.model)
    cut = packing.batches if packed else packing.batches_of_similar_length

    def score(batches: Sequence[list[int]]) -> Iterator[torch.Tensor]:
        for chosen in batches:
            prompts = [encoded[i] for i in chosen]
            batch = packing.collate(prompts) if packed else packing.unpacked(prompts, lm.tokenizer.pad_token_id)
            if legal is not None:
                batch |= packing.legal_tensors([tokens for i in chosen for tokens in legal[i]])
            yield batch_logprobs(lm.model, {name: tensor.to(lm.device) for name, tensor in batch.items()}).cpu()

    cuts = cut([encoded[i] for i in together], batch_tokens) if together else ()
    batches = [[together[place] for place in places] for places in cuts]
    with torch.inference_mode():
        singly = over_processes(lambda own: [plain_logprobs(lm.model, encoded[i], lm.masks).cpu() for i in own], alone)
        for i, part in zip(alone, singly, strict=True):
            scores[i] = part
        for chosen, flat in zip(batches, over_processes(score, batches), strict=True):
            for i, part in zip(chosen, flat.split([len(encoded[i].labels) for i in chosen]), strict=True):
                scores[i] = part
    return scores


def batch_logprobs(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """Log-probabilities of the labels of a collated batch, shape (N,), float32, differentiable."""
    if "alone" in batch:  # prompts that are read one by one
        if "legal" in batch:
            raise ValueError(ALONE)
        return torch.cat([plain_logprobs(model, prompt) for prompt in batch["alone"]])
    past, trunk_logits = read_trunk(model, batch)
    with only_rows(model, batch["row"], batch["column"]):
        logits = model(
            input_ids=batch["input_ids"],  # (B, W)
            attention_mask=attention_mask(batch, next(model.parameters()).dtype),
            position_ids=batch["position_ids"],
            use_cache=past is not None,
            **keys_and_values(model, past),
        ).logits  # (M - R, vocabulary)
    if len(trunk_logits):
        logits = torch.cat([trunk_logits, logits])  # (M, vocabulary)
    if "legal" in batch:
        return legal_logprobs(logits.float(), batch["place"], batch["labels"], batch["legal"], batch["legal_of"])
    return F.log_softmax(logits.float(), -1)[batch["place"], batch["labels"]]  # (N,)


def keys_and_values(model: torch.nn.Module, past: DynamicCache | None) -> dict[str, DynamicCache | None]:
    """What has been read, as the argument that a model takes: `cache` from transformers 5.24, else `past_key_values`."""
    forward: Any = model.get_base_model().forward if isinstance(model, PeftModel) else model.forward
    return {"cache" if "cache" in signature(forward).parameters else "past_key_values": past}


def legal_logprobs(
    logits: torch.Tensor, place: torch.Tensor, labels: torch.Tensor, legal: torch.Tensor, legal_of: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities of labels under a softmax over their legal tokens alone, shape (N,).

    Args:
        logits: (M, vocabulary).
        place, labels: for each label the row of `logits` that predicts it, and its token, both (N,).
        legal, legal_of: the legal tokens of all labels one behind the other, and the label that each belongs to, both (L,).
    """
    of_label = logits[place, labels]  # (N,)
    scores = logits[place[legal_of], legal]  # (L,)
    top = torch.full_like(of_label, -torch.inf).scatter_reduce(0, legal_of, scores.detach(), "amax")
    total = torch.zeros_like(of_label).index_add(0, legal_of, (scores - top[legal_of]).exp())
    return of_label - top - total.log()


def attention_mask(batch: packing.Batch, dtype: torch.dtype) -> torch.Tensor:
    """Who sees whom, (B, 1, W, P + W), see `additive`; or the plain mask (B, W) of an unpacked batch."""
    if "attention_mask" in batch:
        return batch["attention_mask"]
    column = torch.arange(batch["input_ids"].shape[1], device=batch["input_ids"].device)[:, None]  # (W, 1)
    sees = (batch["seen_from"][:, None] <= column) & (column < batch["seen_to"][:, None])  # (B, W, P + W)
    return additive(sees[:, None], dtype)


def additive(sees: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """A mask in the form that a model adds to its scores: 0 where a token sees a key, the lowest number elsewhere."""
    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)


@contextmanager
def only_rows(model: torch.nn.Module, row: torch.Tensor, column: torch.Tensor) -> Iterator[None]:
    """Within this context the model computes logits at the places (row, column) only, as a matrix (N, vocabulary).

    The vocabulary-wide output layer costs as much as several transformer layers. A hook on it, unlike a call of the
    layers one by one, keeps whatever else a model does to its logits (scaling, soft-capping).
    """
    wrapped: Any = getattr(model, "module", model)
    head = wrapped.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][row, column],))
    try:
        yield
    finally:
        hook.remove()


def read_trunk(model: torch.nn.Module, batch: packing.Batch) -> tuple[DynamicCache | None, torch.Tensor]:
    """Keys and values of the trunk, computed once and viewed by each row, and the logits asked for in it, (R, vocabulary).

    Gradients flow through it: the rows' gradients of the shared keys and values add up.
    """
    ids, read, rows = batch["trunk_ids"], batch["trunk_read"], len(batch["input_ids"])
    if not len(ids):
        return None, ids.new_zeros(0, 0)
    past = DynamicCache()
    with only_rows(model, torch.zeros_like(read), read):
        output = model(
            input_ids=ids[None],  # (1, P)
            attention_mask=torch.ones_like(ids)[None],  # without it, a gap in the positions is taken for a new text
            position_ids=batch["trunk_positions"][None],
            use_cache=True,
            **keys_and_values(model, past),
        )
    shared = [(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1))  # (B, G, P, D)
              for layer in past.layers]  # fmt: skip
    return DynamicCache(shared), output.logits


def shares_prefix(model: torch.nn.Module) -> bool:
    """Whether keys and values can be shared: full attention in every layer (no sliding window, no recurrent state)."""
    given: Any = model.config
    config = given.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or []
    return not getattr(config, "sliding_window", None) and all(kind == "full_attention" for kind in kinds)
