"""How the root was made: the versions and settings of every table, the inputs, and what made this page."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from html import escape
from typing import Any

from curation.errors import UserError
from curation.freshness import find_stale_by_ledgers
from curation.garbage import VERSIONED
from curation.plan import read_plans
from curation.report.facts import Facts
from curation.report.section import Section
from curation.report.tables import fold_table, render_table, say
from curation.storage import CONFIG, Root
from curation.version import __version__

MAX_INPUTS = 200


def render(facts: Facts) -> str:
    """Tables with version and fingerprint, their settings as the stages resolved them, and the planned inputs."""
    root = facts.root
    tables = [*_list_tables(root)]
    record = root.read_json("root.json")
    page = (
        f"The root is of format {record.get('format')}, begun by version {record.get('version')}. "
        f"Version {__version__} made this page on {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC."
    )
    rows = [(name, made.get("fingerprint") or "–", made.get("version") or "–") for name, made in tables]
    settings = "".join(_fold_settings(name, made) for name, made in tables)
    stale = "".join(say(sentence) for sentence in find_stale_by_ledgers(root))
    listed = render_table(("table", "fingerprint", "version"), rows) if rows else say("No stage has begun yet.")
    return say(page) + stale + listed + settings + _render_inputs(root)


def _list_tables(root: Root) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each table with what is recorded of it: config, fingerprint, version, and inputs of a versioned one."""
    for folder in root.folders():
        for name in (folder, f"{folder}/metadata"):
            if root.exists(f"{name}/{CONFIG}"):
                yield name, _read(root, f"{name}/{CONFIG}")
    for table in VERSIONED:
        current = root.current(table)
        if current is not None:
            yield table, {key: value for key, value in current.items() if key != "files"}


def _read(root: Root, rel: str) -> dict[str, Any]:
    try:
        found = root.read_json(rel)
    except (UserError, FileNotFoundError) as error:
        return {"config": f"it cannot be read: {error}"}
    return found if isinstance(found, dict) else {}


def _fold_settings(name: str, made: dict[str, Any]) -> str:
    told = {key: made[key] for key in ("config", "inputs") if made.get(key)}
    text = escape(json.dumps(told, indent=2, ensure_ascii=False, default=str))
    return f"<details><summary>{escape(name)}</summary><pre>{text}</pre></details>" if told else ""


def _render_inputs(root: Root) -> str:
    plans = read_plans(root)
    rows = [
        (
            plan["batch"],
            entry.get("source", ""),
            entry.get("path", ""),
            entry.get("num_rows", 0),
            entry.get("fingerprint", ""),
        )
        for plan in plans
        for entry in plan["inputs"]
    ]
    if not rows:
        return say("No plan names a file of metadata.")
    summary = f"inputs: {len(rows):,}, of plans: {len(plans):,}" + (
        f", the first {MAX_INPUTS} of them" if len(rows) > MAX_INPUTS else ""
    )
    return fold_table(("batch", "source", "file", "rows", "fingerprint"), rows[:MAX_INPUTS], summary)


SECTION = Section(title="How it was made", place=110, render=render)
