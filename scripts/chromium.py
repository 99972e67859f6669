"""The Chromium or Chrome of this machine, and pages printed with it. As a script: install Chromium where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find() -> str | None:
    """The path of the first that is installed; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def install() -> None:
    """Install Chromium where there is none: Playwright's build, or else, for root on Debian, the system's package."""
    if find():
        return
    commands = [[sys.executable, "-m", "playwright", "install", "--with-deps", "chromium"]]
    if shutil.which("apt-get") and os.geteuid() == 0:
        commands.append(["sh", "-c", "apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium"])
    if not any(subprocess.run(command, capture_output=True).returncode == 0 for command in commands):
        print("No Chromium could be installed, so the tests in a browser are skipped. Install Chromium or Chrome yourself.")


def print_pdf(browser: str, page: Path, target: Path) -> None:
    """Print an HTML file as a PDF, with its headings as an outline."""
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", "--generate-pdf-document-outline")
    flags += (f"--print-to-pdf={target}",)
    subprocess.run([browser, *flags, page.as_uri()], check=True, capture_output=True, timeout=600)


if __name__ == "__main__":
    install()
