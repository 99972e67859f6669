"""FAA of three segments on the growing windows of users, against captum's LLMAttribution (TASK and HISTORY only)."""

from __future__ import annotations

import torch
from captum.attr import FeatureAblation, LLMAttribution, TextTokenInput

from benchmarks.common import compare, distinct_tokens, language_model, roofline, whole_chunks
from gdrt_lite import attribution, lm
from gdrt_lite.ablation import FEATURES, ablate
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


def run(tiny: bool = False) -> dict:
    """Ratio, largest difference in float32 (nats), and the fraction of the matmul roofline."""
    some = whole_chunks(1 if tiny else 4)
    exact = language_model(tiny, torch.float32)
    wide = attribution.feature_ablation(exact, some[:2], "token").pivot(
        index=["example", "position"], columns="segment", values="attribution"
    )
    theirs = llm_attribution(exact, some[:2])
    mine = [torch.tensor(wide.loc[i][["TASK", "HISTORY"]].to_numpy().copy()) for i in range(2)]
    difference = max(float((a - b.cpu()).abs().max()) for a, b in zip(mine, theirs, strict=True))
    model = language_model(tiny)
    rows = [model.encode(e.history, e.target) for e in some]
    # The peer's cost grows with the target's tokens and with the history, so it gets a window of median cost.
    cost = [len(row) * len(row.labels) for row in rows]
    median = some[sorted(range(len(rows)), key=cost.__getitem__)[len(rows) // 2]]
    found = compare(
        lambda units: attribution.feature_ablation(model, units, "token"),
        lambda units: llm_attribution(model, units),
        some, [median], 2,
    )  # fmt: skip
    neutral = attribution.neutral_id(model)
    asked = [*rows, *(ablate(row, segment, "token", neutral) for row in rows for segment in FEATURES)]
    tokens, labels = distinct_tokens(asked) / len(rows), sum(len(row.labels) for row in asked) / len(rows)
    share = roofline(model, tokens, labels, found["ours_s"])
    return found | {"max_difference_fp32": difference, "roofline": share, "windows": len(some)}
