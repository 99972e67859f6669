"""What several test files share. No network: the model is in the cache (`python -m gdrt_lite fetch`).

`-m "not slow and not model"` selects the fast lane, which needs no cached model (`make check`).
"""

from __future__ import annotations

import os

# Before transformers is imported, which reads it once. The profile is for the notebooks, which inherit both.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("GDRT_PROFILE", "quick")

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from gdrt_lite.data.windows import Splits
    from gdrt_lite.lm import LanguageModel


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that load the real model, and those that take long as slow: the fast lane leaves them out."""
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker("slow")
        if "smollm2" in getattr(item, "fixturenames", ()):
            item.add_marker("model")


@pytest.fixture(scope="session", autouse=True)
def no_screen() -> None:
    """Figures are drawn without a window."""
    import matplotlib

    matplotlib.use("Agg")


@pytest.fixture(scope="session")
def smollm2() -> LanguageModel:
    """The embedded real model in float32 on the CPU. Shared: copy.deepcopy its .model before you train it."""
    import torch

    from gdrt_lite import lm

    return lm.load("smollm2-135m", dtype=torch.float32, device="cpu")


@pytest.fixture(scope="session")
def splits() -> Splits:
    """MovieLens small, 500 most rated movies, held-out users, histories of 5."""
    from gdrt_lite import data

    return data.load_movielens(500).split(history=5)


@pytest.fixture(scope="session")
def pocket(splits: Splits) -> LanguageModel:
    """An untrained pocket model for `splits`. Shared: copy.deepcopy its .model before you train it."""
    from gdrt_lite import lm

    return lm.pocket(splits.catalogue)


@pytest.fixture(autouse=True)
def no_committed_study_is_run(monkeypatch):
    """A test that calls `study` without a grid of its own would train for hours and write into data/results."""
    if (grid := sys.modules.get("gdrt_lite.study.grid")) is None:
        return
    run_grid, committed = grid._run_grid, grid.data.data_folder()

    def guarded(plan, results, only):
        assert committed not in Path(results).resolve().parents, "a test must not run the committed study"
        run_grid(plan, results, only)

    monkeypatch.setattr(grid, "_run_grid", guarded)
