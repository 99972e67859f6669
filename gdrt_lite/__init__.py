"""Does an LLM recommender read the user, or only the prompt? Diagnose context bias; tune it away with GDRT.

The method lies flat, one file per idea, in the order in which data flows through it:

    prompts        an example becomes token ids, each labelled TASK, HISTORY or TARGET
    ablation       diagnosis: the four meanings of "without a segment"
    attribution    diagnosis: what each segment contributes to the prediction (FAA)
    stranger       diagnosis: own minus stranger, what a user's own history is worth in nats
    cooccurrence   diagnosis: how often source and target tokens meet, beside PMI
    relevance      cure, step 1: how far the prompt without the history predicts each target token
    groups         cure, step 2: K-means groups of target tokens by relevance
    dro            cure, step 3: the Group-DRO weights and loss. Open this file first.
    objectives     cure, step 4: what training minimises: sft, balanced, gdrt and their controls
    trie           the catalogue as a trie of tokenised titles
    decoding       recommend: rank the titles of a catalogue
    metrics        NDCG, hit rate, coverage, unfairness, paired bootstrap
    baselines      popularity and item-to-item transitions, the recommenders to beat
    sasrec         a small transformer over item numbers, the same without words

What surrounds the method lies in wings:

    data           interactions, windows, cells, loaders, tables, sources: the data sets and their splits
    lm             model, loading, verify, adapters, scoring, plain, packing, attention: the model and its scoring core
    training       finetune, trainer, arguments, batches, checkpoints, learning_curve: fine-tuning
    plots          figures, canvas: one function per figure
    study          methods, config, workspace, cell, evaluate, trial: an experiment;
                   protocols, compare, report, verdicts, page, run, grid: many
    course         notebook, doctor, checks: what the notebooks share
    system         errors, files, machine, processes, wheels, assets, amazon: below all the others

Modules load when first used, so that importing the package is instant: `from gdrt_lite import data, lm`.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_MODULES = (
    "ablation",
    "attribution",
    "baselines",
    "cooccurrence",
    "course",
    "data",
    "decoding",
    "dro",
    "groups",
    "lm",
    "metrics",
    "objectives",
    "plots",
    "prompts",
    "relevance",
    "sasrec",
    "stranger",
    "study",
    "system",
    "training",
    "trie",
)
__all__ = [*_MODULES, "GdrtError", "__version__"]


def __getattr__(name: str) -> ModuleType | Any:
    """Import a submodule when it is first asked for, so that `import gdrt_lite` stays instant."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "GdrtError":
        return importlib.import_module(f"{__name__}.system.errors").GdrtError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
