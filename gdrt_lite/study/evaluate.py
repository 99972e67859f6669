"""Evaluate a model or a baseline on test examples. Derived in notebook 06, section 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gdrt_lite import attribution, data, decoding, lm, metrics
from gdrt_lite.data import Example, Splits
from gdrt_lite.lm.model import in_float32
from gdrt_lite.study.cell import Evaluation
from gdrt_lite.study.config import Config


def evaluate(
    model: lm.LanguageModel, test: Sequence[Example], splits: Splits, config: Config, progress: bool = False
) -> Evaluation:
    """Recommendation lists, item NLL and attribution of a model for each test example, all scored `in_float32`.

    Args:
        model: the language model, fine-tuned or not.
        test: test examples; a seeded sample of `config.faa_examples` of them is attributed.
        splits: the data set, for the catalogue and the groups of its titles.
        config: list length, beam width, ablations and sizes.
        progress: show progress bars.
    """
    with in_float32(model.model):
        lists = decoding.recommend(
            model, [e.history for e in test], splits.catalogue, k=config.list_length, beams=config.beam_width or None,
            exclude_history=config.exclude_history, progress=progress,
        )  # fmt: skip
        scores = lm.target_logprobs(model, [model.encode(e.history, e.target) for e in test])
        explained = data.sample(test, config.faa_examples, seed=0)
        faa = {}
        for ablation in config.ablations:
            frame = attribution.feature_ablation(model, explained, ablation, progress=progress)
            faa[ablation] = attribution.mean_abs_per_user(frame).round(6).reset_index().to_dict("list")
        return Evaluation(
            **as_numbers(lists, test, splits),
            nll=[round(-float(score.sum()), 5) for score in scores],
            faa=faa,
            dtype=str(model.model.dtype).removeprefix("torch."),
        )


def as_numbers(lists: Sequence[Sequence[tuple[str, float]]], test: Sequence[Example], splits: Splits) -> dict[str, Any]:
    """The fields of an `Evaluation` that every recommender has, with titles as indices into the catalogue.

    Args:
        lists: the ranked (title, score) pairs of each test example.
        test: the test examples.
        splits: the data set.
    """
    number = {title: i for i, title in enumerate(splits.catalogue)}
    bins = metrics.popularity_groups(splits.train, splits.catalogue)
    item_groups = {"popularity": [list(bins[title]) for title in splits.catalogue]}
    if splits.genres:
        item_groups["genre"] = [list(splits.genres.get(title, ())) for title in splits.catalogue]
    return {
        "data": splits.name,
        "item_groups": item_groups,
        "users": [e.user for e in test],
        "targets": [number[e.target] for e in test],
        "histories": [[number[title] for title in e.history] for e in test],
        "lists": [[number[title] for title, _ in ranked] for ranked in lists],
    }
