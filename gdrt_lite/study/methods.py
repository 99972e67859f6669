"""The registry of methods: the objectives and the baselines. Tables and checks of settings read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gdrt_lite import baselines
from gdrt_lite.data import Splits
from gdrt_lite.objectives import GROUPING, OBJECTIVES, WEIGHING
from gdrt_lite.sasrec import sasrec

Histories = Sequence[Sequence[str]]
TRAINING = ("train_examples", "epochs", "batch_size", "learning_rate", "dropout", "curve_examples")
ATTRIBUTION = ("faa_examples", "ablations")
OPTIONAL = frozenset((*GROUPING, *WEIGHING, *TRAINING, *ATTRIBUTION))  # settings that some methods do not use


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes:
        description: one line.
        uses: settings of `OPTIONAL` that change its result; cells that differ only in other settings may be compared.
        trained: whether it tunes the language model.
        seeded: whether its result depends on the seed.
        parameters: parameters specific to the method, with their defaults.
        recommend: for a recommender without a language model: (splits, histories, k, exclude_history, seed, parameters).
    """

    description: str
    uses: tuple[str, ...] = ()
    trained: bool = False
    seeded: bool = False
    parameters: Mapping[str, float] = field(default_factory=dict)
    recommend: Callable[[Splits, Histories, int, bool, int, Mapping[str, float]], list[baselines.Ranked]] | None = None


def _popularity(splits: Splits, histories: Histories, k: int, exclude_history: bool, *_: object) -> list[baselines.Ranked]:
    return baselines.popularity(splits.train, splits.catalogue, histories, k, exclude_history)


def _item_transitions(
    splits: Splits, histories: Histories, k: int, exclude_history: bool, *_: object
) -> list[baselines.Ranked]:
    return baselines.item_transitions(splits.train, splits.catalogue, histories, k, exclude_history)


def _sasrec(
    splits: Splits, histories: Histories, k: int, exclude_history: bool, seed: int, own: Mapping[str, float]
) -> list[baselines.Ranked]:
    sizes: dict[str, Any] = {"epochs": int(own["epochs"]), "width": int(own["width"]), "learning_rate": own["learning_rate"]}
    return sasrec(splits.train, splits.catalogue, histories, k, exclude_history, seed=seed, **sizes)


YARDSTICKS = {
    "pre-trained": Method("the language model as it is loaded", uses=ATTRIBUTION),
    "popularity": Method("the most frequent targets, the same for every user", recommend=_popularity),
    "item-transitions": Method(
        "what followed the titles of the history in the training examples", recommend=_item_transitions
    ),
    "sasrec": Method(
        "self-attention over item ids with full softmax, trained",
        seeded=True,
        parameters={"epochs": 20, "width": 64, "learning_rate": 1e-3},
        recommend=_sasrec,
    ),
}


def methods() -> dict[str, Method]:
    """All methods in the order of the tables: the pre-trained model, the objectives, then the baselines."""
    tuned = {
        name: Method(spec.description, (*TRAINING, *ATTRIBUTION, *spec.uses), True, True, spec.parameters)
        for name, spec in OBJECTIVES.items()
    }
    return {"pre-trained": YARDSTICKS["pre-trained"]} | tuned | YARDSTICKS


def baseline_names() -> list[str]:
    """The recommenders that only count: cheap enough for every run."""
    return [name for name, method in methods().items() if method.recommend and not method.seeded]


def check_method(name: str, parameters: Mapping[str, float]) -> Method:
    """The entry of the registry.

    Raises:
        ValueError: an unknown method, or a parameter that it does not have.
    """
    known = methods()
    if name not in known:
        raise ValueError(f"unknown method {name!r}; choose one of {', '.join(known)}.")
    for parameter in set(parameters) - set(known[name].parameters):
        its = ", ".join(known[name].parameters) or "none"
        raise ValueError(f"method {name!r} has no parameter {parameter!r}; its parameters are: {its}.")
    return known[name]
