"""Which checkpoint a training may go on from: the newest that is whole, and only one of the same run.

Used in notebook 06, section 3.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from gdrt_lite.data import Example
from gdrt_lite.groups import TokenGroups
from gdrt_lite.system.errors import GdrtError
from gdrt_lite.system.files import fingerprint

STATE = "trainer_state.json"  # transformers writes it last
PARTS = ("optimizer*", "scheduler.pt", "rng_state*")


class RunRecord(TrainerCallback, ExportableState):
    """Writes into the state of each checkpoint what shaped the run that made it."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = json.loads(json.dumps(dict(facts), default=str))

    def state(self) -> dict[str, Any]:
        """What transformers keeps in trainer_state.json."""
        return {"args": {"facts": self.facts}, "attributes": {}}


def newest_checkpoint(folder: str | Path | None) -> str | None:
    """Path of the whole checkpoint with the most steps in a folder; None where there is none.

    A kill or a full disk leaves a half-written one, which is passed over.
    """
    found = Path(folder).glob("checkpoint-*") if folder is not None else ()
    steps = {int(match[1]): path for path in found if (match := re.fullmatch(r"checkpoint-(\d+)", path.name))}
    return next((str(steps[step]) for step in sorted(steps, reverse=True) if is_whole(steps[step], step)), None)


def is_whole(folder: Path, step: int) -> bool:
    """Whether a checkpoint holds the state of its step, and every file of it to its end."""
    try:
        if json.loads((folder / STATE).read_text(encoding="utf-8"))["global_step"] != step:
            return False
        weights = list(folder.glob("*.safetensors"))
        for path in weights:
            with safe_open(path, "pt"):  # compares the header with the size
                pass
        indices = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.index.json")]
        shards = {name for index in indices for name in index["weight_map"].values()}
        torch_files = [*folder.glob("*.pt"), *folder.glob("*.pth")]
        return (
            bool(weights or list(folder.glob("pytorch_model_fsdp*")))
            and all((folder / name).exists() for name in shards)
            and all(any(folder.glob(part)) for part in PARTS)
            and all(_is_whole_zip(path) for path in torch_files)
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, zipfile.BadZipFile):
        return False


def _is_whole_zip(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return file.testzip() is None


# How a step is divided, which changes no result: a run may go on with another number of processes.
DIVISION = ("processes", "gradient_accumulation_steps")


def own_checkpoint(folder: str | Path, facts: Mapping[str, Any]) -> str | None:
    """`newest_checkpoint` of a folder, if the run that wrote it had the same facts.

    Raises:
        GdrtError: another run wrote it, or one that recorded nothing.
    """
    newest = newest_checkpoint(folder)
    if newest is None:
        return None
    state = json.loads((Path(newest) / STATE).read_text(encoding="utf-8"))
    theirs = state.get("stateful_callbacks", {}).get("RunRecord", {}).get("args", {}).get("facts", {})
    ours = RunRecord(facts).facts
    differ = [name for name in ours if name not in DIVISION and (name not in theirs or theirs[name] != ours[name])]
    if differ:
        was = {name: theirs.get(name, "not recorded") for name in differ}
        said = "; ".join(f"{name} was {_short(was[name])} and is {_short(ours[name])}" for name in differ)
        raise GdrtError(f"{newest} is of another run ({said}); name another folder, or remove this one to begin anew.")
    return newest


def data_facts(model: torch.nn.Module, examples: Sequence[Example], groups: TokenGroups | None) -> dict[str, str]:
    """Fingerprints of what a training starts from: its examples, their groups, and some numbers of every weight."""
    few = {
        name: (list(p.shape), p.detach().flatten()[:: max(1, p.numel() // 64)].double().tolist())
        for name, p in model.named_parameters()
    }
    return {
        "examples": fingerprint([(e.user, e.history, e.target) for e in examples]),
        "groups": fingerprint(groups and {title: list(map(int, ids)) for title, ids in groups.ids.items()}),
        "weights": fingerprint(few),
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
