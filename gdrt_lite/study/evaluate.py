"""Evaluate a model or a baseline on test examples. Derived in notebook 06, section 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from gdrt_lite import attribution, data, decoding, lm, metrics, stranger
from gdrt_lite.data import Example, Splits
from gdrt_lite.lm.model import in_float32
from gdrt_lite.prompts import target_ids
from gdrt_lite.study.cell import Evaluation
from gdrt_lite.study.config import Config
from gdrt_lite.training import legal_tokens


def evaluate(
    model: lm.LanguageModel, test: Sequence[Example], splits: Splits, config: Config, progress: bool = False
) -> Evaluation:
    """Recommendation lists, item NLL and attribution of a model for each test example, all scored `in_float32`.

    With any `ranking` but "beam" the whole catalogue is scored after each history. The lists are then exact, and scores
    after strangers' histories are known too.

    Args:
        model: the language model, fine-tuned or not.
        test: test examples; a seeded sample of `config.faa_examples` of them is attributed.
        splits: the data set, for the catalogue and the groups of its titles.
        config: list length, beam width, ablations and sizes.
        progress: show progress bars.
    """
    with in_float32(model.model):
        if config.ranking != "beam":
            found = _exact(model, test, splits, config, progress)
        else:
            lists = decoding.recommend(
                model, [e.history for e in test], splits.catalogue, k=config.list_length, beams=config.beam_width or None,
                exclude_history=config.exclude_history, progress=progress,
            )  # fmt: skip
            scores = lm.target_logprobs(model, [model.encode(e.history, e.target) for e in test])
            found = as_numbers(lists, test, splits) | {"nll": [round(-float(score.sum()), 5) for score in scores]}
        explained = data.sample(test, config.faa_examples, seed=0)
        faa = {}
        for ablation in config.ablations:
            frame = attribution.feature_ablation(model, explained, ablation, progress=progress)
            faa[ablation] = attribution.mean_abs_per_user(frame).round(6).reset_index().to_dict("list")
        return Evaluation(**found, faa=faa, dtype=str(model.model.dtype).removeprefix("torch."))


STRANGERS = 5  # histories of other users that each target is scored after


def _exact(
    model: lm.LanguageModel, test: Sequence[Example], splits: Splits, config: Config, progress: bool
) -> dict[str, Any]:
    """The fields of an `Evaluation` from the scores of the whole catalogue after each history, (N, V).

    "per-token" ranks by the score divided by the title's number of tokens, EOS included: length normalisation, which many
    published figures use. It changes the lists alone.
    """
    histories = tqdm([example.history for example in test], desc="rank", disable=not progress)
    legal = legal_tokens(model, splits.catalogue) if config.ranking == "legal" else None
    scores = stranger.title_logprobs(model, histories, splits.catalogue, legal)  # (N, V)
    known = as_numbers([], test, splits)
    targets, n = np.array(known["targets"]), np.arange(len(test))
    drawn = np.array(stranger.strangers_of(test, STRANGERS, seed=0))  # (N, S)
    divisor: Any = 1
    if config.ranking == "per-token":
        divisor = np.array([len(target_ids(model.tokenizer, title)) for title in splits.catalogue])
    left_out = np.zeros_like(scores, dtype=bool)
    for i, history in enumerate(known["histories"] if config.exclude_history else ()):
        left_out[i, history] = True

    def ranked(after: np.ndarray) -> list[list[int]]:
        """The best titles of each example that its user may be shown, by scores of shape (N, V)."""
        allowed = np.where(left_out, -np.inf, after / divisor)
        order = np.argsort(-allowed, axis=1, kind="stable")[:, : max(10, config.list_length)]
        return [[int(title) for title in row if allowed[i, title] > -np.inf] for i, row in enumerate(order)]

    def gain(after: np.ndarray) -> np.ndarray:
        """NDCG@10 of each example's target, by scores of shape (N, V)."""
        return metrics.ndcg_at_k(ranked(after), known["targets"], 10)

    own = scores[n, targets]
    others = np.mean([scores[drawn[:, s], targets] for s in range(STRANGERS)], axis=0)
    gains = gain(scores) - np.mean([gain(scores[drawn[:, s]]) for s in range(STRANGERS)], axis=0)
    return known | {
        "lists": [best[: config.list_length] for best in ranked(scores)],
        "nll": (-own).round(5).tolist(),
        "own_minus_stranger": (own - others).round(5).tolist(),
        "ndcg_minus_stranger": gains.round(5).tolist(),
    }


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
