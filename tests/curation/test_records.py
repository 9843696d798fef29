"""Damaged JSON in any place of a root is one sentence that names the file, or, in a log, nothing at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curation.errors import UserError
from curation.plan import read_plans
from curation.records import parse_json
from curation.report import status_text
from curation.storage import Root
from curation.verify import verify
from tests.support import small_root
from tests.support.small_root import BATCH, UNITS, SmallRoot
from trainer.data.selection import choose_table

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "torn": lambda data: data[: len(data) // 2],
    "empty": lambda _: b"",
    "nested": lambda _: b"[" * 100_000,
    "bytes": lambda _: b"\xff\xfe\x00",
    "list": lambda _: b"[1, 2]",
    "null": lambda _: b"null",
    "no field": lambda _: b"{}",
    "wrong kinds": lambda data: json.dumps(dict.fromkeys(json.loads(data), 1.5)).encode(),
    "long number": lambda _: b"1" * 10_000,
}
FILES = ("root.json", f"plans/{BATCH}.json", "selection/current.json", "train_index/current.json")


@pytest.fixture
def made(root: Root) -> SmallRoot:
    built = small_root.build(root)
    small_root.duplicates(built, {})
    small_root.pack(built, small_root.select(built))
    return built


def looks(root: Root) -> list[Callable[[], Any]]:
    return [lambda: status_text(root), lambda: verify(root), lambda: choose_table(root, "auto")]


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("rel", FILES)
def test_a_damaged_file_is_named(made: SmallRoot, rel: str, damage: Callable[[bytes], bytes]) -> None:
    file = Path(made.root.path, rel)
    file.write_bytes(damage(file.read_bytes()))
    said = []
    for look in looks(made.root):
        try:
            said.append(str(look()))
        except UserError as error:
            said.append(str(error))
    assert any(f"{rel} is damaged (" in one and ": " in one and "\n" not in one for one in said), said


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_log_is_passed_over(made: SmallRoot, damage: Callable[[bytes], bytes]) -> None:
    whole = {"rows": 10, "at": 1e12, "statuses": {"ok": 3}, "hosts": {"a.test": {"ok": 3}}, "running": True}
    made.root.publish_json(f"logs/download/{UNITS[0]}.0.json", whole)
    made.root.publish(f"logs/download/{UNITS[1]}.0.json", damage(json.dumps(whole).encode()))
    assert "1 unit is being fetched: 3 of 10 rows" in status_text(made.root)


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": [1]},
        {"inputs": [{"source": "a"}]},
        {"totals": {"samples": "many"}},
        {"units": {"000000": None}},
        {"number": True},
    ],
)
def test_a_plan_with_another_kind_inside_is_named(made: SmallRoot, change: dict[str, Any]) -> None:
    rel = f"plans/{BATCH}.json"
    made.root.publish_json(rel, made.root.read_json(rel) | change)
    with pytest.raises(UserError, match="is damaged"):
        read_plans(made.root)


def test_files_of_a_version_are_names(made: SmallRoot) -> None:
    current = made.root.current("selection")
    assert current is not None
    made.root.publish_json("selection/current.json", current | {"files": [1]})
    with pytest.raises(UserError, match="run `curate select` again"):
        made.root.current("selection")


def test_the_settings_of_a_stage_that_are_damaged_are_named(root: Root) -> None:
    root.begin_stage("downloads", {"a": 1})
    root.publish("downloads/_config.json", b'{"config": {"a": 1')
    with pytest.raises(UserError, match=r"downloads/_config\.json is damaged"):
        root.begin_stage("downloads", {"a": 1})


def test_only_json_is_json() -> None:
    assert parse_json(b'{"a": [1]}') == {"a": [1]}
    with pytest.raises(ValueError, match="too deeply"):
        parse_json(b"[" * 100_000)
