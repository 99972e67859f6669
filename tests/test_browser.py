"""A learner's browser: JupyterLab as `make lab` starts it, and the pages of the book, in headless Chromium.

Run by `make browser`, which installs what it needs; skipped where there is no Chromium or no Playwright. A folder in
GDRT_SHOTS receives screenshots at laptop and phone width, light and dark.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch

from gdrt_lite import dro

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import build_notebooks as builder  # noqa: E402
import editions  # noqa: E402
from chromium import find as find_chromium  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.long]  # `make browser` runs them, and `make test` does not
playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: make browser")

PATIENCE = 240  # seconds for one step of the interface: a busy machine draws slowly
playwright.expect.set_options(timeout=1000 * PATIENCE)
WIDE, NARROW = {"width": 1366, "height": 768}, {"width": 390, "height": 844}
(NOTEBOOK,) = builder.sources(["05"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium: the system's, or the one that Playwright has installed."""
    system = find_chromium()
    with playwright.sync_playwright() as driver:
        if system is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("no Chromium: make browser")
        chromium = driver.chromium.launch(executable_path=system, args=["--no-sandbox"])  # root has no sandbox
        yield chromium
        chromium.close()


def shoot(page: Any, name: str) -> None:
    """Screenshots at both widths and in both colour schemes, if a folder for them is named."""
    if folder := os.environ.get("GDRT_SHOTS"):
        for size in (WIDE, NARROW):
            for scheme in ("light", "dark"):
                page.set_viewport_size(size)
                page.emulate_media(color_scheme=scheme)
                page.wait_for_timeout(2000)  # JupyterLab loads its other theme
                page.screenshot(path=Path(folder) / f"{name}-{size['width']}-{scheme}.png")
        page.set_viewport_size(WIDE)
        page.emulate_media(color_scheme="light")


def wait_until(true: Callable[[], bool], what: str, patience: int = PATIENCE) -> None:
    """Look twice a second until it is true. Raises AssertionError when patience ends."""
    end = time.monotonic() + patience
    while not true():
        assert time.monotonic() < end, f"waited {patience} s for {what}"
        time.sleep(0.5)


def answers(url: str) -> bool:
    """Whether a server takes connections there."""
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    except OSError:
        return False
    return True


# ----------------------------------------------------------------------------------------- JupyterLab


SETTINGS: dict[str, dict[str, object]] = {
    "apputils-extension/notification": {"fetchNews": "false"},  # else JupyterLab asks every newcomer
    "apputils-extension/themes": {"adaptive-theme": True},  # dark where the page's colour scheme is
    "notebook-extension/tracker": {"windowingMode": "none"},  # else only the cells in view are on the page
}


