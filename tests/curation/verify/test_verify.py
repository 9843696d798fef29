"""Verify: a sound root passes at every stage, and each single fault is found and named."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation import schema
from curation.errors import UserError
from curation.storage import Root, parquet_bytes
from curation.verify import find_differences, verify
from tests.support import small_root
from tests.support.small_root import BATCH, UNITS, VERSION, SmallRoot


@pytest.fixture
def made(root: Root) -> SmallRoot:
    """A root with every stage behind it."""
    return small_root.finish(root)


def _path(made: SmallRoot, rel: str) -> Path:
    return Path(made.root.full(rel))


def _edit(made: SmallRoot, rel: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Rewrite parquet file `rel` after `change` has edited its list of rows in place."""
    path = _path(made, rel)
    table = pq.ParquetFile(path).read()
    rows = table.to_pylist()
    change(rows)
    path.write_bytes(parquet_bytes(pa.Table.from_pylist(rows, table.schema)))


def _set(index: int, **values: Any) -> Callable[[list[dict[str, Any]]], object]:
    return lambda rows: rows[index].update(values)


def _first_ok(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return next(row for row in rows if row["status"] == "ok")


def _ok(**values: Any) -> Callable[[list[dict[str, Any]]], object]:
    return lambda rows: _first_ok(rows).update(values)


def _flip(made: SmallRoot, rel: str, offset: int) -> None:
    path = _path(made, rel)
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_a_sound_root_passes(made: SmallRoot) -> None:
    assert list(find_differences(made.root)) == []


@pytest.mark.parametrize("stages", [0, 1, 2])
def test_stages_that_have_not_begun_are_skipped(root: Root, stages: int) -> None:
    made = small_root.build(root)
    if stages == 0:
        root.remove("downloads")
        root.remove("raw")
    if stages == 2:
        small_root.select(made)
    assert verify(root) is None


def test_a_folder_that_is_no_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no root"):
        verify(Root(tmp_path))


def test_every_byte_of_every_stored_picture_counts(made: SmallRoot) -> None:
    """One flipped bit at the first, a middle and the last byte of pictures, in raw and in train shards."""
    raw = _first_ok(pq.ParquetFile(_path(made, f"downloads/{UNITS[1]}.parquet")).read().to_pylist())
    packed = pq.ParquetFile(_path(made, f"train_index/{VERSION}/part-00000.parquet")).read().to_pylist()[-1]
    for row in (raw, packed):
        for position in (0, row["size"] // 2, row["size"] - 1):
            _flip(made, row["shard"], row["offset"] + position)
            found = verify(made.root)
            assert found is not None and row["shard"] in found and row["uid"] in found and "sha256" in found
            _flip(made, row["shard"], row["offset"] + position)
    assert verify(made.root) is None


def test_bytes_between_the_members_count_where_the_name_holds_the_hash(made: SmallRoot) -> None:
    (shard, *_) = [f"raw/{name}" for name in made.root.list("raw", ".tar")]
    _flip(made, shard, _path(made, shard).stat().st_size - 1)
    assert "is named by sha256" in (verify(made.root) or "")


def test_a_train_shard_without_its_padding_is_not_the_one_that_was_packed(made: SmallRoot) -> None:
    folder = f"train/{VERSION}"
    shards = {name: made.root.read_bytes(f"{folder}/{name}") for name in made.root.list(folder, ".tar")}
    summary = {name: {"sha256": hashlib.sha256(data).hexdigest()} for name, data in shards.items()}
    made.root.publish_json(f"{folder}/summary.json", {"shards": summary})
    assert verify(made.root) is None
    rel, whole = f"{folder}/{min(shards)}", shards[min(shards)]
    assert whole.endswith(bytes(1024))
    _path(made, rel).write_bytes(whole[:-1024])
    assert "as a whole, summary.json says" in (verify(made.root) or "")


def test_captions_in_train_shards_count(made: SmallRoot) -> None:
    row = pq.ParquetFile(_path(made, f"train_index/{VERSION}/part-00000.parquet")).read().to_pylist()[0]
    _flip(made, row["shard"], row["txt_offset"])
    assert row["uid"] in (verify(made.root) or "")


SAMPLES, DOWNLOADS = f"samples/{UNITS[0]}.parquet", f"downloads/{UNITS[0]}.parquet"
SELECTION, INDEX = f"selection/{VERSION}/{UNITS[0]}.parquet", f"train_index/{VERSION}/part-00000.parquet"
DUPLICATES, SCORES = f"duplicates/{VERSION}/part-00000.parquet", f"scores_caption_length/{UNITS[0]}.parquet"
EMBEDDED = f"embeddings/metadata/metadata_{UNITS[0]}.parquet"


@pytest.mark.parametrize(
    ("rel", "change", "sentence"),
    [
        (SAMPLES, lambda rows: rows.pop(), "has 19 rows, the plan says 20"),
        (SAMPLES, _set(0, caption="another"), "is not the md5 of its url and caption"),
        (f"rejects/{UNITS[0]}.parquet", lambda rows: rows.pop(), "rows with where, the plan says 1"),
        (f"rejects/{UNITS[0]}.parquet", _set(0, reason="bored"), "rows with no_url, the plan says 1"),
        (DOWNLOADS, lambda rows: rows.pop(), "of samples is missing"),
        (DOWNLOADS, lambda rows: rows.append(rows[0]), "is there 2 times"),
        (DOWNLOADS, _set(3, uid="f" * 32), "is not in samples"),
        (DOWNLOADS, _ok(status="fine"), "unknown status 'fine'"),
        (DOWNLOADS, _ok(status="timeout"), "is timeout and has a sha256"),
        (DOWNLOADS, _ok(size=None), "is ok and has no size"),
        (DOWNLOADS, lambda rows: _first_ok(rows).update(offset=_first_ok(rows)["offset"] + 512), "no tar header"),
        (DOWNLOADS, lambda rows: _first_ok(rows).update(size=_first_ok(rows)["size"] - 1), "the table says"),
        (DOWNLOADS, _ok(offset=10**9), "the shard ends after 0"),
        (DOWNLOADS, _ok(offset=0), "no tar header stands before it"),
        (DOWNLOADS, _ok(stored_sha256="0" * 64), "the table says 0000000000000000"),
        (DOWNLOADS, _ok(shard="raw/elsewhere.tar"), "raw/elsewhere.tar is not there"),
        (SCORES, lambda rows: rows.pop(), "of the downloads that are ok is missing"),
        (SCORES, lambda rows: rows.append(rows[0]), "is there 2 times"),
        (EMBEDDED, lambda rows: rows.pop(), "has 16 rows, its metadata 15"),
        (EMBEDDED, _set(0, uid="e" * 32), "is not in the downloads that are ok"),
        (DUPLICATES, lambda rows: rows.append(rows[0]), "is 2 times in duplicates"),
        (DUPLICATES, lambda rows: rows[0].update(kept_uid=rows[0]["uid"]), "which is not kept itself"),
        (DUPLICATES, _set(0, kept_uid="0" * 32), "which is not kept itself"),
        (DUPLICATES, _set(0, uid="0" * 32), "whose picture never came"),
        (SELECTION, lambda rows: rows.pop(), "is missing from selection"),
        (SELECTION, lambda rows: rows.append(rows[0]), "is 2 times in selection"),
        (SELECTION, lambda rows: rows.append({"uid": "0" * 32, "kept": True, "reason": None}), "is not in samples"),
        (SELECTION, lambda rows: next(r for r in rows if r["reason"]).update(kept=True), "has kept = True with reason"),
        (SELECTION, lambda rows: next(r for r in rows if r["reason"] == "wide").update(kept=True, reason=None), "pack"),
        (
            SELECTION,
            lambda rows: next(r for r in rows if r["reason"] != "wide" and r["reason"]).update(reason="wide"),
            "but the download ended as",
        ),
        (INDEX, lambda rows: rows.pop(), "missing from train_index"),
        (INDEX, lambda rows: rows.append(rows[0]), "is 2 times in train_index"),
        (INDEX, _set(0, sha256="0" * 64), "has another sha256 than its picture"),
        (INDEX, _set(0, txt_offset=512 * 400), "row"),
        (INDEX, lambda rows: rows[0].update(json_offset=rows[0]["txt_offset"], json_size=rows[0]["txt_size"]), "row"),
        (INDEX, lambda rows: rows[0].update(json_size=rows[0]["json_size"] - 1), "bytes, the table says"),
        (INDEX, lambda rows: rows[0].update(shard=rows[-1]["shard"]), "sizes.json counts 8"),
    ],
)
def test_one_wrong_row_is_found(
    made: SmallRoot, rel: str, change: Callable[[list[dict[str, Any]]], object], sentence: str
) -> None:
    _edit(made, rel, change)
    found = verify(made.root)
    assert found is not None and sentence in found and "\n" not in found and found.endswith(".")


def test_swapped_pictures_are_found(made: SmallRoot) -> None:
    """Both places hold whole pictures under the right checksum; only their owners are exchanged."""

    def swap(rows: list[dict[str, Any]]) -> None:
        one, other = [row for row in rows if row["status"] == "ok"][:2]
        for name in ("offset", "size", "stored_sha256"):
            one[name], other[name] = other[name], one[name]

    _edit(made, DOWNLOADS, swap)
    assert "the member there is called" in (verify(made.root) or "")


@pytest.mark.parametrize(
    ("rel", "sentence"),
    [
        (SAMPLES, "is planned and not there"),
        (DOWNLOADS, "is missing, though other units are downloaded"),
        (f"train/{VERSION}/sizes.json", "sizes.json is missing"),
        (f"train/{VERSION}/{VERSION}-000000.tar", "is not there"),
        ("train/current.json", "One of train/current.json and train_index/current.json"),
    ],
)
def test_one_missing_file_is_found(made: SmallRoot, rel: str, sentence: str) -> None:
    _path(made, rel).unlink()
    assert sentence in (verify(made.root) or "")


def test_a_shard_with_one_sample_too_many_is_found(made: SmallRoot) -> None:
    rel = f"train/{VERSION}/{VERSION}-000000.tar"
    data, _ = small_root.tar({"zzz.jpg": small_root.picture(1)})
    path = _path(made, rel)
    whole = path.read_bytes().rstrip(b"\0")
    path.write_bytes(whole + bytes(-len(whole) % 512) + data)
    assert "has the member zzz.jpg, which train_index does not name" in (verify(made.root) or "")


def test_wrong_counts_in_the_plan_are_found(made: SmallRoot) -> None:
    rel = f"plans/{BATCH}.json"
    plan = made.root.read_json(rel)
    plan["inputs"][0]["num_rows"] += 1
    made.root.publish_json(rel, plan)
    assert "read 43 rows of metadata and accounts for 42" in (verify(made.root) or "")


def test_a_uid_in_two_units_is_found(made: SmallRoot) -> None:
    """Each unit alone is sound."""
    row = pq.ParquetFile(_path(made, SAMPLES)).read().to_pylist()[0]
    _edit(made, f"samples/{UNITS[1]}.parquet", lambda rows: rows.__setitem__(0, row))
    assert any(f"uid {row['uid']} is 2 times in samples" in found for found in find_differences(made.root))


def test_a_shard_that_no_row_names_does_not_exist(made: SmallRoot) -> None:
    """What a killed attempt leaves behind is no fault."""
    made.root.publish(f"raw/{UNITS[0]}-{'0' * 16}.tar", b"torn")
    made.root.publish(f"train/{VERSION}/.tmp-x-{VERSION}-000009.tar", b"torn")
    assert verify(made.root) is None


def test_members_of_adopted_shards_keep_their_names(made: SmallRoot) -> None:
    """A shard outside raw/ may call its members as it likes and need not be named by its hash."""
    unit = UNITS[0]
    rows = [row for uid, row in sorted(made.downloads.items()) if row["status"] == "ok" and made.units[uid] == unit]
    data, places = small_root.tar({f"{i:09d}.jpg": made.images[row["uid"]] for i, row in enumerate(rows)})
    made.root.publish("adopted/00000.tar", data)
    for i, row in enumerate(rows):
        row |= {"shard": "adopted/00000.tar", "offset": places[f"{i:09d}.jpg"][0]}
        assert hashlib.sha256(data[row["offset"] : row["offset"] + row["size"]]).hexdigest() == row["stored_sha256"]
    small_root.write_downloads(made, unit)
    assert verify(made.root) is None


def test_statuses_of_the_schema_are_the_known_ones(made: SmallRoot) -> None:
    lost = next(row for row in made.downloads.values() if row["status"] != "ok")
    for status in schema.Status:
        if status != schema.Status.OK:
            made.downloads[lost["uid"]] = {**lost, "status": status.value}
            small_root.write_downloads(made, made.units[lost["uid"]])
            made.root.remove("selection")
            made.root.remove("train")
            made.root.remove("train_index")
            assert verify(made.root) is None
