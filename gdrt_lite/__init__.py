"""Does an LLM recommender read the user, or only the prompt? Diagnose context bias; tune it away with GDRT.

The modules in the order in which data flows through them; each uses only those above it.

    errors, files     the error for a failed surrounding; writing files whole or not at all
    machine           versions, hardware and memory behind a figure
    wheels, assets    the real model and the second data set: fetched once, checked, converted, cached
    loaders, windows  readers of the data formats; sliding windows and splits
    data              interactions -> examples (history, target): load_movielens(), from_frame(), .split()
    prompts           an example -> token ids, each labelled TASK, HISTORY or TARGET
    attention         the attention that the models here use on a CPU
    collation         prompts as the tensors of a batch
    lm                load a causal language model; target_logprobs(), the one scoring core

    attribution       diagnosis: what each segment of the prompt contributes to the prediction (FAA)
    cooccurrence      diagnosis: how often source and target tokens meet, beside PMI
    relevance         cure, step 1: how far the prompt without the history predicts each target token
    groups            cure, step 2: K-means groups of target tokens by relevance
    dro               cure, step 3: the Group-DRO weights and loss. Open this file first.
    objectives        cure, step 4: what is minimised: sft, balanced, gdrt, reversed, random, item
    batches           cure, step 4: training batches that a resumed training repeats
    training          cure, step 4: fine-tune with an objective
    curve             what a training looks like along the way

    decoding          recommend: beam search over the titles of a catalogue
    metrics           NDCG, hit rate, coverage, unfairness, paired bootstrap
    baselines         popularity and item-kNN, the recommenders to beat
    canvas, plots     what figures share; one figure a function

    report            the figures of a model with their intervals, and tables of them
    config            the settings of an experiment, and three profiles of sizes
    experiment        the single steps of a run, each kept on disk when done
    run               the whole chain once; `python -m gdrt_lite run`
    evidence          tables and figures of many experiments
    study             the chain over seeds and settings; `python -m gdrt_lite study`
    doctor            is this computer ready? `python -m gdrt_lite doctor`
    checks, notebook  what the course's notebooks share: checks of exercises, set-up

Modules load when first used, so that importing the package is instant: `from gdrt_lite import data, lm`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_MODULES = (
    "assets",
    "attention",
    "attribution",
    "baselines",
    "batches",
    "canvas",
    "checks",
    "collation",
    "config",
    "cooccurrence",
    "curve",
    "data",
    "decoding",
    "doctor",
    "dro",
    "errors",
    "evidence",
    "experiment",
    "files",
    "groups",
    "lm",
    "loaders",
    "machine",
    "metrics",
    "notebook",
    "objectives",
    "plots",
    "prompts",
    "relevance",
    "report",
    "run",
    "study",
    "training",
    "wheels",
    "windows",
)
__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> ModuleType:
    """Import a submodule when it is first asked for, so that `import gdrt_lite` stays instant."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
