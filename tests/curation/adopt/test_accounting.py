"""Every member, row and shard of an adopted folder becomes a row, a reject or a named refusal."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.adopt import adopt
from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.report import status_text
from curation.storage import Root
from curation.verify import verify
from tests.curation.adopt.test_adopt import rejected, rows, statuses
from tests.support.img2dataset_run import write_tar
from tests.support.small_root import picture


def members(*names: str, start: int = 0) -> dict[str, bytes]:
    return {n: picture(start + i) if not n.endswith("txt") else f"caption {n}".encode() for i, n in enumerate(names)}


def described(number: int, **columns: Any) -> pa.Table:
    """img2dataset's parquet of `number` successes, with further `columns`."""
    keys = [f"00000000{i}" for i in range(number)]
    known: dict[str, Any] = {
        "url": [f"http://e.example/{i}" for i in range(number)],
        "caption": ["x", "y", "z"][:number],
        "key": keys,
        "status": ["success"] * number,
        "error_message": pa.nulls(number, pa.string()),
    }
    return pa.table(known | columns)


def test_pictures_of_any_extension_are_rows(root: Root, tmp_path: Path) -> None:
    data = {"a.jpg": picture(1), "b.jpe": picture(2), "c.pjpeg": picture(3), "d.img": picture(4)}
    data |= {"e.jxl": b"\xff\x0a" + bytes(50), "f.svg": b"<svg/>", "g.heif": b"x", "h.txt": b"a caption alone"}
    write_tar(tmp_path / "set" / "00000.tar", data | {f"{n[0]}.txt": n.encode() for n in data if n != "h.txt"})
    adopt(root, [str(tmp_path / "set")])
    assert statuses(root) == {"ok": 4, "unsupported_format": 2, "not_an_image": 1}
    assert rejected(root) == {"no_picture": 1}


def test_one_name_twice_in_a_tar_is_two_samples(root: Root, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "00000.tar", "w") as archive:
        for name, data in [("a.jpg", picture(1)), ("a.txt", b"one"), ("a.jpg", picture(2)), ("a.txt", b"two")]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    adopt(root, [str(tmp_path)])
    found = {row["caption"]: row for row in rows(root).values()}
    assert set(found) == {"one", "two"} and found["one"]["offset"] < found["two"]["offset"]


