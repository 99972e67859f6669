"""What holds for every file: no machine paths, no big files, one-way imports, small documented modules."""

from __future__ import annotations

import ast
import importlib
import re
import shutil
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import pytest

import gdrt_lite

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gdrt_lite"

# Data flows downwards: a part of the package imports only from layers above its own. A file of the method is a part, a
# wing is one too.
LAYERS = [
    {"system"},
    {"data", "prompts"},
    {"ablation"},
    {"lm"},
    {"attribution", "cooccurrence", "relevance", "stranger"},
    {"groups"},
    {"dro"},
    {"objectives", "trie"},
    {"training"},
    {"decoding"},
    {"metrics", "baselines"},
    {"sasrec"},
    {"plots"},
    {"study"},
    {"course"},
    {"__main__"},
]
# The same inside each wing.
WINGS = {
    "system": ["errors", "files", "machine", "processes", "wheels", "assets", "amazon"],
    "data": ["windows", "cells", "loaders", "interactions", "tables", "sources"],
    "lm": ["attention", "packing", "adapters", "model", "plain", "scoring", "verify", "loading"],
    "training": ["arguments", "batches", "checkpoints", "learning_curve", "trainer", "finetune"],
    "plots": ["canvas", "figures"],
    "study": [
        "methods",
        "config",
        "workspace",
        "cell",
        "report",
        "evaluate",
        "trial",
        "protocols",
        "compare",
        "verdicts",
        "page",
        "run",
        "grid",
    ],
    "course": ["notebook", "doctor", "checks"],
}
LAYER = {module: place for place, layer in enumerate(LAYERS) for module in layer}
PURE = {"dro", "groups", "metrics", "cooccurrence"}  # know no language model
ADVISED, MOST_LINES, MOST_BYTES = 250, 350, 2_000_000


def sources() -> dict[str, list[Path]]:
    """Module -> its files (several for a module that is a folder)."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name != "__init__":
            found.setdefault(name, []).append(path)
    return found


FILES = [path for paths in sources().values() for path in paths]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(tree: ast.AST) -> set[str]:
    """The gdrt_lite modules that the code imports anywhere, functions and type-checking blocks included."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("gdrt_lite.")} - {"__version__"}


@cache
def imports(module: str) -> frozenset[str]:
    found = set().union(*(imported_modules(tree_of(path)) for path in sources()[module]))
    return frozenset(found - {module})


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# ------------------------------------------------------------------------------------------ tracked files


@cache
def tracked() -> tuple[Path, ...]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git clone")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


# A path that exists on one machine alone: somebody's home or drive, or a place that only some workplace has. What the
# operating system itself has (/usr, /proc, /dev, /tmp) may be named. No such path follows a word, a dot, a tilde or a slash.
LOCAL_PATH = re.compile(
    rb"(?<![\w./~}\\])(?:/(?:home|Users|root|work|workspace|mnt|data|scratch)/\w|[A-Z]:[\\/]Users[\\/]\w)"
)


def test_machine_paths_are_told_from_others():
    for folder in ("home", "Users", "root", "work", "scratch"):
        for text in ("see /{}/x", '"/{}/cache/x"', "FROM=/{}/x"):
            assert LOCAL_PATH.search(text.format(folder).encode())
    assert LOCAL_PATH.search(b"C:" + rb"\Users\me")
    for text in (
        "https://host/work/x",
        "~/work/x",
        "../root/x",
        "/tmp/x",
        "homework/root/x",
        "${HOME}/work/x",
        "/proc/self/x",
    ):
        assert not LOCAL_PATH.search(text.encode())


def test_no_tracked_file_names_a_machine_path():
    named = [relative(path) for path in tracked() if LOCAL_PATH.search(path.read_bytes())]
    assert not named


def test_tracked_files_are_small():
    assert not {relative(p): p.stat().st_size for p in tracked() if p.stat().st_size > MOST_BYTES}


# ----------------------------------------------------------------------------------- sections and warnings


def named_sections(text: str) -> set[tuple[str, int]]:
    """(notebook, section) of every "notebook 01, sections 2 to 4"."""
    found = re.findall(r"notebook (\d\d), sections? (\d+)(?: (to|and) (\d+))?", text, re.IGNORECASE)
    return {
        (notebook, section)
        for notebook, first, joint, last in found
        for section in (range(int(first), int(last) + 1) if joint == "to" else map(int, filter(None, (first, last))))
    }