@contextmanager
def jupyterlab(root: Path, state: Path) -> Iterator[str]:
    """A server with this root folder, a port and a token of its own, and no settings of the user's; its address."""
    recipe = re.search(r"^lab:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert recipe and "-m jupyter lab --notebook-dir=work" in recipe[1], "start it here as `make lab` does"
    folders = {name: str(state / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR")}
    folders |= {"JUPYTERLAB_WORKSPACES_DIR": str(state / "workspaces"), "IPYTHONDIR": str(state / "ipython")}
    for name, setting in SETTINGS.items():
        file = state / "JUPYTERLAB_SETTINGS_DIR" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(setting), encoding="utf-8")
    settings = {"PYTHONPATH": str(ROOT), "GDRT_PROFILE": "quick", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jupyter", "lab", f"--notebook-dir={root}", "--no-browser", "--allow-root", "--port=0"]
    token = secrets.token_hex(16)
    with (state / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, f"--IdentityProvider.token={token}"],
            env={**os.environ, **folders, **settings},
            stdout=log,
            stderr=log,
        )
        try:
            described = Path(folders["JUPYTER_RUNTIME_DIR"])
            wait_until(lambda: server.poll() is not None or any(described.glob("jpserver-*.json")), "the server")
            assert server.poll() is None, (state / "log").read_text()
            (file,) = described.glob("jpserver-*.json")
            url = json.loads(file.read_text(encoding="utf-8"))["url"]
            wait_until(lambda: answers(url), "an answer of the server")  # it writes the file before it listens
            yield f"{url}lab/tree/{{}}?reset&token={token}"
        finally:
            server.terminate()
            server.wait(30)


class Lab:
    """A notebook that is open in JupyterLab, as a learner handles it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        page.set_default_timeout(1000 * PATIENCE)

    def cell(self, text: str) -> Any:
        """The code cell whose source begins with a text."""
        cells = self.page.locator(".jp-Notebook:visible .jp-CodeCell")
        return cells.filter(has=self.page.locator(".cm-line", has_text=re.compile(rf"^{re.escape(text)}"))).first

    def menu(self, menu: str, item: str) -> None:
        self.page.keyboard.press("Escape")  # a menu that is still open would be closed by the click
        self.page.get_by_role("menuitem", name=menu, exact=True).click(timeout=20_000)
        entry = self.page.get_by_role("menuitem", name=re.compile(rf"^{item}")).first
        entry.hover(timeout=20_000)
        self.page.wait_for_timeout(500)  # a menu takes no click before the mouse has rested on it
        entry.click(timeout=20_000)

    def run_all(self) -> Any:
        """Run all cells; the prompts of those that wait. Where the menu has missed the click, it is repeated."""
        busy = self.page.locator(".jp-InputPrompt", has_text="[*]")
        for _ in range(10):
            with suppress(AssertionError, playwright.Error):
                self.menu("Run", "Run All Cells")
                playwright.expect(busy.first).to_be_attached(timeout=20_000)
                return busy
        raise AssertionError("no cell runs")

    def type(self, cell: Any, text: str) -> None:
        """Replace a cell's source and run it; the selection is then on the next cell."""
        editor = cell.locator(".cm-content")
        editor.scroll_into_view_if_needed()
        editor.click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)
        self.page.keyboard.press("Shift+Enter")

    def run(self, cell: Any) -> None:
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")

    def answer(self, cell: Any, text: str, expected: str) -> str:
        """Type an answer into an exercise, run it and its check, and read the check's words."""
        self.type(cell, text)
        check = self.cell('checks.check("05.1"')
        self.run(check)
        output = check.locator(".jp-OutputArea-output").first
        playwright.expect(output).to_contain_text(expected)
        return output.inner_text()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport=WIDE)
    yield context.new_page()
    context.close()


def test_a_learner_runs_05_moves_tau_and_reads_the_checks_words(page: Any, tmp_path: Path) -> None:
    state, work = tmp_path / "state", tmp_path / "work"
    state.mkdir()
    editions.work(work)
    with jupyterlab(work, state) as address:
        lab = Lab(page)
        page.goto(address.format(f"{NOTEBOOK.stem}.ipynb"))
        page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
        kernel = page.locator(".jp-NotebookPanel .jp-Notebook-ExecutionIndicator").first
        playwright.expect(kernel).to_have_attribute("data-status", "idle")  # before it is there, nothing would run
        shoot(page, "lab-open")
        busy = lab.run_all()
        wait_until(lambda: busy.count() == 0, "the last cell to run", patience=4 * PATIENCE)
        assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0

        slider = page.get_by_role("slider").first
        slider.scroll_into_view_if_needed()
        readout, bars = page.locator(".widget-readout").first, page.locator(".widget-html-content pre").first
        playwright.expect(readout).to_have_text(re.compile(r"\d"))  # a widget is drawn after its cell has run
        playwright.expect(bars).to_contain_text("Q*")
        before, tau = bars.inner_text(), readout.inner_text()
        slider.focus()
        for _ in range(6):
            page.keyboard.press("ArrowRight")
        playwright.expect(readout).not_to_have_text(tau)
        moved = float(readout.inner_text())
        assert moved > float(tau)
        wanted = dro.group_weights(torch.tensor([0.5, 1.2, 2.0]), moved).tolist()  # tau as shown has three digits

        def drawn() -> list[tuple[str, str]]:
            return re.findall(r"Q\* = ([0-9.]+)\s+(█*)", bars.inner_text())

        wait_until(lambda: [float(w) for w, _ in drawn()] == pytest.approx(wanted, abs=0.002), "the kernel's answer")
        assert [len(bar) for _, bar in drawn()] == pytest.approx([40 * weight for weight in wanted], abs=1)
        assert bars.inner_text() != before
        shoot(page, "lab-slider")

        exercise = lab.cell("pencil = ...")
        told = lab.answer(exercise, "pencil = [0.33, 0.33, 0.33]", "[not yet] 05.1")
        assert "[passed]" not in told
        lab.answer(lab.cell("pencil = [0.33"), "pencil = [0.040, 0.162, 0.798]", "[passed] 05.1")
        shoot(page, "lab-passed")


