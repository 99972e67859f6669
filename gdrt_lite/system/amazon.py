"""Fetch the Amazon data sets of the paper's group from the authors' repository, at a fixed commit and by checksum.

The files are under the MIT licence of github.com/Tiny-Snow/BEAR-WWW-2026. They are kept in the cache and never shipped.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from gdrt_lite.system.assets import cache_dir
from gdrt_lite.system.errors import GdrtError
from gdrt_lite.system.files import full_disk_said, locked, replace_folder
from gdrt_lite.system.wheels import say

COMMIT = "806210055922157cfd8f7f2e7ee392c3b7b863f0"
SOURCE = f"https://raw.githubusercontent.com/Tiny-Snow/BEAR-WWW-2026/{COMMIT}/data"
FILES = {
    "Book": {
        "id2name4Rec.json": "a6dec49b55ecb27a8345687cc95a31a91f3a5d0ad42c24e0bbd24e8379e71235",
        "test_5000.csv": "3d87eeab2ee95828ee50ea6f47bd8a0bf02930d0cd7c83e70d9205aadcf7e04a",
        "train.csv": "f5ec20055bb8991cec4dd18154b477402492ca986aed80c46753d8361b40cfa3",
        "train_10000.csv": "692cecf236bb4d143ab318008f6848f29d0f5bfb2b18990ac8cd392c39fbf874",
    },
    "Clothing": {
        "id2name4Rec.json": "9f3796ee632ad99a9c46ba56bb2a79a72c80a53f8cce1959f5b61982777521bd",
        "test_5000.csv": "9f125206dc37519f104ee5d773bcc5401d93c6b52bad9491ecdab53499ad22c5",
        "train.csv": "82b2919531dfdeded4a70a449b0b5c46c53fa1124342771268d8e47255f66488",
        "train_10000.csv": "873bdfbb21fd3fceb3290de132aa30e20495e99194abb08714e29c6657e5d217",
    },
    "Office": {
        "id2name4Rec.json": "bbe9fec33e9b922a43a990e789a1e9a2f1930ff19e7916053e6b89d57ce6d0a0",
        "test_5000.csv": "c3d0a876dd96c75927f1b532890a0fb5da7a9f2b53a80197447ba98b619948ba",
        "train.csv": "63f23bebfb691c5218438bd3b8ef11ba7fe2a9cdc3e9e22c2d7b0328cee821e4",
        "train_10000.csv": "94be3f33d80b8898c85db60b74995036fc7cc81b02841e637a12f77d13841d0e",
    },
}


def fetch(source: str = SOURCE) -> Path:
    """The folder of all sets in the cache, each fetched once and checked; `open_data("amazon/Book")` finds them there.

    Args:
        source: where the folders of the sets lie.

    Raises:
        GdrtError: no network, a file that is not there or not what it was, or a full disk; what was whole is kept.
    """
    home = cache_dir() / "amazon"
    home.mkdir(parents=True, exist_ok=True)
    with full_disk_said(home), locked(home):
        for name, expected in FILES.items():
            if all((home / name / file).is_file() for file in expected):
                continue
            scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=home))
            try:
                for file, digest in expected.items():
                    say(f"Fetching {name}/{file} ...")
                    (scratch / file).write_bytes(_content(f"{source}/{name}/{file}", digest))
                replace_folder(scratch, home / name)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    return home


def _content(url: str, digest: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = answer.read()
    except urllib.error.HTTPError as error:
        raise GdrtError(f"{url} answers {error.code} ({error.reason}); the repository may have moved.") from None
    except (OSError, EOFError) as error:
        reason = getattr(error, "reason", error)
        raise GdrtError(f"{url} cannot be reached ({reason}); connect to the network and run again.") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise GdrtError(f"{url} was cut short or altered: its SHA-256 is another one. Nothing of it was kept; run again.")
    return content
