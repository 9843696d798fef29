"""Which module imports which, read from the syntax trees; and the drawings of it in the documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

Graph = dict[str, set[str]]
"""Dotted name of a module → the modules that it imports, wherever in the file. A package is its `__init__`."""
Arrows = set[tuple[str, str]]


def read_graph(project: Path, packages: Sequence[str]) -> Graph:
    """The imports between the modules of `packages`."""
    files = {_dotted(path, project): path for package in packages for path in (project / package).rglob("*.py")}
    return {name: {one for one in _imported(path, set(files)) if one != name} for name, path in files.items()}


def _dotted(path: Path, project: Path) -> str:
    parts = path.relative_to(project).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path, known: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known or node.module in known:
                    yield inner if inner in known else node.module


def find_circle(graph: Graph) -> list[str] | None:
    """Modules of which each imports the next and the last one the first; None when there are none."""
    done = set[str]()

    def visit(name: str, path: list[str]) -> list[str] | None:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return None
        for following in sorted(graph[name]):
            circle = visit(following, [*path, name])
            if circle:
                return circle
        done.add(name)
        return None

    return next((circle for name in sorted(graph) if (circle := visit(name, []))), None)


def folders_of(package: Path) -> set[str]:
    """The folders of code directly in `package`."""
    return {path.parent.name for path in package.glob("*/__init__.py")}


@dataclass(frozen=True)
class Drawing:
    """One mermaid drawing: boxes are packages, or modules and folders of `package`."""

    package: str
    boxes: set[str]
    arrows: Arrows

    def arrows_in(self, graph: Graph) -> Arrows:
        """The arrows between the drawing's boxes as the code has them."""
        pairs = ((self._box(name), self._box(one)) for name, imported in graph.items() for one in imported)
        return {(a, b) for a, b in pairs if a != b and a is not None and b is not None}

    def _box(self, module: str) -> str | None:
        inside = module.removeprefix(f"{self.package}.") if self.package else module
        name = inside.partition(".")[0]
        return name if name in self.boxes and (not self.package or inside != module) else None


def drawings(page: Path) -> list[Drawing]:
    """The mermaid drawings of a page; a comment `%% PACKAGE` says whose modules the boxes are."""
    blocks = re.findall(r"```mermaid\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return [_read_drawing(block) for block in blocks]


def _read_drawing(block: str) -> Drawing:
    package = re.search(r"^ *%% (\w+)$", block, re.MULTILINE)
    arrows = set(re.findall(r"^ *(\w+) --> (\w+)$", block, re.MULTILINE))
    alone = set(re.findall(r"^ *(\w+)$", block, re.MULTILINE))
    return Drawing(package[1] if package else "", alone | {box for arrow in arrows for box in arrow}, arrows)