def test_what_cannot_be_read_is_named_the_rest_goes_on_and_a_repaired_shard_comes_later(
    root: Root, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "set"
    write_tar(folder / "00000.tar", members("a.jpg", "a.txt"))
    write_tar(folder / "00001.tar", members("b.jpg", "b.txt", start=5))
    whole = (folder / "00001.tar").read_bytes()
    (folder / "00001.tar").write_bytes(gzip.compress(whole))
    (folder / "00002.tar").write_bytes(b"")
    pq.write_table(described(3), folder / "00003.parquet")
    (folder / "00004.tgz").write_bytes(b"")
    os.mkfifo(folder / "00005.tar")
    os.mkfifo(folder / "00000_stats.json")
    os.mkfifo(folder / "00000.parquet")
    (folder / "00006.tar").symlink_to(folder / "nothing")
    write_tar(tmp_path / "elsewhere.tar", members("c.jpg", "c.txt", start=9))
    (folder / "00007.tar").symlink_to(tmp_path / "elsewhere.tar")
    with pytest.raises(UserError, match="8 of 10 files could not be adopted and are named above"):
        adopt(root, [str(folder), f"{folder}/"])
    error = capsys.readouterr().err
    for said in ("00001.tar is gzip", "00002.tar is empty", "00003.parquet is there without", "00004.tgz is packed"):
        assert said in error
    assert "00005.tar is a pipe" in error and "00006.tar is a pipe" in error
    assert statuses(root) == {"ok": 2}
    (folder / "00001.tar").write_bytes(whole)
    with pytest.raises(UserError, match="7 of 10"):
        adopt(root, [str(folder)])
    assert statuses(root) == {"ok": 3}


def test_where_nothing_can_be_adopted_nothing_is_written(tmp_path: Path) -> None:
    root = Root(tmp_path / "out")
    (tmp_path / "00000.tar").write_bytes(b"no tar")
    with pytest.raises(UserError, match="1 of 1"):
        adopt(root, [str(tmp_path)])
    assert not Path(root.path).exists()


def test_the_caption_is_found_by_webdatasets_rule(root: Root, tmp_path: Path) -> None:
    lists = {"caption": ["one", "two"], "url": "http://e.example/5"}
    data = {"s0.input.jpg": picture(1), "s0.outputs.txt": b"a red bird", "22.05.jpg": picture(2), "22.05.txt": b"dot"}
    data |= {
        "s3.jpg": picture(3),
        "s3.caption": b"by caption",
        "s5.jpg": picture(4),
        "s5.json": json.dumps(lists).encode(),
    }
    write_tar(tmp_path / "00000.tar", data)
    adopt(root, [str(tmp_path)])
    assert {row["caption"] for row in rows(root).values()} == {"a red bird", "dot", "by caption", "one"}


def test_of_several_captions_all_are_kept(root: Root, tmp_path: Path) -> None:
    """From lists and texts of a tar, and from columns of a parquet file; shards with fewer have the same columns."""
    said = {"captions": ["a cat", "", "a grey cat"], "url": "http://e.example/cat"}
    write_tar(
        tmp_path / "00000.tar",
        {
            "s0.jpg": picture(0),
            "s0.json": json.dumps(said).encode(),
            "s0.txt": b"a cat",
            "s0.long.txt": b"a cat that is grey",
            "s1.jpg": picture(1),
            "s1.txt": b"alone",
        },
    )
    write_tar(tmp_path / "00001.tar", {"s2.jpg": picture(2), "s2.txt": b"a bird"})
    write_tar(tmp_path / "00002.tar", members("000000000.jpg"))
    pq.write_table(described(1, captions=[["a dog", "x", "my dog"]], caption_2=["the dog"]), tmp_path / "00002.parquet")
    adopt(root, [str(tmp_path)])
    found = Manifest(root).query("select caption, caption_2, caption_3, caption_4 from manifest order by caption")
    assert found.fetchall() == [
        ("a bird", None, None, None),
        ("a cat", "a grey cat", "a cat that is grey", None),
        ("alone", None, None, None),
        ("x", "a dog", "my dog", "the dog"),
    ]
    assert verify(root) is None


def test_text_that_is_no_text_is_a_reject_of_its_row_alone(root: Root, tmp_path: Path) -> None:
    data = {
        "s0.jpg": picture(0),
        "s0.json": b'{"caption": "a party \\ud83c"}',
        "s1.jpg": picture(1),
        "s1.txt": b"two dogs",
    }
    write_tar(tmp_path / "00000.tar", data | {"s2.jpg": picture(2), "s2.txt": b"caf\xe9"})
    adopt(root, [str(tmp_path)])
    assert [row["caption"] for row in rows(root).values()] == ["two dogs"]
    assert rejected(root) == {"not_text": 2}


@pytest.mark.parametrize(
    ("column", "known"),
    [
        (pa.array(np.float16([0.25] * 3)), 0.25),
        (pa.array([1] * 3, pa.duration("ns")), None),
        (pa.array([{"a": 1}] * 3), None),
        (pa.array([[1.0]] * 3), None),
    ],
)
def test_a_column_of_an_odd_type_is_no_obstacle(
    root: Root, tmp_path: Path, column: pa.Array, known: float | None
) -> None:
    write_tar(tmp_path / "00000.tar", members(*(f"00000000{i}.jpg" for i in range(3))))
    pq.write_table(described(3, similarity=column), tmp_path / "00000.parquet")
    adopt(root, [str(tmp_path)])
    assert statuses(root) == {"ok": 3}
    assert [row["clip_similarity"] for row in rows(root).values()] == [known] * 3


def test_captions_of_a_parquet_that_are_no_text_or_lists(root: Root, tmp_path: Path) -> None:
    write_tar(tmp_path / "a" / "00000.tar", members(*(f"00000000{i}.jpg" for i in range(3))))
    raw = pa.array([b"ok", b"caf\xe9", b"z"], pa.binary())
    broken = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(described(3, caption=broken), tmp_path / "a" / "00000.parquet")
    write_tar(tmp_path / "b" / "00000.tar", members("000000000.jpg"))
    lists = described(1, caption=[["", "a dog", "a brown dog"]], url=["http://e.example/list"])
    pq.write_table(lists, tmp_path / "b" / "00000.parquet")
    adopt(root, [str(tmp_path / "a"), str(tmp_path / "b")])
    assert {row["caption"] for row in rows(root).values()} == {"ok", "z", "a dog"}
    assert rejected(root) == {"not_text": 1}


def test_a_column_twice_refuses_the_shard_by_name(
    root: Root, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "00000.tar", members("000000000.jpg"))
    table = described(1)
    pq.write_table(table.append_column("url", table["url"]), tmp_path / "00000.parquet")
    with pytest.raises(UserError, match="1 of 1"):
        adopt(root, [str(tmp_path)])
    assert "has 2 columns for url" in capsys.readouterr().err


@pytest.mark.parametrize("count", [10**9, -5, True, 10**30])
def test_a_count_that_no_shard_has_is_not_believed(
    root: Root, tmp_path: Path, count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "00000.tar", members("a.jpg"))
    (tmp_path / "00000_stats.json").write_text(json.dumps({"count": count}))
    adopt(root, [str(tmp_path)])
    assert rejected(root) == {} and "it is not believed" in capsys.readouterr().err


def test_members_that_the_parquet_does_not_name_are_rows_too(root: Root, tmp_path: Path) -> None:
    write_tar(tmp_path / "00000.tar", members("000000000.jpg", "extra.jpg", "extra.txt", "alone.txt"))
    pq.write_table(described(1), tmp_path / "00000.parquet")
    (tmp_path / "00000_stats.json").write_text('{"count": 1}')
    adopt(root, [str(tmp_path)])
    assert {row["caption"] for row in rows(root).values()} == {"x", "caption extra.txt"}
    assert rejected(root) == {"no_picture": 1}


def test_verify_counts_the_members_of_adopted_tars_again(root: Root, tmp_path: Path) -> None:
    write_tar(tmp_path / "set" / "00000.tar", members("a.jpg", "a.txt"))
    adopt(root, [str(tmp_path / "set")])
    assert verify(root) is None
    with tarfile.open(tmp_path / "set" / "00000.tar", "a") as archive:
        archive.addfile(tarfile.TarInfo("b.txt"))
    assert "00000.tar has 3 members; 2 were accounted for" in (verify(root) or "")


def test_a_hard_link_is_a_row_with_the_bytes_it_links_to(root: Root, tmp_path: Path) -> None:
    write_tar(tmp_path / "set" / "00000.tar", members("a.jpg", "a.txt", "b.txt"))
    with tarfile.open(tmp_path / "set" / "00000.tar", "a") as archive:
        link = tarfile.TarInfo("b.jpg")
        link.type, link.linkname = tarfile.LNKTYPE, "a.jpg"
        archive.addfile(link)
    adopt(root, [str(tmp_path / "set")])
    found = {row["caption"]: row for row in rows(root).values()}
    assert set(found) == {"caption a.txt", "caption b.txt"} and statuses(root) == {"ok": 2}
    assert len({(row["offset"], row["stored_sha256"]) for row in found.values()}) == 1


def test_pictures_without_a_caption_are_counted_aloud(
    root: Root, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tar(tmp_path / "set" / "00000.tar", members("a.jpg", "a.txt", "b.jpg", "c.jpg"))
    adopt(root, [str(tmp_path / "set")])
    assert "2 of 3 rows have no caption" in capsys.readouterr().err
    assert "2 without a caption" in status_text(root)


def test_random_tars_are_accounted_for_to_the_last_member(tmp_path: Path) -> None:
    """Names, kinds and damage by chance: members = rows + rejects, or the shard is refused by name."""
    for seed in range(25):
        rng = random.Random(seed)
        folder, root = tmp_path / f"set{seed}", Root(tmp_path / f"root{seed}")
        expected = [_write_random_tar(rng, folder / f"0000{i}.tar") for i in range(rng.randrange(1, 4))]
        refused = expected.count(None)
        if refused:
            with pytest.raises(UserError, match=f"{refused} of {len(expected)} files"):
                adopt(root, [str(folder)])
        else:
            adopt(root, [str(folder)])
        wanted = sum(one for one in expected if one is not None)
        if refused == len(expected):
            assert not Path(root.path).exists()
            continue
        assert verify(root) is None
        counted = Manifest(root).query("select count(*) from samples").fetchall()[0][0] if root.units("samples") else 0
        assert counted + sum(rejected(root).values()) == wanted, seed


KINDS = ("jpg", "jpeg", "png", "img", "mask.png", "txt", "json", "caption", "npy", "", "a.jpg")


def _write_random_tar(rng: random.Random, path: Path) -> int | None:
    """Write a tar; the number of rows that it makes, None when it is to be refused."""
    path.parent.mkdir(exist_ok=True)
    samples: list[tuple[str, dict[str, bytes]]] = []
    with tarfile.open(path, "w", format=rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))) as archive:
        for number in range(rng.randrange(1, 8)):
            key = rng.choice([f"k{number}", f"d.x/k{number}", f"ü{number}", f"{'long' * 40}{number}"])
            files = {kind: _content(rng, kind) for kind in rng.sample(KINDS, rng.randrange(1, 4))}
            samples.append((key, files))
            for kind, data in files.items():
                info = tarfile.TarInfo(f"{key}.{kind}" if kind else key)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    if rng.random() < 0.2:
        path.write_bytes(rng.choice([b"", b"junk" * 300, gzip.compress(path.read_bytes())]))
        return None
    return sum(_count_rows(files) for _, files in samples)


def _count_rows(files: dict[str, bytes]) -> int:
    """A row for each picture of a sample, and one for a sample without."""
    return max(1, Counter(kind.rpartition(".")[2] in ("jpg", "jpeg", "png") for kind in files)[True])


def _content(rng: random.Random, kind: str) -> bytes:
    if kind.rpartition(".")[2] in ("jpg", "jpeg", "png", "img"):
        return picture(rng.randrange(50)) if rng.random() < 0.8 else rng.randbytes(rng.randrange(100))
    return rng.choice([b"", b"a caption", b"\xff\xfe", b'{"caption": "\\ud83c"}', b"[" * 9999, b'{"url": null}'])