def test_named_sections_by_hand():
    text = "Notebook 00, section 5; notebook 01, sections 2 to 4; notebook 02, sections 1 and 3. arXiv, section 9"
    assert named_sections(text) == {("00", 5), ("01", 2), ("01", 3), ("01", 4), ("02", 1), ("02", 3)}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_the_notebook_sections_that_code_names_exist(path):
    for notebook, section in named_sections(path.read_text(encoding="utf-8")):
        (source,) = (ROOT / "notebooks").glob(f"{notebook}_*.py")
        assert f"\n# ## {section}. " in source.read_text(encoding="utf-8"), f"notebook {notebook} has no section {section}"


def test_a_warning_of_this_package_is_an_error_and_one_of_its_dependencies_is_not():
    with pytest.raises(DeprecationWarning):
        warnings.warn_explicit("ours", DeprecationWarning, "lm.py", 1, module="gdrt_lite.lm")
    warnings.warn_explicit("theirs", DeprecationWarning, "torch.py", 1, module="torch")


# ------------------------------------------------------------------------------------------- import order


def test_imported_modules_by_hand():
    code = "import os, gdrt_lite.lm\nfrom gdrt_lite import dro, __version__\ndef f():\n from gdrt_lite.data import Example"
    assert imported_modules(ast.parse(code)) == {"lm", "dro", "data"}


@pytest.mark.parametrize("module", sources())
def test_imports_go_one_way(module):
    assert module in LAYER, f"{module} has no place in the flow of data: add it to LAYERS in {relative(Path(__file__))}"
    backwards = {other for other in imports(module) if LAYER.get(other, len(LAYERS)) >= LAYER[module]}
    assert not backwards, f"{module} imports {backwards}, which come after it"


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name in WINGS], ids=relative)
def test_imports_inside_a_wing_go_one_way(path):
    order = WINGS[path.parent.name]
    assert path.stem in ("__init__", *order), f"{relative(path)} has no place in its wing: add it to WINGS"
    if path.stem == "__init__":
        return
    for other in re.findall(
        rf"from gdrt_lite\.{path.parent.name}(?:\.(\w+))? import ([\w, ]+)", path.read_text(encoding="utf-8")
    ):
        names = [other[0]] if other[0] else [name.strip() for name in other[1].split(",")]
        assert not [name for name in names if order.index(name) >= order.index(path.stem)]


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_know_no_language_model(module):
    reached, todo = set(), {module}
    while todo:
        current = todo.pop()
        reached.add(current)
        todo |= imports(current) - reached
    assert "lm" not in reached


# -------------------------------------------------------------------------------------------- the package


def test_import_of_the_package_loads_nothing_heavy():
    code = (
        "import sys, gdrt_lite\n"
        "heavy = {'torch', 'transformers', 'numpy', 'pandas', 'matplotlib', 'sklearn', 'captum'}\n"
        "found = sorted(heavy & set(sys.modules))\n"
        "print(found, gdrt_lite.GdrtError.__name__, 'dro' in dir(gdrt_lite))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] GdrtError True"


def test_every_module_is_reached_as_an_attribute():
    assert set(gdrt_lite.__all__) - {"__version__", "GdrtError"} == set(sources()) - {"__main__"}
    for name in gdrt_lite.__all__:
        assert getattr(gdrt_lite, name) is not None
    assert gdrt_lite.dro is importlib.import_module("gdrt_lite.dro")
    with pytest.raises(AttributeError, match="no_such_module"):
        gdrt_lite.no_such_module  # noqa: B018


def test_map_of_the_package_names_every_module():
    words = set(re.findall(r"\w+", gdrt_lite.__doc__))
    assert set(sources()) | {name for names in WINGS.values() for name in names} <= words | {"__main__"}


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_modules_are_small(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, f"{lines} lines; aim at {ADVISED}: split it along its ideas"


def public(tree: ast.Module) -> list[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Public functions, classes and methods; not those of private classes, nor functions inside functions."""
    found = []

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                found.append((prefix + node.name, node))
                if isinstance(node, ast.ClassDef):
                    visit(node.body, f"{prefix}{node.name}.")

    visit(tree.body, "")
    return found


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_public_things_are_documented_and_annotated(path):
    tree = tree_of(path)
    assert ast.get_docstring(tree), "the module has no docstring"
    faults = []
    for name, node in public(tree):
        if not ast.get_docstring(node):
            faults.append(f"{name}: no docstring")
        if isinstance(node, ast.ClassDef):
            continue
        args = node.args
        every = [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))]
        bare = [arg.arg for arg in every if arg.annotation is None and arg.arg not in ("self", "cls")]
        if bare or node.returns is None:
            faults.append(f"{name}: no annotation of {', '.join([*bare, *['the result'] * (node.returns is None)])}")
    assert not faults, "\n".join(faults)
