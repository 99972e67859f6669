"""The settings of a cell, and the three profiles of sizes.

Used in notebook 06, section 4.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gdrt_lite.ablation import ABLATIONS
from gdrt_lite.data.windows import at_least
from gdrt_lite.system.assets import SMOLLM2

BASELINES = ("popularity", "item-knn")
PRIORS = {
    "uniform": "all groups alike",
    "counts": "by the tokens in the group: with a large tau GDRT is plain SFT",
    "relevance": "by exp(mean relevance / tau): the loss above the scorer's decides, since exp(r/tau) exp(L/tau) = exp((L - (-r))/tau)",
}


@dataclass(frozen=True)
class Config:
    """Everything that shapes a cell. Two cells with equal configurations hold equal figures on one machine.

    Raises:
        ValueError: k or history below 1, or a scorer that the pocket model cannot have.
    """

    objective: str = "sft"  # one of objectives.OBJECTIVES, "pre-trained", or one of BASELINES
    model: str = SMOLLM2  # or "pocket", a folder, a hub name
    data: str = "movielens"  # or "movielens-100k", or a folder in the Amazon form, as it stands or under data/
    split: str = "new_users"  # one of data.SPLITS; "published" for the files of the Amazon form as they are
    top_items: int = 500  # most interacted titles kept; 0 keeps all
    history: int = 5
    train_windows: int = 320
    epochs: float = 1.0
    batch_size: int = 16
    learning_rate: float = 1e-3
    tau: float = 1.0
    k: int = 5
    prior: str = "uniform"  # one of PRIORS
    ema: float = 0.0  # 0: the group losses of the batch
    dropout: float = 0.0
    scorer: str = "pre-trained"  # whose token relevance makes the groups; "sft": the model tuned so; or an adapter's folder (not pocket)
    part: str = "test"  # or "valid", for choosing tau, K, learning rate and epochs
    test_examples: int = 100
    faa_examples: int = 32
    ablations: tuple[str, ...] = ("attention",)
    beams: int = 10
    exclude_history: bool = True
    curve_examples: int = 0  # valid examples measured after each epoch; 0: no learning curve
    seed: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.type == "float":  # 1 and 1.0 are one configuration
                object.__setattr__(self, field.name, float(getattr(self, field.name)))
        at_least("history", self.history, 1)
        at_least("k (--groups)", self.k, 1)
        if self.model == "pocket" and self.scorer not in ("pre-trained", "sft"):
            raise ValueError(f"scorer={self.scorer!r} needs a model with adapters, not pocket; take 'pre-trained' or 'sft'.")

    @property
    def key(self) -> str:
        """A file name that tells cells apart."""
        values = json.dumps(dataclasses.asdict(self), sort_keys=True)
        name, model = Path(self.data).name, Path(self.model).name
        return f"{name}-{model}-{self.objective}-s{self.seed}-{hashlib.sha256(values.encode()).hexdigest()[:8]}"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Config:
        """A configuration from a grid or a cell, where tuples are lists.

        Raises:
            TypeError: an unknown setting.
        """
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


# Sizes, and for "full" the published learning rate and dropout; the code paths of the three profiles are the same.
PROFILES: dict[str, dict[str, Any]] = {
    "quick": dict(train_windows=240, batch_size=8, test_examples=64, faa_examples=24),
    "standard": dict(
        history=10, train_windows=3000, epochs=2.0, test_examples=500, faa_examples=100,
        ablations=ABLATIONS,
    ),
    "full": dict(
        history=10, train_windows=10_000, epochs=10.0, batch_size=128, learning_rate=1e-4, dropout=0.05,
        test_examples=5000, faa_examples=500, ablations=ABLATIONS,
    ),
}  # fmt: skip
