"""The package speaks to the oldest and the newest release of a dependency alike."""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from gdrt_lite.lm import keys_and_values


class Newer(LlamaForCausalLM):
    """As in transformers 5.24, whose models warn of `past_key_values` and will refuse it."""

    def forward(self, input_ids=None, cache=None, **other):
        raise NotImplementedError


def test_keys_and_values_have_the_name_that_the_model_takes():
    config = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    past = DynamicCache()
    newer, older = Newer(config), torch.nn.Module()
    older.forward = lambda input_ids, past_key_values=None: None
    assert keys_and_values(newer, past) == {"cache": past}
    assert keys_and_values(older, past) == {"past_key_values": past}
    tuned = get_peft_model(newer, LoraConfig(target_modules=["q_proj"]))  # its own forward takes anything
    assert keys_and_values(tuned, past) == {"cache": past}
