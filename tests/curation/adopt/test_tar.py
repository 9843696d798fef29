"""Reading the headers of tars that anybody may have written: whatever they say, memory and time are bounded."""

from __future__ import annotations

import io
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from curation.adopt.tar import DamagedTarError, Entry, recognise_compression, walk

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def tar(members: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def member(name: str, size_field: bytes, kind: bytes = b"0", data: bytes = b"") -> bytes:
    """A member whose size is said by the 12 bytes of `size_field`, with a right checksum."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157], block[148:156] = size_field, kind, b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data + bytes(-len(data) % 512)


def octal(size: int) -> bytes:
    return b"%011o\0" % size


def base256(size: int) -> bytes:
    return size.to_bytes(12, "big", signed=True) if size < 0 else b"\x80" + size.to_bytes(11, "big")


def pax(record: bytes) -> bytes:
    return member("pax", octal(len(record)), b"x", record)


def entries(data: bytes) -> tuple[list[Entry], str]:
    found = list[Entry]()
    try:
        for entry in walk(io.BytesIO(data), len(data)):
            found.append(entry)
    except DamagedTarError as error:
        return found, str(error)
    return found, ""


@pytest.mark.parametrize("form", FORMATS)
def test_members_are_where_tarfile_finds_them(form: int) -> None:
    rng = random.Random(form)
    names = ["a.jpg", "deep/" * 15 + "b.txt", "ü" * 40 + ".png", "n" * 99 + "/" + "m" * 90 + ".jpg"]
    names += ["long" * 60 + ".json"] if form != tarfile.USTAR_FORMAT else []
    data = tar({name: rng.randbytes(rng.randrange(2000)) for name in names}, form)
    found, damage = entries(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [(info.name, info.offset_data, info.size) for info in archive]
    assert [entry.member for entry in found] == expected and damage == ""


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (member("a", base256(-1024)), "has the size -1024"),
        (member("a", base256(2**63)), "of 9,223,372,036,854,775,808 bytes is cut off"),
        (member("a", base256(2**80)), "is cut off"),
        (member("a", b"notoctal!!!\0"), "has the size unreadable"),
        (pax(b"-1024 size=5\n"), "unreadable extended header"),
        (pax(b"0 size=5\n"), "unreadable extended header"),
        (pax(b"999999 size=5\n"), "unreadable extended header"),
        (pax(b"16 size=-100000\n"), "size that is no number"),
        (pax(b"13 nothing 1\n"), "unreadable extended header"),
        (member("pax", octal(8_000_000_000), b"x"), "extended header of 8,000,000,000 bytes"),
        (member("name", octal(2 << 20), b"L", bytes(2 << 20)), "extended header of 2,097,152 bytes"),
        (b"x" * 512, "no tar header at byte"),
    ],
)
def test_headers_that_cannot_be_end_the_reading_and_keep_what_was_before(bad: bytes, said: str) -> None:
    whole = tar({"good.jpg": b"kept"})[:1024]
    found, damage = entries(whole + bad + tar({"behind.jpg": b"lost"}))
    assert [entry.name for entry in found] == ["good.jpg"]
    assert said in damage and "at byte" in damage


def test_a_header_that_is_cut_off_is_a_damage() -> None:
    found, damage = entries(tar({"good.jpg": b"kept"})[:1124] + b"x")
    assert [entry.name for entry in found] == ["good.jpg"] and "a header is cut off at byte 1,024" in damage


def test_a_sparse_member_has_no_bytes_in_one_piece(tmp_path: Path) -> None:
    sparse = member("hole.jpg", octal(512), b"S", b"d" * 512)
    by_pax = pax(b"22 GNU.sparse.major=1\n") + member("hole2.jpg", octal(512), data=b"d" * 512)
    found, damage = entries(sparse + by_pax + tar({"good.jpg": b"kept"}))
    assert [(entry.name, entry.member is None) for entry in found] == [
        ("hole.jpg", True), ("hole2.jpg", True), ("good.jpg", False),
    ]  # fmt: skip
    assert damage == ""
    large = tmp_path / "large.tar"
    large.write_bytes(member("a", octal(8_000_000_000), b"L"))
    os.truncate(large, 8_000_001_024)
    with open(large, "rb") as f, pytest.raises(DamagedTarError, match="extended header of 8,000,000,000 bytes"):
        list(walk(f, 8_000_001_024))


def test_a_hard_link_has_the_bytes_that_it_links_to_and_other_links_have_none() -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, kind, target in [
            ("a.jpg", tarfile.REGTYPE, ""),
            ("b.jpg", tarfile.LNKTYPE, "a.jpg"),
            ("c.jpg", tarfile.LNKTYPE, "nothing.jpg"),
            ("d.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("e.jpg", tarfile.FIFOTYPE, ""),
            ("f", tarfile.DIRTYPE, ""),
        ]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = 5 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"bytes"))
    found, damage = entries(sink.getvalue())
    assert [(entry.name, entry.member and entry.member[1:]) for entry in found] == [
        ("a.jpg", (512, 5)), ("b.jpg", (512, 5)), ("c.jpg", None), ("d.jpg", None), ("e.jpg", None),
    ]  # fmt: skip
    assert damage == ""


def test_an_archive_behind_another_one_is_read_too() -> None:
    data = tar({"a.jpg": b"1"}) + tar({"b.jpg": b"2"}) + bytes(20_000)
    assert [entry.name for entry in entries(data)[0]] == ["a.jpg", "b.jpg"] and entries(data)[1] == ""


@pytest.mark.parametrize("harm", [lambda r, d: d[: r.randrange(len(d))], lambda r, d: _flip(r, d)])
def test_damaged_tars_end_in_a_sentence_and_list_only_what_is_inside(
    harm: Callable[[random.Random, bytes], bytes],
) -> None:
    rng = random.Random(7)
    for _ in range(300):
        names = [f"{i}.{rng.choice(['jpg', 'txt', 'json'])}" for i in range(rng.randrange(1, 6))]
        data = tar({name: rng.randbytes(rng.randrange(1500)) for name in names}, rng.choice(FORMATS))
        found, _ = entries(harm(rng, data))
        assert all(
            e.member is None or 0 <= e.member.offset <= e.member.offset + e.member.size <= len(data) for e in found
        )


def _flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize(
    ("start", "name"), [(b"\x1f\x8b\x08", "gzip"), (b"PK\x03\x04", "zip"), (b"BZh9", "bzip2"), (b"hello", None)]
)
def test_packed_files_are_called_by_their_name(start: bytes, name: str | None) -> None:
    assert recognise_compression(start) == name