def test_the_source_opens_as_a_notebook_and_saving_keeps_the_pair_in_step(page: Any, tmp_path: Path) -> None:
    """What docs/setup.md tells authors, on a copy: a server at the root of a repository, with the .py one folder down."""
    state, folder = tmp_path / "state", tmp_path / "clone" / "notebooks"
    state.mkdir()
    folder.mkdir(parents=True)
    for name in (NOTEBOOK.name, f"{NOTEBOOK.stem}.ipynb", "jupytext.toml"):
        shutil.copy(builder.NOTEBOOKS / name, folder)
    pair = folder / NOTEBOOK.name
    with jupyterlab(folder.parent, state) as address:
        lab = Lab(page)
        page.goto(address.format("notebooks"))
        page.locator(".jp-DirListing-item", has_text=NOTEBOOK.name).click(button="right")
        page.locator(".lm-Menu-itemLabel", has_text="Open With").hover()
        page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Notebook$")).click()
        lab.cell("pencil = ...").locator(".cm-content").click()
        page.keyboard.press("Control+a")
        page.keyboard.type("pencil = [9, 9, 9]")
        page.keyboard.press("Control+s")
        wait_until(lambda: "pencil = [9, 9, 9]" in pair.read_text(encoding="utf-8"), "the .py to be saved")
        wait_until(lambda: "pencil = [9, 9, 9]" in pair.with_suffix(".ipynb").read_text(encoding="utf-8"), "the .ipynb")
    edited = builder.read_source(pair)
    assert builder.outline(edited) == builder.outline(builder.nbformat.read(pair.with_suffix(".ipynb"), as_version=4))
    before = builder.outline(builder.read_source(NOTEBOOK))
    assert len([1 for old, new in zip(before, builder.outline(edited), strict=True) if old != new]) == 1


# ----------------------------------------------------------------------------------------- the book


@pytest.fixture(scope="module")
def site() -> Path:
    """The built book: where there is none, `make book` makes it."""
    pages = ROOT / "_build" / "book"
    if not (pages / "index.html").exists():
        pytest.skip("no book: make book")
    return pages


def cells(board: Any) -> dict[str, list[float]]:
    """The rows of a board's table: name -> its numbers."""
    rows = board.locator("tbody tr").all_inner_texts()
    return {row.split("\t")[0]: [float(value) for value in re.findall(r"\t(-?[0-9.]+)", row)] for row in rows}


def test_the_weights_on_the_page_are_those_of_the_package(page: Any, site: Path) -> None:
    page.goto((site / "notebooks" / f"{NOTEBOOK.stem}.html").as_uri())
    board = page.locator(".play-weights")
    losses, tau = torch.tensor([0.5, 1.2, 2.0]), board.locator("input").first
    for key, times in (("ArrowRight", 7), ("ArrowLeft", 20), ("End", 1), ("Home", 1)):
        before = cells(board)
        for _ in range(times):
            tau.press(key)
        assert cells(board) != before
        power = float(tau.input_value())
        wanted = dro.group_weights(losses, 10**power).tolist()
        assert [row[1] for row in cells(board).values()] == pytest.approx(wanted, abs=5.1e-4), power
        widths = [float(style) for style in re.findall(r"width: ([0-9.]+)%", board.locator("table").inner_html())]
        assert widths == pytest.approx([100 * weight for weight in wanted], abs=0.01)
    tau.fill("0")
    board.locator("input").nth(3).fill("1.2")  # the third group's loss
    before = cells(board)
    assert [row[1] for row in before.values()] == pytest.approx(
        dro.group_weights(torch.tensor([0.5, 1.2, 1.2]), 1.0).tolist(), abs=5.1e-4
    )
    board.locator("input").last.fill("3")  # added to all: other losses, the same weights
    assert [row[1] for row in cells(board).values()] == [row[1] for row in before.values()]
    assert [row[0] for row in cells(board).values()] == pytest.approx([row[0] + 3 for row in before.values()])


def test_the_best_point_of_the_simplex_is_the_closed_form_and_nothing_beats_it(page: Any, site: Path) -> None:
    page.goto((site / "notebooks" / f"{NOTEBOOK.stem}.html").as_uri())
    board, losses = page.locator(".play-simplex"), torch.tensor([0.5, 1.2, 2.0])
    for tau, first, second in ((-0.5, 0.1, 0.2), (0.0, 0.9, 0.9), (1.0, 0.0, 0.0)):
        for control, value in zip(board.locator("input").all(), (tau, first, second), strict=True):
            control.fill(str(value))
        best, own = cells(board).values()
        assert best[:3] == pytest.approx(dro.group_weights(losses, 10**tau).tolist(), abs=5.1e-4)
        assert best[3] == pytest.approx(dro.dro_objective(losses, 10**tau).item(), abs=5.1e-5)
        assert own[:3] == pytest.approx([first, min(second, 1 - first), max(0, 1 - first - second)], abs=5.1e-4)
        assert own[3] <= best[3]


