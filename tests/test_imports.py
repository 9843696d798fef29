"""The import rule of docs/architecture.md, read from the syntax trees; and what imports without Spark or torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path

import pytest

from jobs.stages import STAGES
from tests.support.import_graph import Graph, drawings, find_circle, folders_of, read_graph

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


def test_job_names_do_not_shadow_any_package() -> None:
    # spark-submit puts jobs/ first on sys.path.
    ours = {path.stem for path in (PROJECT / "jobs").glob("[!_]*.py")} | folders_of(PROJECT / "jobs")
    installed = packages_distributions()
    assert "pyspark" in installed
    assert not ours & {*sys.stdlib_module_names, *installed}


@pytest.fixture(scope="module")
def graph() -> Graph:
    return read_graph(PROJECT, list(ALLOWED))


def test_no_modules_import_each_other_in_a_circle(graph: Graph) -> None:
    assert find_circle(graph) is None


def test_a_circle_through_functions_and_packages_is_found(tmp_path: Path) -> None:
    (tmp_path / "p" / "q").mkdir(parents=True)
    (tmp_path / "p" / "__init__.py").write_text("")
    (tmp_path / "p" / "a.py").write_text("def f():\n    from p.q import thing\n")
    (tmp_path / "p" / "q" / "__init__.py").write_text("from p.q import inner\n")
    (tmp_path / "p" / "q" / "inner.py").write_text("import p.a\n")
    found = find_circle(read_graph(tmp_path, ["p"]))
    assert found is not None and set(found) == {"p.a", "p.q", "p.q.inner"}
    assert {*pairwise([*found, found[0]])} == {("p.a", "p.q"), ("p.q", "p.q.inner"), ("p.q.inner", "p.a")}


def test_no_stage_imports_from_a_later_one(graph: Graph) -> None:
    modules = [module for module, _ in STAGES.values()]
    for place, module in enumerate(modules):
        assert not reached(graph, module) & set(modules[place + 1 :]), module


def reached(graph: Graph, start: str) -> set[str]:
    """Every module that `start` imports, itself or through others."""
    found, left = set[str](), [start]
    while left:
        for module in graph[left.pop()] - found:
            found.add(module)
            left.append(module)
    return found


RECIPE_TAKERS = ("check", "run", "preview", "plan_", "resolve_", "build_", "score_schemas")
"""Functions of jobs/ that may take the recipe: what a command calls, and what turns the recipe into a plan."""


def test_nothing_below_a_plan_takes_the_recipe() -> None:
    takers = set()
    for path in (PROJECT / "jobs").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any(_is_recipe(one) for one in node.args.args):
                takers.add(node.name)
    assert takers and not [name for name in takers if not name.lstrip("_").startswith(RECIPE_TAKERS)]


def _is_recipe(argument: ast.arg) -> bool:
    return argument.annotation is not None and ast.unparse(argument.annotation) == "Recipe"


def test_the_drawings_show_the_arrows_of_the_code(graph: Graph) -> None:
    drawn = drawings(PROJECT / "docs" / "architecture.md")
    assert [drawing.package for drawing in drawn] == ["", "curation", "jobs", "trainer"]
    for drawing in drawn:
        assert drawing.arrows == drawing.arrows_in(graph), drawing.package


def test_the_drawings_leave_no_folder_and_no_stage_out() -> None:
    for drawing in drawings(PROJECT / "docs" / "architecture.md"):
        wanted = folders_of(PROJECT / drawing.package) if drawing.package else set(ALLOWED)
        stages = {module.removeprefix("jobs.") for module, _ in STAGES.values()} if drawing.package == "jobs" else set()
        assert wanted | stages <= drawing.boxes


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
        (["jobs.ingest", "jobs.score", "jobs.selection", "jobs.pack"], ["pyspark", "torch", "deepspeed"]),
    ],
    ids=["curation", "filters", "trainer.config", "looking at a root", "stages of one machine"],
)
def test_minimal_imports(packages: list[str], blocked: list[str]) -> None:
    code = BLOCKED.format(packages=packages, blocked=blocked)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT, check=False)
    assert done.returncode == 0, done.stderr
