"""The proof finds what was left, wherever it was put, and does not take what other rows have for it."""

from __future__ import annotations

import bz2
import gzip
import html
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation.errors import UserError
from curation.forget import Removal, forget, plan, resume
from curation.forget.pending import write_pending
from curation.forget.requests import parse_requests
from curation.schema import SAMPLES
from curation.storage import PENDING_REMOVAL, Root
from tests.support import removal, small_root
from tests.support.small_root import SmallRoot

Plant = Callable[[SmallRoot, str], tuple[str, bytes]]


def _as_table(made: SmallRoot, uid: str) -> tuple[str, bytes]:
    sink = io.BytesIO()
    pa.parquet.write_table(pa.table({"words": [["x"], [made.samples[uid]["caption"]]]}), sink, compression="zstd")
    return "more/words.parquet", sink.getvalue()


def _as_vector(made: SmallRoot, uid: str) -> tuple[str, bytes]:
    unit = made.units[uid]
    uids = made.root.read_parquet(f"embeddings/metadata/metadata_{unit}.parquet")["uid"].to_pylist()
    vectors = np.load(io.BytesIO(made.root.read_bytes(f"embeddings/img_emb/img_emb_{unit}.npy")))
    sink = io.BytesIO()
    np.save(sink, vectors[[uids.index(uid)]])
    return "more/vectors.npy", sink.getvalue()


PLANTS: dict[str, Plant] = {
    "a URL in a text": lambda made, uid: ("logs.txt", b"..." + made.samples[uid]["url"].encode() + b"..."),
    "a caption in HTML": lambda made, uid: ("report.html", html.escape(made.samples[uid]["caption"]).encode()),
    "a caption in JSON": lambda made, uid: ("more.json", json.dumps({"c": made.samples[uid]["caption"]}).encode()),
    "a uid in a name": lambda made, uid: (f"more/{uid}.txt", b""),
    "a picture in a tar": lambda made, uid: ("more/a.tar", small_root.tar({"x.jpg": made.images[uid]})[0]),
    "a picture between other bytes": lambda made, uid: ("more/a.bin", b"1234567" + made.images[uid] + b"89"),
    "a caption inside of a compressed list": _as_table,
    "a vector": _as_vector,
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS.keys())
def test_what_was_put_anywhere_in_the_root_is_found_until_it_is_gone(plant: Plant, tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    uid = next(uid for uid in sorted(made.images) if made.samples[uid]["caption"])
    rel, data = plant(made, uid)
    made.root.publish(rel, data)
    done = _forget(made.root, uid)
    assert done.proof is not None and set(done.proof.found) == {rel}
    assert [set(one.proof.found) for one in resume(Root(made.root.base)) if one.proof] == [{rel}]
    made.root.remove(rel)
    assert [one.proof.found for one in resume(Root(made.root.base)) if one.proof] == [{}]
    assert resume(Root(made.root.base)) == [] and removal.find_left(tmp_path / "root", made, [uid]) == []


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("more/words.parquet", lambda data: data[:-20]),
        ("more/words.csv.gz", gzip.compress),
        ("more/words.bin", bz2.compress),
        ("more/words.zip", lambda data: _as_zip(data)),
        ("more/newer.zip", lambda data: _as_newer_zip(data)),
        ("more/vectors.npy", lambda data: data[:9]),
    ],
)
def test_of_what_cannot_be_decoded_nothing_is_proven(name: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    made.root.publish(name, pack(_as_table(made, sorted(made.images)[0])[1]))
    done = _forget(made.root, sorted(made.images)[0])
    assert done.proof is not None and not done.proof.holds
    assert done.proof.unread == (name,)
    made.root.remove(name)
    assert [one.proof.holds for one in resume(Root(made.root.base)) if one.proof] == [True]


def _as_zip(data: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("words", data)
    return sink.getvalue()


def _as_newer_zip(data: bytes) -> bytes:
    """A zip whose only member asks for version 9.9 of the format."""
    packed = _as_zip(data)
    place = packed.rindex(b"PK\x01\x02") + 6
    return packed[:place] + (99).to_bytes(2, "little") + packed[place + 2 :]


def test_a_removal_that_a_foreign_root_brings_deletes_nothing_outside_of_it(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    (tmp_path / "mine").mkdir()
    planned = plan(made.root, parse_requests(uids=[sorted(made.images)[0]]), reason="request", date=removal.DATE)
    assert planned is not None
    for change in ({"old_versions": ["../mine"]}, {"shards": {"../mine": "train/x.tar"}}, {"parts": ["../mine"]}):
        write_pending(made.root, PENDING_REMOVAL, replace(planned.pending, **change))  # type: ignore[arg-type]  # some
        with pytest.raises(UserError, match="lies outside of it"):
            resume(Root(made.root.base))
        assert (tmp_path / "mine").is_dir()


def _forget(root: Root, uid: str) -> Removal:
    done = forget(root, parse_requests(uids=[uid]), reason="request", date=removal.DATE)
    assert done is not None
    return done


def test_logs_in_which_something_stands_are_deleted(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    uid = sorted(made.images)[0]
    made.root.publish("logs/spark/trace.log", f"could not fetch {made.samples[uid]['url']}".encode())
    made.root.publish("logs/spark/other.log", b"could not fetch http://host1.test/")
    done = _forget(made.root, uid)
    assert done.proof is not None and done.proof.holds
    assert made.root.list("logs/spark") == ["other.log"]


def test_a_caption_that_a_row_which_stays_has_too_is_counted_and_not_found(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.create()
    made = small_root.build(root)
    one, other = sorted(made.samples)[:2]
    rows = [row for row in made.samples.values() if made.units[row["uid"]] == made.units[other]]
    same = [{**row, "caption": made.samples[one]["caption"]} if row["uid"] == other else row for row in rows]
    table = pa.Table.from_pylist(sorted(same, key=lambda row: row["uid"]), SAMPLES)
    root.publish_parquet(f"samples/{made.units[other]}.parquet", table)
    done = forget(root, parse_requests(uids=[one]), reason="request", date=removal.DATE)
    assert done is not None and done.proof is not None and done.proof.holds
    assert done.proof.num_shared["texts"] == (1 if made.samples[one]["caption"] else 0)