def test_the_rules_on_the_page_train_as_the_package_s_formulas_do(page: Any, site: Path) -> None:
    page.goto((site / "notebooks" / f"{NOTEBOOK.stem}.html").as_uri())
    board = page.locator(".play-worlds")
    board.get_by_label("world").select_option("five groups")
    shown = cells(board)
    examples = page.evaluate("gdrtPlay.sample(gdrtPlay.WORLDS['five groups'], 1)")
    features, labels = (torch.tensor([example[name] for example in examples], dtype=torch.float64) for name in "xy")
    ids = torch.tensor([example["id"] for example in examples])
    w, weights = torch.zeros(4, dtype=torch.float64, requires_grad=True), torch.zeros(5)
    for _ in range(200):
        losses, _ = dro.group_losses(torch.nn.functional.softplus(-labels * (features @ w)), ids, 5)
        weights = dro.group_weights(losses, 0.1)
        (slope,) = torch.autograd.grad(weights @ losses, w)
        w = (w - 0.3 * slope).detach().requires_grad_()
    assert page.evaluate(
        "(e) => gdrtPlay.train(e, gdrtPlay.WORLDS['five groups'], 'GDRT', 0.1).w", examples
    ) == pytest.approx(w.tolist(), abs=1e-9)
    assert shown["GDRT"][2] == pytest.approx(weights[4].item(), abs=5.1e-4)
    spread = (w[0] ** 2 + w[1] ** 2 / 4 + w[2] ** 2 + w[3] ** 2).sqrt()
    right = torch.special.ndtr(torch.stack([w[0] + w[1], w[0] - w[1]]) / spread).tolist()
    assert shown["GDRT"][:2] == pytest.approx([min(right), (380 * right[0] + 20 * right[1]) / 400], abs=5.1e-4)
    board.get_by_text("Another sample").click()
    assert cells(board) != shown
    board.get_by_label("world").select_option("noise")
    assert cells(board)["reversed"][0] == 0.5  # nobody guesses coin flips better on new data


def test_without_javascript_the_page_points_to_the_stored_figures(browser: Any, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto((site / "notebooks" / f"{NOTEBOOK.stem}.html").as_uri())
    assert plain.locator(".play").count() == 3
    assert all("stored figures" in text for text in plain.locator(".play").all_inner_texts())
    context.close()


GRAVE = ("critical", "serious")
PAGES = [
    "index.html",
    "README.html",
    "docs/glossary.html",
    "docs/study.html",
    "docs/instructor/run-sheets.html",
    "api/dro.html",
]
PAGES += [f"notebooks/{script.stem}.html" for script in builder.sources()]


def test_on_paper_stands_nothing_that_only_a_screen_can_use(page: Any, site: Path) -> None:
    """The link past the menu would cover a line of every printed page."""
    page.goto((site / "notebooks" / f"{NOTEBOOK.stem}.html").as_uri())
    parts = {name: page.locator(name) for name in (".skip-to-content", ".tag_hide-input > details", ".play")}
    assert all(part.first.is_visible() for part in parts.values())
    page.emulate_media(media="print")
    assert [name for name, part in parts.items() if any(one.is_visible() for one in part.all())] == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_the_book_is_accessible_and_does_not_scroll_sideways(page: Any, site: Path, name: str) -> None:
    """No critical or serious finding of axe-core, light at laptop width and dark at a phone's."""
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="no axe-core: it is in the extra `browser`"
    ).Axe()
    page.set_default_timeout(1000 * PATIENCE)
    page.goto((site / name).as_uri())
    for size, scheme in ((WIDE, "light"), (NARROW, "dark")):
        page.set_viewport_size(size)
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        found = axe.run(page, options={"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa"]}).response[
            "violations"
        ]
        grave = {rule["id"]: [node["html"][:200] for node in rule["nodes"]][:3] for rule in found if rule["impact"] in GRAVE}
        assert grave == {}, f"{name}, {scheme}, {size['width']} px"
    shoot(page, f"book-{Path(name).stem}")
