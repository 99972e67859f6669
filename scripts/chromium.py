"""The Chromium or Chrome of this machine, and pages printed with it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find() -> str | None:
    """The path of the first that is installed; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def print_pdf(browser: str, page: Path, target: Path) -> None:
    """Print an HTML file as a PDF."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--print-to-pdf={target}")
    subprocess.run([browser, *flags, page.as_uri()], check=True, capture_output=True, timeout=600)
