"""tests/ mirrors the packages: a folder for each room, a test of its name for each module of some length."""

from __future__ import annotations

from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
TESTS = PROJECT / "tests"
PACKAGES = ("curation", "filters", "jobs", "trainer")
MANY_LINES = 120


def modules() -> list[Path]:
    """The files of the packages, relative to the project."""
    found = [path for package in PACKAGES for path in (PROJECT / package).rglob("*.py")]
    return sorted(path.relative_to(PROJECT) for path in found)


def place_of(module: Path) -> Path:
    """Where the tests of `module` stand: a package's own module is tested under the package's name."""
    name = module.parent.name if module.name == "__init__.py" else module.stem
    return TESTS / module.parent / f"test_{name.lstrip('_')}.py"


def test_each_long_module_has_a_test_of_its_name() -> None:
    long = [module for module in modules() if len((PROJECT / module).read_bytes().splitlines()) >= MANY_LINES]
    without = {module.as_posix() for module in long if not place_of(module).is_file()}
    assert not without


@pytest.mark.parametrize("package", PACKAGES)
def test_each_folder_of_tests_is_a_room_of_its_package(package: str) -> None:
    folders = {path.parent.relative_to(TESTS) for path in (TESTS / package).rglob("*.py")}
    assert folders and not [str(folder) for folder in folders if not (PROJECT / folder / "__init__.py").is_file()]


def test_helpers_stand_in_support() -> None:
    elsewhere = [path for path in TESTS.rglob("*.py") if "support" not in path.relative_to(TESTS).parts]
    known = ("conftest.py", "__init__.py")
    assert not [str(path) for path in elsewhere if path.name not in known and not path.name.startswith("test_")]
