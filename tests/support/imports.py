"""Who imports whom, read off the sources with `ast`. Imports in functions and under TYPE_CHECKING count.

Nodes are files; the faces of packages (`__init__.py`) are none: `from ..x import name` is an edge to the file that
defines the name, whichever face serves it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

Edges = dict[str, dict[str, int]]
"""Module -> {module that it imports: line}."""


def modules(root: Path, packages: Iterable[str]) -> dict[str, Path]:
    """Dotted name to file, of all files of some packages under a folder."""
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def edges(root: Path, packages: Iterable[str]) -> Edges:
    """Imports among the files of some packages under a folder."""
    files = modules(root, packages)
    served = {name: _served(path) for name, path in files.items() if path.name == "__init__.py"}

    def definer(module: str, name: str) -> str | None:
        """File that `from module import name` needs; None for a face itself or another library."""
        whole = f"{module}.{name}"
        if whole in files and whole not in served:
            return whole
        if module in files and module not in served:
            return module
        home = served.get(module, {}).get(name)
        if home is None:
            return None
        inner = f"{module}.{home}"
        return definer(inner, name) if inner in served else inner if inner in files else None

    result: Edges = {}
    for module, path in files.items():
        if module in served:
            continue
        out: dict[str, int] = {}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                base = absolute(module, node)
                targets = [definer(base, alias.name) for alias in node.names]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names if alias.name in files and alias.name not in served]
            else:
                continue
            for target in targets:
                if target is not None and target != module:
                    out.setdefault(target, node.lineno)
        result[module] = out
    return result


def absolute(module: str, node: ast.ImportFrom) -> str:
    """Dotted name of what a `from` statement in a file names, the dots of relative imports resolved."""
    if not node.level:
        return node.module or ""
    above = module.split(".")[: -node.level]
    return ".".join([*above, *([node.module] if node.module else [])])


def circles(graph: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other (Tarjan 1972), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group = sorted(stack[at:])
            del stack[at:]
            if len(group) > 1:
                found.append(group)

    for node in graph:
        if node not in index:
            visit(node)
    return found


def _served(face: Path) -> dict[str, str]:
    """Name to the module, relative to the package, that a face takes it from."""
    served = {}
    for node in ast.walk(ast.parse(face.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            served |= {alias.asname or alias.name: node.module for alias in node.names}
    return served
