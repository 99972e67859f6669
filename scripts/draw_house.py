"""Draw the package from its imports, as a Mermaid diagram: python scripts/draw_house.py

`scripts/render_readme.py` puts the picture into README.md, and a test compares, so that it stays true.
"""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "gdrt_lite"
COMMAND = "__main__"


def parts(package: Path = PACKAGE) -> dict[str, list[Path]]:
    """The files of each part of the package: a part is a module of the method, a wing, or the command line."""
    found: dict[str, list[Path]] = {}
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).parts[0].removesuffix(".py")
        if name != "__init__":
            found.setdefault(name, []).append(path)
    return found


def imported(path: Path) -> set[str]:
    """The parts of the package that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("gdrt_lite.")}


def arrows(package: Path = PACKAGE) -> dict[str, set[str]]:
    """For each part, the parts that it imports."""
    found = parts(package)
    return {
        name: {other for path in paths for other in imported(path)} & set(found) - {name} for name, paths in found.items()
    }


def reached(uses: dict[str, set[str]], name: str) -> set[str]:
    """What a part imports, directly or through others."""
    found: set[str] = set()
    todo = set(uses[name])
    while todo:
        current = todo.pop()
        found.add(current)
        todo |= uses[current] - found
    return found


def reduced(uses: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that do not follow from others. The imports must have no circle."""
    return {
        name: {other for other in others if not any(other in reached(uses, between) for between in others - {other})}
        for name, others in uses.items()
    }


def house(package: Path = PACKAGE) -> str:
    """The picture: the method's files as boxes, the wings as round boxes with their files, and an arrow to whoever
    imports them."""
    uses, lines = reduced(arrows(package)), ["```mermaid", "flowchart TD"]
    for name, paths in parts(package).items():
        if name == COMMAND:
            lines.append(f'  {COMMAND}{{{{"python -m gdrt_lite"}}}}')
        elif (package / name).is_dir():
            inside = sorted({path.relative_to(package / name).parts[0].removesuffix(".py") for path in paths} - {"__init__"})
            lines.append(f'  {name}(["<b>{name}/</b><br/>{"<br/>".join(inside)}"])')
        else:
            lines.append(f'  {name}["{name}"]')
    lines += [f"  {other} --> {name}" for name, others in uses.items() for other in sorted(others)]
    return "\n".join([*lines, "```"])


if __name__ == "__main__":
    print(house())
