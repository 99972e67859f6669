"""FAA of three segments: `attribution.feature_ablation` against captum's LLMAttribution (TASK and HISTORY only)."""

from __future__ import annotations

import torch
from captum.attr import FeatureAblation, LLMAttribution, TextTokenInput

from benchmarks.common import compare, examples, forward_gflop, matmul_gflops
from gdrt_lite import attribution, lm
from gdrt_lite.data import Example
from gdrt_lite.prompts import HISTORY


class PlainTokenizer:
    """The tokenizer without special tokens, as captum calls it."""

    def __init__(self, tokenizer: object) -> None:
        self.tokenizer = tokenizer

    def __call__(self, text: str, **options: object) -> object:
        return self.tokenizer(text, **{**options, "add_special_tokens": False})

    def __getattr__(self, name: str) -> object:
        return getattr(self.tokenizer, name)


def llm_attribution(model: lm.LanguageModel, some: list[Example]) -> list[torch.Tensor]:
    """The peer: two features, one forward pass per target token and ablation, batch 1."""
    results = []
    tokenizer = PlainTokenizer(model.tokenizer)
    for example in some:
        row = model.encode(example.history, example.target)
        n = row.predict_at[0] + 1
        text = model.tokenizer.decode(row.ids[:n])
        inputs = TextTokenInput(text, tokenizer, baselines=attribution.neutral_id(model))
        mask = torch.tensor([[int(s == HISTORY) for s in row.segments[:n]]])
        peer = LLMAttribution(FeatureAblation(model.model), tokenizer)
        result = peer.attribute(inputs, target=torch.tensor(row.labels), use_cached_outputs=False, feature_mask=mask)
        results.append(result.token_attr[:, [int((mask[0] == 0).nonzero()[0]), int((mask[0] == 1).nonzero()[0])]])
    return results


def run() -> dict:
    """Ratio, largest difference in float32, and the fraction of the matmul roofline."""
    some = examples(9)
    exact = lm.load(dtype=torch.float32, device="cpu")
    frame = attribution.feature_ablation(exact, some[:2], "token")
    wide = frame.pivot(index=["example", "position"], columns="segment", values="attribution")
    difference = 0.0
    for i, theirs in enumerate(llm_attribution(exact, some[:2])):
        mine = torch.tensor(wide.loc[i][["TASK", "HISTORY"]].to_numpy().copy())
        difference = max(difference, float((mine - theirs.cpu()).abs().max()))
    model = lm.load(device="cpu")
    rows = [model.encode(e.history, e.target) for e in some]
    # The peer's cost grows with the target's tokens, so it gets an example of median length.
    median = sorted(zip(rows, some, strict=True), key=lambda pair: len(pair[0].labels))[len(some) // 2][1]
    found = compare(
        lambda: attribution.feature_ablation(model, some, "token"), lambda: llm_attribution(model, [median]), len(some), 1
    )
    tokens, labels = (sum(map(size, rows)) / len(rows) for size in (len, lambda r: len(r.labels)))
    # The prompt without PREFIX is read with the whole one: only its target is read again.
    gflop = forward_gflop(model, 3 * tokens + labels, 4 * labels)
    return found | {
        "max_difference_fp32": difference,
        "roofline": gflop / found["ours_s"] / matmul_gflops(model.model.dtype),
    }
