"""`make audit`: what is installed as a CycloneDX list (sbom.json), and which of the tested versions are vulnerable.

The tools have a virtualenv of their own inside of the project's, so the list is of what the project needs. It ends with
status 1 for a known vulnerability. Where no vulnerability service can be asked, it says so and ends with 0.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
CONSTRAINTS = PROJECT / "constraints.txt"
TOOLS = PROJECT / "scripts" / "audit-tools.txt"
SBOM = PROJECT / "sbom.json"
TIMEOUT_S = 20
IGNORED: dict[str, str] = {}
"""Vulnerabilities that do not concern this project: identifier → why."""


def main() -> int:
    bin_folder = install_tools(Path(sys.prefix) / "audit")
    write_sbom(bin_folder)
    lacking = find_lacking(json.loads(SBOM.read_bytes()), installed())
    if lacking:
        say(f"{SBOM.name} lacks {', '.join(lacking)}, which are installed.")
        return 1
    say(f"{SBOM.name} lists the {len(installed())} packages that are installed.")
    status, sentences = judge(audit(bin_folder))
    for sentence in sentences:
        say(sentence)
    return status


def install_tools(folder: Path) -> Path:
    """A virtualenv with the tools at their tested versions; its folder of programs."""
    stamp = folder / ".installed"
    if not stamp.exists() or stamp.read_bytes() != TOOLS.read_bytes():
        run([sys.executable, "-m", "venv", "--clear", folder])
        run([folder / "bin" / "python", "-m", "pip", "-qq", "install", "--no-deps", "--requirement", TOOLS])
        stamp.write_bytes(TOOLS.read_bytes())
    return folder / "bin"


def write_sbom(bin_folder: Path) -> None:
    about = ["--pyproject", PROJECT / "pyproject.toml", "--mc-type", "library", "--output-reproducible"]
    run([bin_folder / "cyclonedx-py", "environment", *about, "--output-file", SBOM, sys.executable])


def installed() -> dict[str, str]:
    """Name (in PyPI's spelling for comparing) → version of every package of this environment but the project itself."""
    found = {canonical(each.metadata["Name"]): each.version for each in metadata.distributions()}
    return {name: version for name, version in found.items() if name != "clip-curation"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def find_lacking(sbom: Mapping[str, Any], packages: Mapping[str, str]) -> list[str]:
    """The `packages` that the list does not have in this version."""
    listed = {(canonical(each["name"]), each.get("version")) for each in sbom["components"]}
    return sorted(f"{name} {version}" for name, version in packages.items() if (name, version) not in listed)


def audit(bin_folder: Path) -> tuple[dict[str, Any] | None, str]:
    """What pip-audit found for the versions of constraints.txt, or None and why it could not ask."""
    ignored = [word for name in IGNORED for word in ("--ignore-vuln", name)]
    asked = ["--requirement", CONSTRAINTS, "--no-deps", "--disable-pip", "--timeout", str(TIMEOUT_S), *ignored]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "found.json")
        shown = ["--format", "json", "--output", file, "--progress-spinner", "off"]
        done = subprocess.run(
            list(map(str, [bin_folder / "pip-audit", *asked, *shown])), capture_output=True, text=True, check=False
        )
        if file.exists():
            return json.loads(file.read_bytes()), ""
    return None, next(reversed(done.stderr.strip().splitlines()), f"status {done.returncode}")


def judge(found: tuple[Mapping[str, Any] | None, str]) -> tuple[int, list[str]]:
    """The exit status, and what to say."""
    answer, why = found
    packages = answer["dependencies"] if answer else []
    known = [package for package in packages if "skip_reason" not in package]
    if not known:
        why = why or f"it knows none of the {len(packages)} packages"
        return 0, [f"Nothing was audited, as the vulnerability service cannot be asked from here: {why}."]
    said = [f"{len(known)} of {len(packages)} packages of {CONSTRAINTS.name} were audited."]
    faults = [describe(package, each) for package in known for each in package["vulns"]]
    return (1 if faults else 0), said + (faults or ["No vulnerability of them is known."])


def describe(package: Mapping[str, Any], vulnerability: Mapping[str, Any]) -> str:
    versions: Iterable[str] = vulnerability.get("fix_versions") or ["no version yet"]
    return f"{package['name']} {package['version']}: {vulnerability['id']}, mended in {', '.join(versions)}"


def run(words: Iterable[object]) -> None:
    subprocess.run(list(map(str, words)), check=True)


def say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")


if __name__ == "__main__":
    raise SystemExit(main())
