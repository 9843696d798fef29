"""The index of uids: a look-up reads the files that can hold the uid, and finds every uid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from curation.manifest import manifest as manifest_module
from curation.manifest import uid_index
from curation.manifest.manifest import Manifest
from curation.manifest.uid_index import UidIndex
from curation.storage import Root
from tests.support.many_units import many_units


@pytest.fixture
def many(root: Root, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr(uid_index, "MIN_FILES", 8)
    monkeypatch.setattr(manifest_module, "MIN_FILES", 8)
    monkeypatch.setattr(uid_index, "FILES_PER_SEGMENT", 16)
    return many_units(root, range(40))


def test_a_look_up_finds_each_uid_in_few_files(root: Root, many: dict[str, str]) -> None:
    manifest = Manifest(root)
    asked = UidIndex(root, manifest.files("samples"))
    num_read = []
    for uid, unit in many.items():
        holding = asked.files_with([uid])
        assert f"samples/{unit}.parquet" in holding
        num_read.append(len(holding))
    assert sum(num_read) < 1.1 * len(many), "one file a uid, but for chance"
    for uid in sorted(many)[::40]:
        found = manifest.query("select * from manifest where uid = ?", [uid]).to_arrow_table().to_pylist()
        assert [(row["uid"], row["status"]) for row in found] == [(uid, f"http_{int(many[uid][9:])}")]
        assert manifest.query(f"select count(*) from samples s where '{uid}' = s.uid").fetchall() == [(1,)]
    three = sorted(many)[:3]
    found = manifest.query("select uid from manifest where source <> '' and uid in (?, ?, ?) order by 1", three)
    assert [uid for (uid,) in found.fetchall()] == three
    assert manifest.query("select * from manifest where uid = ?", ["f" * 32]).fetchall() == []
    assert manifest.query("select * from manifest where uid = 'no uid'").fetchall() == []
    both = f"select count(*) from manifest where uid = '{three[0]}' or uid = '{three[1]}'"
    assert manifest.query(both).fetchall() == [(2,)]


def test_a_look_up_reads_the_file_and_no_other(root: Root, many: dict[str, str]) -> None:
    """Every other file is damaged behind the manifest's back; the look-up does not notice, a scan does."""
    manifest = Manifest(root)
    uid, unit = next(iter(many.items()))
    manifest.query("select * from downloads where uid = ?", [uid])
    for name in manifest.files("downloads"):
        if Path(name).stem != unit:
            path = Path(root.full(name))
            path.write_bytes(b"x" * path.stat().st_size)
    assert manifest.query("select status from downloads where uid = ?", [uid]).fetchall() == [("http_0",)]
    with pytest.raises(Exception, match="(?i)parquet|magic"):
        manifest.query("select count(distinct status) from downloads").fetchall()


def test_units_that_came_later_are_found(root: Root, many: dict[str, str], tmp_path: Path) -> None:
    manifest = Manifest(root)
    manifest.query("select * from samples where uid = ?", ["0" * 32]).fetchall()
    folder = next((tmp_path / "cache-home/clip-curation/uids").iterdir())
    before = {path.name for path in folder.glob("*.npy")}
    assert len(before) == 3  # 40 files in segments of 16
    later = many_units(root, range(40, 45))
    for uid in list(later)[::6]:
        assert manifest.query("select * from samples where uid = ?", [uid]).fetchall() == [], "opened before they came"
        assert len(Manifest(root).query("select * from samples where uid = ?", [uid]).fetchall()) == 1
    assert before < {path.name for path in folder.glob("*.npy")}


def test_without_a_cache_folder_every_file_is_asked(
    root: Root, many: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    uid = next(iter(many))
    assert Manifest(root).query("select status from manifest where uid = ?", [uid]).fetchall() == [("http_0",)]


def _foreign_filter(path: Path) -> None:
    with open(path, "wb") as f:
        np.save(f, np.zeros((3, 1), np.int64))


TORN: dict[str, Callable[[Path], object]] = {
    "empty filter": lambda path: path.write_bytes(b""),
    "half a filter": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "no filter": lambda path: path.write_bytes(b"\x80\x04junk"),
    "a filter of something else": _foreign_filter,
    "torn names": lambda path: path.with_suffix(".json").write_bytes(b'[["samples/'),
    "other names": lambda path: path.with_suffix(".json").write_bytes(b'{"a": 1}'),
    "names that are numbers": lambda path: path.with_suffix(".json").write_bytes(b"[[1, 2]]"),
    "nested names": lambda path: path.with_suffix(".json").write_bytes(b"[" * 200_000),
    "no names": lambda path: path.with_suffix(".json").unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("way", TORN)
def test_torn_and_foreign_files_of_the_cache_are_made_again(
    root: Root, many: dict[str, str], tmp_path: Path, way: str
) -> None:
    uid = next(iter(many))
    ask = "select status from downloads where uid = ?"
    Manifest(root).query(ask, [uid])
    for path in sorted((tmp_path / "cache-home").rglob("uids/*/*.npy")):
        TORN[way](path)
    assert Manifest(root).query(ask, [uid]).fetchall() == [("http_0",)]
