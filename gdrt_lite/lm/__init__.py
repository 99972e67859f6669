"""Language models: load one, score target tokens with it."""

from gdrt_lite.lm.loading import load
from gdrt_lite.lm.model import LanguageModel, has_fast_bf16, pocket
from gdrt_lite.lm.scoring import (
    additive,
    attention_mask,
    batch_logprobs,
    keys_and_values,
    only_rows,
    read_trunk,
    shares_prefix,
    target_logprobs,
)
from gdrt_lite.system.assets import SMOLLM2

__all__ = [
    "SMOLLM2", "LanguageModel", "additive", "attention_mask", "batch_logprobs", "has_fast_bf16", "keys_and_values", "load",
    "only_rows", "pocket", "read_trunk", "shares_prefix", "target_logprobs",
]  # fmt: skip
