"""Write files so that a kill, a full disk or Ctrl-C leaves either the old content or the new one, never half of it."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gdrt_lite.system.errors import GdrtError


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write `content` to a temporary file beside `path`, then rename it.

    Raises:
        GdrtError: the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if is_full_disk(error):
            raise GdrtError(f"the disk is full: {path} was not written. Free some space and run again.") from error
        raise
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8 through `write_bytes`; bytes of a file name that the locale could not read stay as they were."""
    return write_bytes(path, text.encode(errors="surrogateescape"))


def write_json(path: str | Path, value: Any, indent: int | None = 1) -> Path:
    """Write `value` as JSON, NaN and infinity as null, through `write_text`; `indent=None` keeps long lists on one line."""
    return write_text(path, json.dumps(_plain(value), indent=indent, allow_nan=False) + "\n")


def check_sums(folder: Path) -> dict[str, str]:
    """What is wrong with each file that the folder's SHA256SUMS lists ("" where nothing is), and with SHA256SUMS itself."""
    try:
        text = (folder / "SHA256SUMS").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {"SHA256SUMS": "is missing"}
    lines = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    if not all(len(line) == 2 for line in lines):
        return {"SHA256SUMS": "has a line that is not '<sha256>  <file>'"}
    found = {}
    for expected, name in lines:
        file = folder / name.lstrip("*")
        same = file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == expected
        damaged = "is damaged: its SHA-256 is not the one in SHA256SUMS" if file.is_file() else "is missing"
        found[file.name] = "" if same else damaged
    return found


def writable_folder(folder: str | Path) -> Path:
    """Create `folder` if missing and check that it is writable, before a long run rather than after it.

    Raises:
        GdrtError: it is a file, lies below one, or is closed to us.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise GdrtError(f"{folder} is no folder that can be written to ({error.strerror}); name another one.") from error
    return folder


@contextmanager
def held(lock: Path, taken: Callable[[], None]) -> Iterator[None]:
    """Hold a lock, which the system frees when its process dies; `taken` says first that another process has it."""
    own = FileLock(lock)
    try:
        own.acquire(timeout=0)
    except Timeout:
        taken()
        own.acquire()
    try:
        yield
    finally:
        own.release()


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Let one process at a time write into `folder`.

    Raises:
        GdrtError: another process does.
    """

    def refuse() -> None:
        raise GdrtError(f"another process is writing into {folder}; wait for its end, or name another folder.") from None

    # The first of those that were launched together holds it for all.
    with held(Path(folder) / ".lock", refuse) if first_process() else nullcontext():
        yield


def first_process() -> bool:
    """Whether this is the first, or the only one, of the processes that a launcher started together."""
    return os.environ.get("RANK", "0") == "0"


def sweep(folder: str | Path, name: str) -> None:
    """Remove the temporary files of `name` that a killed process left in `folder`, whose lock is held."""
    for path in Path(folder).glob(f".{glob.escape(name)}-????????"):
        path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)


def replace_folder(temporary: str | Path, folder: str | Path) -> Path:
    """Put a finished temporary folder in the place of `folder`. A kill in between leaves the old one as `.NAME-old`."""
    folder = Path(folder)
    old = folder.with_name(f".{folder.name}-old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)  # of an earlier kill
        os.replace(folder, old)
    os.replace(temporary, folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def fingerprint(value: Any) -> str:
    """Sixteen hex digits that tell two JSON values apart, whatever the order of the keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, is that of a full disk; torch and safetensors raise types of their own."""
    if error is None:
        return False
    full = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
    said = any(sign in str(error) for sign in ("No space left", "PytorchStreamWriter failed"))
    return said or getattr(error, "errno", None) in full or is_full_disk(error.__cause__ or error.__context__)


@contextmanager
def full_disk_said(folder: str | Path) -> Iterator[None]:
    """Turn a full disk, however it shows itself, into one sentence.

    Raises:
        GdrtError: the disk of `folder` is full.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, GdrtError) or not is_full_disk(error):
            raise
        raise GdrtError(
            f"the disk of {folder} is full. What was finished is kept; free some space and go on with --resume."
        ) from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
