"""Sphinx reads this file: `python -m sphinx -W --keep-going -b html docs build/docs`, from the root of the tree."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

project = "physics-ep"
author = "The physics-ep authors"
project_copyright = author
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
suppress_warnings = ["ref.python"]  # an attribute's name in one class may be that of another class's attribute too

html_theme = "furo"
html_title = f"physics-ep {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]

# Formulas between dollars; headings down to the third level can be linked to as `page.md#heading`.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Docstrings name types, shapes and units themselves, so signatures need not carry the annotations again.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
napoleon_google_docstring = False
napoleon_use_ivar = True
default_role = "literal"


def escape_markup(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Let docstrings stay plain text: |x| and x* are mathematics there, not reStructuredText.

    Everything outside backquotes is escaped in place, and before napoleon writes markup of its own.
    """
    for number, line in enumerate(lines):
        parts = re.split(r"(`+[^`]*`+)", line)
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        lines[number] = re.sub(r"^(\s*)\\\* ", r"\1* ", "".join(parts))  # the bullet of a list stays one


def split_attributes(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Give each attribute an entry of its own where a docstring describes several at once, "low, high : float".

    napoleon does so for parameters only, and takes the first names of attributes for their type.
    """
    if "Attributes" not in lines:
        return
    start = lines.index("Attributes") + 2
    found, entry = lines[:start], list[str]()
    for line in [*lines[start:], "end"]:
        if line[:1] not in {"", " "}:
            head = entry[0] if entry else ""
            names, colon, kind = head.partition(" : ")
            several = names.split(", ") if re.fullmatch(r"\w+(, \w+)+", names) else [names]
            for one in several:
                found += [one + colon + kind, *entry[1:]] if entry else []
            entry = []
        entry.append(line)
    lines[:] = found


def setup(app: Any) -> None:
    """Sphinx calls this once: docstrings are prepared before napoleon, whose priority is 500, reads them."""
    app.connect("autodoc-process-docstring", split_attributes, priority=300)
    app.connect("autodoc-process-docstring", escape_markup, priority=400)
