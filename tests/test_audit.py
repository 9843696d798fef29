"""What `make audit` says of the list of packages and of the answers of a vulnerability service."""

from __future__ import annotations

import re

from scripts import audit

SOUND = {"name": "sound", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "own", "skip_reason": "Dependency not found on PyPI and could not be audited: own (1.0)"}
BROKEN = {"name": "broken", "version": "2.0", "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["2.1", "3.0"]}]}


def test_a_known_vulnerability_fails_and_names_the_version_that_mends_it() -> None:
    status, said = audit.judge(({"dependencies": [SOUND, BROKEN, UNKNOWN]}, ""))
    assert status == 1
    assert said == [
        "2 of 3 packages of constraints.txt were audited.",
        "broken 2.0: PYSEC-2026-1, mended in 2.1, 3.0",
    ]


def test_no_known_vulnerability_passes() -> None:
    status, said = audit.judge(({"dependencies": [SOUND]}, ""))
    assert status == 0 and said[-1] == "No vulnerability of them is known."


def test_a_service_that_knows_no_package_is_not_taken_for_a_clean_answer() -> None:
    status, said = audit.judge(({"dependencies": [UNKNOWN, UNKNOWN]}, ""))
    assert status == 0 and said == [
        "Nothing was audited, as the vulnerability service cannot be asked from here: it knows none of the 2 packages."
    ]


def test_a_service_that_cannot_be_reached_is_said_in_one_sentence() -> None:
    status, said = audit.judge((None, "ERROR: Tried to connect to PyPI"))
    assert status == 0 and len(said) == 1 and said[0].endswith("from here: ERROR: Tried to connect to PyPI.")


def test_a_package_that_the_list_lacks_or_has_in_another_version_is_named() -> None:
    sbom = {"components": [{"name": "Sound_Package", "version": "1.0"}, {"name": "old", "version": "1"}]}
    packages = {"sound-package": "1.0", "old": "2", "gone": "3"}
    assert audit.find_lacking(sbom, packages) == ["gone 3", "old 2"]


def test_what_is_installed_has_names_and_versions() -> None:
    found = audit.installed()
    assert {"numpy", "pyarrow", "duckdb"} <= found.keys() and "clip-curation" not in found
    assert all(re.fullmatch(r"[a-z0-9-]+", name) and version for name, version in found.items())


def test_the_tools_are_pinned() -> None:
    lines = [line for line in audit.TOOLS.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert {"pip_audit", "cyclonedx-bom"} <= {line.partition("==")[0] for line in lines}
