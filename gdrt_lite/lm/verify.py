"""May prompts of this model share a batch? Asked of the model itself when it is loaded, not of a list of architectures.

A few prompts are read packed (shared beginnings once, masked tokens left out) and by transformers' own forward, one at a
time. Where both agree the model is read packed. Where they agree up to the length of a sliding window, prompts up to this
length are. Else every prompt is read alone.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from gdrt_lite.ablation import ablate
from gdrt_lite.lm import attention, packing
from gdrt_lite.lm.model import UNLIMITED, LanguageModel, in_float32
from gdrt_lite.lm.plain import plain_logprobs
from gdrt_lite.lm.scoring import batch_logprobs, shares_prefix, target_logprobs
from gdrt_lite.prompts import HISTORY, TARGET, TASK, Encoded, control_ids
from gdrt_lite.system.errors import GdrtError, first_line

SHORT = 24  # tokens of the short probes
TREE = 4096  # tokens that a row of many prompts stays below
# Settings by which a layer treats near and far tokens differently.
REACH = re.compile(r"window|chunk|local_att|block_size|original_max_position|floor_scale|index_topk|compress")
PARAMETERS_IN_FLOAT32 = 2e9  # up to this size a model in 16 bits is probed in float32, where only a fault makes a difference


def verify(lm: LanguageModel) -> LanguageModel:
    """`lm` with `packed` and `masks` as its model allows them, and the fastest attention whose scores are right.

    Raises:
        GdrtError: transformers cannot compute the model's log-probabilities, or each depends on the tokens after it.
    """
    with torch.inference_mode(), in_float32(lm.model, PARAMETERS_IN_FLOAT32):
        own = lm.model.config._attn_implementation
        _set_attention(lm.model, "eager")
        reaches = _reaches(lm)
        longest = min(max([0, *(r for r in reaches if r <= _feasible(lm))]) + 2 * SHORT, lm.context_length)
        short, long = (_probes(lm, length) for length in (min(SHORT, lm.context_length), longest))
        try:
            _check_causal(lm, short[0])
            masks = _leaves_masked_tokens_out(lm, short[0])
            lm = dataclasses.replace(lm, masks=masks)
            expected = [plain_logprobs(lm.model, row) if masks or all(row.attend) else None for row in short + long]
        except GdrtError:
            raise
        except Exception as error:  # an architecture may break off in any way
            why = f"{type(error).__name__}: {first_line(error)[:200]}"
            raise GdrtError(
                f"transformers cannot compute log-probabilities with {lm.name!r} ({why}); choose another model."
            ) from error
        if masks:
            ways = [attention.NAME] * (own == "sdpa" and lm.device.type == "cpu") + [own, "eager"]
            for way in dict.fromkeys(ways):
                _set_attention(lm.model, way)
                if _agree(lm, short + long, expected):
                    return dataclasses.replace(lm, packed=_packed(lm, [r for r in reaches if r > longest]))
                if min(reaches, default=0) >= 2 * SHORT and _agree(lm, short, expected[: len(short)]):
                    return dataclasses.replace(lm, packed=_packed(lm, reaches))
        _set_attention(lm.model, "eager")
        return dataclasses.replace(lm, packed=0)


def _packed(lm: LanguageModel, reaches: Sequence[int]) -> int:
    """Longest prompt to read with others, of a model that is right in rows of up to the first of `reaches` tokens."""
    if not reaches:
        return UNLIMITED
    # The rows of a tree are longer than their prompts; those of other models are not, but for what beams add.
    return min(reaches) // 2 if not shares_prefix(lm.model) or min(reaches) >= TREE else 0


def _probes(lm: LanguageModel, length: int) -> list[Encoded]:
    """Prompts of at most `length` random tokens: two that end differently, a shorter one, and each segment masked."""
    known = lm.model.get_input_embeddings()
    size = min(len(lm.tokenizer), getattr(known, "num_embeddings", len(lm.tokenizer)))
    banned = control_ids(lm.tokenizer)
    ordinary = torch.tensor([i for i in range(size) if i not in banned])
    drawn = ordinary[torch.randint(len(ordinary), (2 * length,), generator=torch.Generator().manual_seed(length))].tolist()
    task, answer = max(2, length // 6), max(2, length // 6)

    def prompt(n: int, ending: Sequence[int]) -> Encoded:
        ids = (*drawn[: n - answer], *ending)
        history = n - answer - 2 * task
        segments = (TASK,) * task + (HISTORY,) * history + (TASK,) * task + (TARGET,) * answer
        return Encoded(ids, segments, tuple(range(n - answer - 1, n - 1)), ids[-answer:], (1,) * n)

    whole = prompt(length, drawn[length : length + answer])
    other, shorter = prompt(length, drawn[-answer:]), prompt(length - 3, drawn[-answer:])
    return [whole, other, shorter, *(ablate(whole, s, "attention", drawn[0]) for s in (HISTORY, TASK))]


def _check_causal(lm: LanguageModel, row: Encoded) -> None:
    """A log-probability must not change with the tokens after it."""
    asked = dict(predict_at=row.predict_at[:-1], labels=row.labels[:-1])
    changed = dataclasses.replace(row, ids=row.ids[:-1] + row.ids[:1], **asked)
    scores = [plain_logprobs(lm.model, prompt) for prompt in (row, changed)]
    if not _close(lm, scores[0][:-1], scores[1], 2e-5):  # of one shape, so that a causal model repeats itself
        raise GdrtError(f"{lm.name!r} is no causal language model: what it says of a token depends on the tokens after it.")


def _leaves_masked_tokens_out(lm: LanguageModel, row: Encoded) -> bool:
    """Whether a masked prompt scores as the prompt without these tokens, at the positions of the others."""
    if "position_ids" not in inspect.signature(lm.model.forward).parameters:
        return False

    def scores_at(kept: list[int]) -> torch.Tensor:
        ids, positions = (torch.tensor([part], device=lm.device) for part in ([row.ids[p] for p in kept], kept))
        # Without a mask, transformers takes a gap in the positions for the start of another text.
        given = dict(input_ids=ids, position_ids=positions, attention_mask=torch.ones_like(ids), return_dict=True)
        logits = lm.model(**given, use_cache=False).logits[0]
        labels = torch.tensor(row.labels, device=lm.device)[:, None]
        return logits[[kept.index(p) for p in row.predict_at]].float().log_softmax(-1).gather(1, labels)[:, 0]

    masked = ablate(row, HISTORY, "attention", row.ids[0])
    try:
        without = scores_at([p for p, visible in enumerate(masked.attend) if visible])
        told = scores_at(list(range(len(row))))
        return _close(lm, plain_logprobs(lm.model, masked), without) and _close(lm, told, plain_logprobs(lm.model, row))
    except (TypeError, ValueError, RuntimeError, IndexError):
        return False


def _agree(lm: LanguageModel, rows: Sequence[Encoded], expected: Sequence[torch.Tensor | None]) -> bool:
    try:
        together = target_logprobs(dataclasses.replace(lm, packed=UNLIMITED), rows)
        if shares_prefix(lm.model):  # and with the opening of the first three read before them, as a trunk
            batch = {name: tensor.to(lm.device) for name, tensor in packing.one_row_each(rows[:3]).items()}
            together += batch_logprobs(lm.model, batch).split([len(row.labels) for row in rows[:3]])
            expected = [*expected, *expected[:3]]
    except Exception:  # whatever breaks off in a batch may be right alone
        return False
    return all(_close(lm, a, b) for a, b in zip(together, expected, strict=True) if b is not None)


def _close(lm: LanguageModel, scores: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-3) -> bool:
    off = (scores.cpu() - expected.cpu()).abs()
    if not torch.isfinite(off).all():
        return False
    exact = next(lm.model.parameters()).dtype in (torch.float32, torch.float64)
    return bool(off.max() < tolerance if exact else off.median() < 0.05)


def _reaches(lm: LanguageModel) -> list[int]:
    """Numbers in the configuration that may be lengths of sliding windows and the like."""

    def settings(config: dict[str, Any]) -> Iterator[int]:
        for name, value in config.items():
            if isinstance(value, dict):
                yield from settings(value)
            elif REACH.search(str(name)) and "pattern" not in str(name) and "layer" not in str(name):
                values = value if isinstance(value, list | tuple) else [value]
                yield from (n for n in values if isinstance(n, int) and not isinstance(n, bool) and n > 1)

    return sorted(set(settings(lm.model.config.get_text_config(decoder=True).to_dict())))


def _feasible(lm: LanguageModel) -> int:
    return 1024 if lm.model.num_parameters() < 1e9 else 256


def _set_attention(model: PreTrainedModel, way: str) -> None:
    try:
        model.set_attn_implementation(way)
    except (ValueError, ImportError, AttributeError):
        pass  # the model has only its own
