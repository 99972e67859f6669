"""Language models: load one, score target tokens with it."""

from gdrt_lite.lm.loading import load
from gdrt_lite.lm.model import LanguageModel, has_fast_bf16, pocket
from gdrt_lite.lm.scoring import batch_logprobs, only_rows, shared_past, shares_prefix, target_logprobs
from gdrt_lite.system.assets import SMOLLM2

__all__ = [
    "SMOLLM2",
    "LanguageModel",
    "batch_logprobs",
    "has_fast_bf16",
    "load",
    "only_rows",
    "pocket",
    "shared_past",
    "shares_prefix",
    "target_logprobs",
]
