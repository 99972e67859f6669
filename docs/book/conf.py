"""Configuration of the book (Sphinx); scripts/book.py puts the sources together and calls it."""

from __future__ import annotations

import re
from typing import Any

from docutils.utils.math import latex2mathml

import gdrt_lite

project, author, copyright = "gdrt_lite", "The gdrt_lite authors", "The gdrt_lite authors"
version = release = gdrt_lite.__version__
html_title = "gdrt_lite"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_js_files = ["play.js"]
html_show_sphinx = False
html_copy_source = False
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

# The notebooks are shown as they were executed and committed.
nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
# A notebook may begin a section with a smaller heading; a table of a report may have no header.
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
napoleon_use_ivar = True
napoleon_google_docstring, napoleon_numpy_docstring = True, False
default_role = "code"
html_math_renderer = "mathml"


def _mathml(self: Any, node: Any, display: bool) -> None:
    """Formulas as MathML, which browsers draw themselves: no script and no font from elsewhere."""
    from docutils.nodes import SkipNode

    # Two words of LaTeX that docutils does not know.
    text = re.sub(r"\\Big(?![lr])", "", re.sub(r"\\dots\b", r"\\ldots", node.astext()))
    if display and r"\\" in text and r"\begin" not in text:
        text = rf"\begin{{aligned}}{text}\end{{aligned}}"
    drawn = latex2mathml.tex2mathml(text, as_block=display)
    tag = "div" if display else "span"
    focus = ' tabindex="0"' if display else ""
    self.body.append(f'<{tag} class="math"{focus}>{drawn}</{tag}>')
    raise SkipNode


def _plain_bars(app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]) -> None:
    """In a docstring |A| is an absolute value, and not what reStructuredText takes it for; code keeps its bars."""
    for place, line in enumerate(lines):
        parts = line.split("`")
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        lines[place] = "`".join(parts)


def accessible(page: str) -> str:
    """HTML as the keyboard and a screen reader want it: captions of the contents are headings of a level, and what scrolls
    sideways can be focused."""
    page = page.replace('role="heading">', 'role="heading" aria-level="2">')
    return re.sub(r'<pre(?=>)|<div class="(?:table-wrapper|output text_html)[^"]*"', r'\g<0> tabindex="0"', page)


def _accessible(app: Any, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    for part in ("body", "furo_navigation_tree"):
        if part in context:
            context[part] = accessible(context[part])


def setup(app: Any) -> None:
    """Let Sphinx know the way to draw formulas, and to read our docstrings."""
    app.connect("autodoc-process-docstring", _plain_bars)
    app.connect("html-page-context", _accessible, priority=900)  # after the theme's own
    inline = (lambda self, node: _mathml(self, node, display=False), None)
    block = (lambda self, node: _mathml(self, node, display=True), None)
    app.add_html_math_renderer("mathml", inline_renderers=inline, block_renderers=block)
