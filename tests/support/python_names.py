"""Whether dotted names lead to something, read from the modules' text so that nothing heavy is imported."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

OURS = ("benchmarks", "curation", "filters", "jobs", "tests", "trainer")


@cache
def names_in(module: str) -> frozenset[str] | None:
    """What `module` defines, imports or holds as submodules; empty when it is not ours, None when there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
    if spec is None:
        return None
    if spec.origin is None or module.split(".")[0] not in OURS:
        return frozenset()
    found = {path.stem for path in Path(spec.origin).parent.iterdir()} if spec.submodule_search_locations else set()
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return frozenset(found)


def is_known(dotted: str) -> bool:
    """Whether `package.module.name` exists; names of packages that are not ours are not looked into."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        names = names_in(".".join(parts[:end]))
        if names is not None:
            return end == len(parts) or not names or parts[end] in names
    return False


def imported_names(text: str) -> Iterator[str]:
    """Every dotted name that a piece of Python imports, and every attribute that it takes of an imported module."""
    aliases = {}
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    yield from aliases.values()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = aliases.get(node.value.id, "")
            if module and _is_module(module):
                yield f"{module}.{node.attr}"


def _is_module(dotted: str) -> bool:
    try:
        return importlib.util.find_spec(dotted) is not None
    except ModuleNotFoundError:
        return False
