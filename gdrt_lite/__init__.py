"""Does an LLM recommender read the user, or only the prompt? Diagnose context bias, and tune it away with GDRT."""

from __future__ import annotations

import importlib
from types import ModuleType

__version__ = "0.1.0"

_MODULES = (
    "assets", "attribution", "baselines", "checks", "cooccurrence", "data", "decoding", "dro", "errors", "groups", "lm",
    "metrics", "plots", "prompts", "relevance", "training",
)
__all__ = [*_MODULES, "__version__"]


def __getattr__(name: str) -> ModuleType:
    """Import a submodule when it is first asked for, so that `import gdrt_lite` stays instant."""
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
