"""The scoring core: log-probabilities of target tokens, with shared prompt text read once.

Attribution, relevance, training and item NLL all go through `batch_logprobs`. Derived in notebook 01, section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from transformers import (
    DynamicCache,
)

from gdrt_lite.lm.model import LanguageModel
from gdrt_lite.lm.packing import batches_of_similar_length, collate, equal_up_to_the_target
from gdrt_lite.lm.plain import plain_batch_logprobs, plain_logprobs
from gdrt_lite.prompts import Encoded


def target_logprobs(lm: LanguageModel, encoded: Sequence[Encoded], batch_tokens: int = 4096) -> list[torch.Tensor]:
    """log P(label | what stands before it) for every label of every prompt.

    Prompts are scored in batches of similar length, and those that are equal up to the target share a row. The result depends
    neither on their order nor on the batch size.

    Args:
        encoded: prompts, see `LanguageModel.encode`.
        batch_tokens: tokens in a batch, padding included: bounds the memory.

    Returns:
        One float32 tensor per prompt, shape (T,), in nats, in the order of `encoded`.
    """
    scores: list[torch.Tensor] = [torch.empty(0)] * len(encoded)
    lm.model.eval()
    share = shares_prefix(lm.model)
    alone = [i for i, row in enumerate(encoded) if len(row) > lm.packed]
    together = [i for i, row in enumerate(encoded) if len(row) <= lm.packed]
    with torch.inference_mode():
        for i in alone:
            scores[i] = plain_logprobs(lm.model, encoded[i], lm.masks).cpu()
        packs = equal_up_to_the_target([encoded[i] for i in together]) if share else [[i] for i in range(len(together))]
        packs = [[together[i] for i in pack] for pack in packs]
        for chosen in batches_of_similar_length(encoded, packs, batch_tokens):
            batch = collate(encoded, lm.tokenizer.pad_token_id, share, chosen)
            flat = batch_logprobs(lm.model, {name: tensor.to(lm.device) for name, tensor in batch.items()}).cpu()
            order = [i for pack in chosen for i in pack]
            for i, part in zip(order, flat.split([len(encoded[i].labels) for i in order]), strict=True):
                scores[i] = part
    return scores


def batch_logprobs(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Log-probabilities of the labels of a collated batch, shape (N,), float32, differentiable."""
    if "lengths" in batch:  # a `plain_batch`
        return plain_batch_logprobs(model, batch)
    past = shared_past(model, batch["prefix_ids"], len(batch["input_ids"]))
    mask = batch["attention_mask"]
    if mask.dim() == 4:  # who sees whom, given in full: transformers adds such a mask to the scores as it is
        dtype = next(model.parameters()).dtype
        mask = torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)
    with only_rows(model, batch["row"], batch["column"]):
        logits = model(
            input_ids=batch["input_ids"],
            attention_mask=mask,
            position_ids=batch["position_ids"],
            past_key_values=past,
            use_cache=past is not None,
        ).logits  # (N, vocabulary)
    return -F.cross_entropy(logits.float(), batch["labels"], reduction="none")


@contextmanager
def only_rows(model: torch.nn.Module, row: torch.Tensor, column: torch.Tensor) -> Iterator[None]:
    """Within this context the model computes logits at the places (row, column) only, as a matrix (N, vocabulary).

    The vocabulary-wide output layer costs as much as several transformer layers. A hook on it, unlike a call of the
    layers one by one, keeps whatever else a model does to its logits (scaling, soft-capping).
    """
    head = getattr(model, "module", model).get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, hidden: (hidden[0][row, column],))
    try:
        yield
    finally:
        hook.remove()


def shared_past(model: torch.nn.Module, prefix_ids: torch.Tensor, batch_size: int) -> DynamicCache | None:
    """Keys and values of the opening that every row shares, computed once and viewed by each row.

    Gradients flow through it: the rows' gradients of the shared keys and values add up.
    """
    if not len(prefix_ids):
        return None
    nowhere = prefix_ids[:0]
    with only_rows(model, nowhere, nowhere):
        past = model(input_ids=prefix_ids[None], use_cache=True).past_key_values
    expanded = [
        (layer.keys.expand(batch_size, -1, -1, -1), layer.values.expand(batch_size, -1, -1, -1)) for layer in past.layers
    ]
    return DynamicCache(expanded)


def shares_prefix(model: torch.nn.Module) -> bool:
    """Whether keys and values can be shared: full attention in every layer (no sliding window, no recurrent state)."""
    config = model.config.get_text_config(decoder=True)
    kinds = getattr(config, "layer_types", None) or []
    return not getattr(config, "sliding_window", None) and all(kind == "full_attention" for kind in kinds)
