"""Constrained recommendation, beam 10: `decoding.recommend` against model.generate with prefix_allowed_tokens_fn."""

from __future__ import annotations

import torch

from benchmarks.common import DEVICE, compare, examples, language_model, roofline, splits
from gdrt_lite import decoding, lm
from gdrt_lite.trie import TitleTrie


def generate(model: lm.LanguageModel, trie: TitleTrie, histories: list, beams: int = 10) -> list:
    """The peer: one user at a time, a Python callback per beam and step."""
    eos, lists = model.tokenizer.eos_token_id, []
    children: list[dict[int, int]] = [
        dict(zip(trie.token[a:b].tolist(), range(a, b), strict=True))
        for a, b in zip(trie.first[:-1], trie.first[1:], strict=True)
    ]
    for history in histories:
        prompt = model.encode(history, None).ids

        def allowed(_: int, ids: torch.Tensor, start: int = len(prompt)) -> list[int]:
            node = 0
            for token in ids[start:].tolist():
                if token not in children[node]:
                    return [eos]
                node = children[node][token]
            return list(children[node]) or [eos]

        with torch.inference_mode():
            output = model.model.generate(
                torch.tensor([prompt], device=DEVICE), num_beams=beams,
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long, device=DEVICE),
                num_return_sequences=beams, max_new_tokens=64, prefix_allowed_tokens_fn=allowed, length_penalty=0.0,
                do_sample=False, return_dict_in_generate=True, output_scores=True,
            )  # fmt: skip
        titles = [model.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip() for ids in output.sequences]
        lists.append(list(zip(titles, output.sequences_scores.tolist(), strict=True)))
    return lists


def run(tiny: bool = False) -> dict:
    """Ratio, equality in float32, and the fraction of the matmul roofline."""
    catalogue = splits().catalogue
    histories = [e.history for e in examples(4 if tiny else 32)]
    exact, model = language_model(tiny, torch.float32), language_model(tiny)
    trie = TitleTrie(catalogue, exact.tokenizer)
    mine, theirs = decoding.recommend(exact, histories[:3], trie), generate(exact, trie, histories[:3])
    same = all([t for t, _ in a] == [t for t, _ in b] for a, b in zip(mine, theirs, strict=True))
    found = compare(
        lambda units: decoding.recommend(model, units, trie),
        lambda units: generate(model, trie, units),
        histories,
        histories[:3],
    )
    prompt = sum(len(model.encode(h, None)) for h in histories) / len(histories)
    steps = sum(len(trie.path(title)) for title in catalogue) / len(catalogue)
    share = roofline(model, prompt + 10 * steps, 1 + 10 * steps, found["ours_s"])
    return found | {"same_lists_fp32": same, "roofline": share}
