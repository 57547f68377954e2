"""Sphinx reads this file: `python -m sphinx -W --keep-going -b html docs build/docs`, from the root of the tree."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import generate  # noqa: E402

import figures  # noqa: E402
from physics_ep.version import __version__  # noqa: E402

project = "physics-ep"
author = "The physics-ep authors"
project_copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["gallery/live/*.ipynb", "gallery/live/*.py", "generated/devices.md"]
suppress_warnings = [
    "ref.python",  # an attribute's name in one class may be that of another class's attribute too
    "config.cache",  # sphinx-gallery is given a class
]

html_theme = "pydata_sphinx_theme"
html_title = f"physics-ep {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "header_links_before_dropdown": 7,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_end": [],
}

# Formulas between dollars; headings down to the third level can be linked to as `page.md#heading`.
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# Notebooks bear their outputs. `pytest -m slow tests/test_tutorials.py` runs them.
nb_execution_mode = "off"

# Docstrings name types, shapes and units themselves, so signatures need not carry the annotations again.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
default_role = "literal"
smartquotes = False  # --option is no dash

# Scripts of a few seconds each, run while the pages are built.
sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "examples" / "gallery"),
    "gallery_dirs": "gallery/live",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 10**6,
    "write_computation_times": False,
}


def escape_markup(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Let docstrings stay plain text: |x| and x* are mathematics there, not reStructuredText.

    Everything outside backquotes is escaped in place, and before numpydoc writes markup of its own.
    """
    for number, line in enumerate(lines):
        parts = re.split(r"(`+[^`]*`+)", line)
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        lines[number] = re.sub(r"^(\s*)\\\* ", r"\1* ", "".join(parts))  # the bullet of a list stays one


def unwrap_drawings() -> None:
    """Let Sphinx read a drawing's arguments off its signature, which has more than the wrapped function."""
    for name in figures.__all__:
        drawing = getattr(figures, name)
        if hasattr(drawing, "__wrapped__"):
            del drawing.__wrapped__


def setup(app: Any) -> None:
    """Generate pages, and prepare docstrings before numpydoc (priority 500) reads them; Sphinx calls this once."""
    unwrap_drawings()
    app.connect("builder-inited", lambda app: generate.write(HERE / "generated"))
    app.connect("autodoc-process-docstring", escape_markup, priority=400)
