"""The settings of a cell and the three profiles of sizes. Importing this module loads neither torch nor transformers.

Used in notebook 06, section 4.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdrt_lite.ablation import ABLATIONS, MEANINGS
from gdrt_lite.data.windows import SPLITS, at_least
from gdrt_lite.system.assets import SMOLLM2

PRIORS = {
    "uniform": "all groups have the same weight",
    "counts": "in proportion to the tokens in the group: with a large tau GDRT is plain SFT",
    "relevance": "in proportion to exp(mean relevance / tau): Q then follows the loss above the scorer's own",
}


def _setting(
    default: Any,
    help: str,
    *,
    choices: Collection[str] = (),
    least: float | None = None,
    above: float | None = None,
    below: float = float("inf"),
    key: str = "",
    added: bool = False,
) -> Any:
    """A field with the metadata for the command line, the validation and the key.

    Args:
        choices: the allowed values.
        least, above, below: bounds of a number: the value must be at least, above, and below these.
        key: the name under which `Config.key` hashes the field, where it is not the field's own.
        added: hash the field only where it differs from its default, so that it changes no key of an earlier cell.
    """
    metadata = dict(help=help, choices=choices, least=least, above=above, below=below, key=key, added=added)
    if isinstance(default, dict):
        return dataclasses.field(default_factory=dict, metadata=metadata, hash=False)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """All settings that determine a cell. Equal configurations give equal figures on the same machine.

    Raises:
        ValueError: a value that is not among the choices, or is out of range.
        TypeError: an unknown setting.
    """

    method: str = _setting("sft", "one of `study.methods.methods()`", key="objective")
    model: str = _setting(SMOLLM2, "smollm2-135m, pocket, a folder, or a hub name")
    data: str = _setting("movielens", "movielens, movielens-100k, or a folder or file of your own")
    split: str = _setting(
        "new_users", "how examples are held out; published keeps a folder's own files", choices=(*SPLITS, "published")
    )
    top_items: int = _setting(500, "most frequent titles kept; 0 keeps all", least=0)
    history: int = _setting(5, "most titles in a history", least=1)
    train_examples: int = _setting(320, "training examples, drawn from the users in turn", least=1, key="train_windows")
    epochs: float = _setting(1.0, "passes over the training examples", above=0)
    batch_size: int = _setting(16, "examples per optimiser step", least=1)
    learning_rate: float = _setting(1e-3, "peak of the linear schedule", above=0)
    tau: float = _setting(1.0, "temperature of the group weights, nats", above=0)
    n_groups: int = _setting(5, "number of token groups, K", least=1, below=1_000_001, key="k")
    prior: str = _setting("uniform", "prior P(g) of the groups", choices=PRIORS)
    ema: float = _setting(0.0, "decay of the running group losses; 0 takes those of the batch", least=0, below=1)
    dropout: float = _setting(0.0, "dropout of the LoRA adapter", least=0, below=1)
    scorer: str = _setting(
        "pre-trained", "model that scores token relevance: as loaded, or tuned", choices=("pre-trained", "sft")
    )
    part: str = _setting("test", "part that is measured; valid is for choosing settings", choices=("test", "valid"))
    test_examples: int = _setting(100, "examples that are measured", least=1)
    faa_examples: int = _setting(32, "examples that are attributed", least=1)
    ablations: tuple[str, ...] = _setting(("attention",), "what `without a segment` means", choices=ABLATIONS)
    list_length: int = _setting(10, "titles in a recommended list", least=1, key="beams")
    exclude_history: bool = _setting(True, "leave out the titles of the user's history")
    curve_examples: int = _setting(0, "valid examples measured after each epoch; 0: no learning curve", least=0)
    seed: int = _setting(0, "random seed of the sample, the adapter and the order of training", least=0, below=2**32)
    beam_width: int = _setting(0, "beams of the search; 0: as many as the list is long", least=0, added=True)
    parameters: Mapping[str, float] = _setting({}, "parameters of the method's own, as name=value", added=True)
    columns: Mapping[str, str] = _setting({}, "user, item, time, noun or verb of a table, as name=value", added=True)
    ranking: str = _setting(
        "beam",
        "beam search; exact: all titles, also after strangers' histories; the same by the legal softmax, or per token",
        choices=("beam", "exact", "legal", "per-token"),
        added=True,
    )
    growing: bool = _setting(False, "histories that grow up to the length and then begin anew, read once", added=True)
    lora_rank: int = _setting(8, "rank of the LoRA adapter; its alpha is twice as much", least=1, added=True)
    lora_targets: str = _setting("attention", "layers that LoRA adapts", choices=("attention", "all-linear"), added=True)
    warm_start: int = _setting(0, "steps on targets without histories that every method starts from", least=0, added=True)

    def __post_init__(self) -> None:
        from gdrt_lite.study.methods import check_method  # here, since it loads torch

        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            self._check_type(field, value)
            if isinstance(field.default, float):  # 1 and 1.0 are one configuration
                object.__setattr__(self, field.name, value := float(value))
            self._check(field, value)
        check_method(self.method, self.parameters)

    @staticmethod
    def _check_type(field: dataclasses.Field, value: Any) -> None:
        default = {} if field.default is dataclasses.MISSING else field.default
        kinds: dict[type, tuple[Any, str]] = {
            bool: (bool, "true or false"), str: (str, "text"), float: ((int, float), "a number"),
            tuple: (tuple, "a list"), dict: (Mapping, "names with values"),
        }  # fmt: skip
        kind, word = kinds.get(type(default), (object, ""))
        if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, object)) or value in ("", ()):
            raise ValueError(f"{field.name}={value!r} must be {word}{', and not empty' if kind in (str, tuple) else ''}.")
        for name, own in value.items() if field.name == "parameters" else ():
            if isinstance(own, bool) or not isinstance(own, (int, float)) or not math.isfinite(own):
                raise ValueError(f"parameters: {name}={own!r} must be a finite number.")

    @staticmethod
    def _check(field: dataclasses.Field, value: Any) -> None:
        rule = field.metadata
        if isinstance(field.default, int) and not isinstance(field.default, bool) and rule["least"] is not None:
            at_least(field.name, value, rule["least"])
            if not value < rule["below"]:
                raise ValueError(f"{field.name}={value} is out of range: it must be below {rule['below']:,}.")
        if isinstance(field.default, float):
            low, word = (rule["above"], "above") if rule["above"] is not None else (rule["least"], "at least")
            if not (value > low or value == rule["least"]) or not value < rule["below"]:
                limit = "finite" if rule["below"] == float("inf") else f"below {rule['below']:g}"
                raise ValueError(f"{field.name}={value:g} is out of range: it must be {word} {low:g}, and {limit}.")
        for one in value if isinstance(value, tuple) else (value,):
            if rule["choices"] and one not in rule["choices"]:
                raise ValueError(f"{field.name}={one!r} is unknown; choose one of {', '.join(rule['choices'])}.")

    @property
    def key(self) -> str:
        """A unique file name: data set, model, method and seed in clear, and a hash of all settings."""
        values = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not field.metadata["added"] or value not in (field.default, {}):
                values[field.metadata["key"] or field.name] = (
                    _KEY_NAMES.get(value, value) if field.name == "method" else value
                )
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
        return f"{_short_name(self.data)}-{_short_name(self.model)}-{values['objective']}-s{self.seed}-{digest}"

    @property
    def label(self) -> str:
        """The method, followed by its parameters where they differ from the defaults."""
        return self.method + "".join(f" {name}={value:g}" for name, value in sorted(self.parameters.items()))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Config:
        """Build a configuration from a grid or a cell, where tuples are lists and fields may be named by their keys.

        Raises:
            TypeError: an unknown setting.
            ValueError: as for `Config`.
        """
        names = {field.metadata["key"]: field.name for field in dataclasses.fields(cls)}
        found: dict[str, Any] = {names.get(name, name): tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        method = {key: name for name, key in _KEY_NAMES.items()}.get(found.get("method", ""))
        return cls(**(found | ({"method": method} if method else {})))


def _short_name(path: str) -> str:
    """The last part of a path in at most 60 bytes of UTF-8: file names end at 255."""
    return Path(path).name.encode(errors="replace")[:60].decode(errors="ignore")


_KEY_NAMES = {"item-transitions": "item-knn"}  # methods whose cells keep an earlier name in their keys

# Sizes, and for "full" also the published learning rate and dropout. All profiles run the same code.
PROFILES: dict[str, dict[str, Any]] = {
    "quick": dict(train_examples=240, batch_size=8, test_examples=64, faa_examples=24),
    "standard": dict(
        history=10, train_examples=3000, epochs=2.0, test_examples=500, faa_examples=100, ablations=MEANINGS,
    ),
    "full": dict(
        history=10, train_examples=10_000, epochs=10.0, batch_size=128, learning_rate=1e-4, dropout=0.05,
        test_examples=5000, faa_examples=500, ablations=MEANINGS,
    ),
}  # fmt: skip

# What a quick run trains where neither model nor data is named: the pocket model, which reads its users within minutes.
FIRST_LOOK: dict[str, Any] = dict(
    model="pocket", top_items=100, history=10, growing=True, ranking="exact", train_examples=6000, epochs=2.0, batch_size=32,
    learning_rate=2e-3, tau=4.0, test_examples=120, faa_examples=24,
)  # fmt: skip
