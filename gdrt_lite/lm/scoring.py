"""The scoring core: log-probabilities of target tokens, with shared prompt text read once.

Attribution, relevance, training and item NLL all go through `batch_logprobs`. Derived in notebook 01, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import DynamicCache

from gdrt_lite.lm import packing
from gdrt_lite.lm.model import LanguageModel
from gdrt_lite.lm.plain import plain_batch_logprobs, plain_logprobs
from gdrt_lite.prompts import Encoded
from gdrt_lite.system.processes import over_processes


def target_logprobs(lm: LanguageModel, encoded: Sequence[Encoded], batch_tokens: int = 2048) -> list[torch.Tensor]:
    """log P(label | what stands before it) for every label of every prompt.

    Prompts that share beginnings are read as one tree, every token once (see `lm.packing`). The result depends neither on
    their order nor on the batch size.

    Args:
        encoded: prompts, see `LanguageModel.encode`.
        batch_tokens: tokens that are read together: bounds the memory.

    Returns:
        One float32 tensor per prompt, shape (T,), in nats, in the order of `encoded`.
    """
    scores: list[torch.Tensor] = [torch.empty(0)] * len(encoded)
    lm.model.eval()
    alone = [i for i, prompt in enumerate(encoded) if len(prompt) > lm.packed]
    together = [i for i, prompt in enumerate(encoded) if len(prompt) <= lm.packed]
    packed = shares_prefix(lm.model)
    cut = packing.batches if packed else packing.batches_of_similar_length

    def score(batches: Sequence[list[int]]) -> Iterator[torch.Tensor]:
        for chosen in batches:
            prompts = [encoded[i] for i in chosen]
            batch = packing.collate(prompts) if packed else packing.unpacked(prompts, lm.tokenizer.pad_token_id)
            yield batch_logprobs(lm.model, {name: tensor.to(lm.device) for name, tensor in batch.items()}).cpu()

    cuts = cut([encoded[i] for i in together], batch_tokens) if together else ()
    batches = [[together[place] for place in places] for places in cuts]
    with torch.inference_mode():
        for i in alone:
            scores[i] = plain_logprobs(lm.model, encoded[i], lm.masks).cpu()
        for chosen, flat in zip(batches, over_processes(score, batches), strict=True):
            for i, part in zip(chosen, flat.split([len(encoded[i].labels) for i in chosen]), strict=True):
                scores[i] = part
    return scores


def batch_logprobs(model: torch.nn.Module, batch: packing.Batch) -> torch.Tensor:
    """Log-probabilities of the labels of a collated batch, shape (N,), float32, differentiable."""
    if "lengths" in batch:  # a `plain_batch`
        return plain_batch_logprobs(model, batch)
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
    return F.log_softmax(logits.float(), -1)[batch["place"], batch["labels"]]  # (N,)


def keys_and_values(model: torch.nn.Module, past: DynamicCache | None) -> dict[str, DynamicCache | None]:
    """What has been read, as the argument that a model takes: `cache` from transformers 5.24, else `past_key_values`."""
    forward: Any = model.get_base_model().forward if isinstance(model, PeftModel) else model.forward
    return {"cache" if "cache" in signature(forward).parameters else "past_key_values": past}


def attention_mask(batch: packing.Batch, dtype: torch.dtype) -> torch.Tensor:
    """Who sees whom, (B, 1, W, P + W), as transformers adds it to the scores: 0, or the lowest number where nobody sees.

    An unpacked batch has a plain mask (B, W), from which the model derives its own.
    """
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
