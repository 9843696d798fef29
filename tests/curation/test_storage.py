"""Atomic publishing, on a local folder and on a real S3 API."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.errors import UserError
from curation.storage import Root, canonical_json, fingerprint, parquet_bytes
from tests.support import s3_server


def test_round_trip(root: Root) -> None:
    root.publish("a/b.bin", b"0123456789")
    assert root.list("a") == ["b.bin"]
    assert root.list("nowhere") == []
    assert root.read_bytes("a/b.bin", 3, 4) == b"3456"
    assert root.read_bytes("a/b.bin", 8) == b"89"
    assert root.size("a/b.bin") == 10
    table = pa.table({"x": [1, 2, 3], "y": ["a", None, "c"]})
    root.publish_parquet("t/u.parquet", table)
    assert root.units("t") == ["u"]
    assert root.read_parquet("t/u.parquet", ["y"]).column("y").to_pylist() == ["a", None, "c"]
    root.remove("a")
    root.remove("a")
    assert not root.exists("a/b.bin")
    assert pickle.loads(pickle.dumps(root)).list("t") == ["u.parquet"]


def test_publish_moves_a_file(root: Root, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.write_bytes(b"x")
    root.publish("raw/x.tar", made)
    assert root.read_bytes("raw/x.tar") == b"x"
    assert not made.exists()


@given(st.lists(st.tuples(st.integers(), st.one_of(st.none(), st.text(max_size=5)))))
def test_same_table_same_bytes(rows: list[tuple[int, str | None]]) -> None:
    def build(chunks: int) -> pa.Table:
        whole = pa.table(
            {"a": pa.array([r[0] % 2**31 for r in rows]), "b": pa.array([r[1] for r in rows], pa.string())}
        )
        return pa.concat_tables([whole.slice(i, chunks) for i in range(0, len(rows), chunks)]) if rows else whole

    assert parquet_bytes(build(1)) == parquet_bytes(build(1000))


def test_fingerprint_ignores_order() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    assert canonical_json({"ä": 1}) == '{\n "ä": 1\n}\n'.encode()


def test_a_failed_publish_leaves_nothing(root: Root, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        root.publish("raw/x.tar", tmp_path / "not-there")
    assert root.list("raw") == []
    assert not list(root.scratch().iterdir())


KILLED = """
import sys
from curation.storage import Root
root = Root(sys.argv[1])
sys.stdout.write("go\\n"); sys.stdout.flush()
while True:
    root.publish("big.bin", b"x" * 8_000_000)
"""


def test_kill_leaves_the_whole_file_or_none(tmp_path: Path) -> None:
    for delay in (0.0, 0.003, 0.02):
        folder = tmp_path / str(delay)
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (folder / "big.bin").exists() or (folder / "big.bin").stat().st_size == 8_000_000
        assert Root(folder).list("") in ([], ["big.bin"])


def test_begin_stage_refuses_other_settings(root: Root) -> None:
    root.begin_stage("downloads", {"image_size": 224, "tuple": (1, 2)})
    root.begin_stage("downloads", {"image_size": 224, "tuple": (1, 2)})
    root.begin_stage("downloads", {"image_size": 96, "tuple": (1, 2)})  # nothing made yet: a change is free
    root.publish_parquet("downloads/u.parquet", pa.table({"uid": ["x"]}))
    with pytest.raises(UserError, match="other settings .image_size differ"):
        root.begin_stage("downloads", {"image_size": 224, "tuple": (1, 2)})


def test_a_stage_that_has_ended_refuses_other_settings_too(root: Root) -> None:
    root.begin_stage("downloads", {"image_size": 224})
    root.check_stage("downloads", {"image_size": 96})  # nothing made yet
    root.publish_parquet("downloads/u.parquet", pa.table({"uid": ["x"]}))
    root.check_stage("downloads", {"image_size": 224, "added_by_a_later_version": 7})
    with pytest.raises(UserError, match="other settings .image_size differ.: use the earlier settings or a new root.$"):
        root.check_stage("downloads", {"image_size": 96})


def test_versioned_table(root: Root) -> None:
    assert root.current("selection") is None
    root.publish_current("selection", "abc", ["selection/abc/u.parquet"], {"rules": {}}, ["x"])
    current = root.current("selection")
    assert current is not None and current["fingerprint"] == "abc"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is no root"),
        (b'{"format": 999}', "has layout 999, this version"),
        (b"{", "is damaged"),
        (b"[]", "is damaged"),
    ],
)
def test_a_root_that_is_none(tmp_path: Path, content: bytes | None, said: str) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    if content is not None:
        (folder / "root.json").write_bytes(content)
    with pytest.raises(UserError, match=said):
        Root(folder).check_format()


def test_create_refuses_a_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    with pytest.raises(UserError, match="is not empty and has no root.json"):
        Root(tmp_path).create()


def test_unreadable_parquet_is_one_sentence(root: Root) -> None:
    root.publish("samples/u.parquet", b"PAR1 nonsense")
    advice = "delete it and run `curate ingest` again with the recipe of this root, which makes it again"
    with pytest.raises(UserError, match=f"not a readable parquet file .*{advice}"):
        root.read_parquet("samples/u.parquet")


def test_a_file_that_may_not_be_read_is_not_to_be_deleted(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "samples/u.parquet")

    monkeypatch.setattr(Root, "open", refuse)
    with pytest.raises(UserError, match="may not be read: give this account the right to"):
        root.read_parquet("samples/u.parquet")


def test_a_root_on_s3_sees_what_others_publish() -> None:
    with s3_server.s3() as endpoint:
        options = s3_server.options(endpoint)
        root = Root("s3://curation/run", **options)
        root.create()
        root.publish("t/a.bin", b"0123456789")
        assert root.list("t") == ["a.bin"] and root.folders() == ["t"] and root.local("t/a.bin") is None
        assert root.read_bytes("t/a.bin", 3, 4) == b"3456" and root.read_bytes("t/a.bin", 8) == b"89"
        other = pickle.loads(pickle.dumps(root))
        other.fs.invalidate_cache()
        assert root.current("t") is None
        program = "import sys, json; from curation.storage import Root; "
        program += "Root(sys.argv[1], **json.loads(sys.argv[2])).publish_current('t', 'abc', ['t/a.bin'], {}, {})"
        subprocess.run([sys.executable, "-c", program, root.base, json.dumps(options)], check=True)
        assert (root.current("t") or {})["fingerprint"] == "abc" and root.list("t") == ["a.bin", "current.json"]
        assert root.url("t/a.bin") == "s3://curation/run/t/a.bin"
        root.remove("t")
        assert root.list("t") == [] and not root.exists("t/a.bin")


def test_unknown_protocol() -> None:
    with pytest.raises(UserError, match="Cannot open the root"):
        Root("nosuch://bucket/x")
