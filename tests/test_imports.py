"""The import rule of docs/architecture.md, read from the syntax trees; and what imports without Spark or torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
ALLOWED = {
    "curation": {"curation"},
    "filters": {"curation", "filters"},
    "trainer": {"curation", "trainer"},
    "jobs": {"curation", "filters", "trainer", "jobs"},
}
ONLY_IN = {"pyspark": {"jobs"}, "deepspeed": {"trainer"}, "torch": {"trainer", "jobs", "filters"}}
"""Third-party package → the packages that may import it; torch is thus kept out of curation."""


def imports(path: Path) -> set[str]:
    """Top-level names that the file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def violations(package: str, found: set[str]) -> set[str]:
    ours = {name for name in found if name in ALLOWED and name not in ALLOWED[package]}
    return ours | {name for name, homes in ONLY_IN.items() if name in found and package not in homes}


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_point_down_only(package: str) -> None:
    files = list((PROJECT / package).rglob("*.py"))
    assert files
    bad = {str(f.relative_to(PROJECT)): v for f in files if (v := violations(package, imports(f)))}
    assert not bad


def test_the_rule_itself_can_fail(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from jobs.spark.session import session\n    import torch.nn\n")
    assert violations("curation", imports(file)) == {"jobs", "torch"}


def test_job_names_do_not_shadow_the_standard_library() -> None:
    # spark-submit puts jobs/ first on sys.path.
    assert not {f.stem for f in (PROJECT / "jobs").iterdir()} & set(sys.stdlib_module_names)


BLOCKED = """
import sys, importlib, pkgutil
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
for package in {packages!r}:
    module = importlib.import_module(package)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), package + "."):
        importlib.import_module(found.name)
"""


@pytest.mark.parametrize(
    ("packages", "blocked"),
    [
        (["curation"], ["pyspark", "torch", "deepspeed", "img2dataset"]),
        (["filters"], ["pyspark", "torch", "deepspeed"]),
        (["trainer.config"], ["pyspark", "torch", "deepspeed"]),
        (["jobs.cli", "curation.manifest.query"], ["pyspark", "torch", "deepspeed"]),
    ],
    ids=["curation", "filters", "trainer.config", "looking at a root"],
)
def test_minimal_imports(packages: list[str], blocked: list[str]) -> None:
    code = BLOCKED.format(packages=packages, blocked=blocked)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == 0, done.stderr
