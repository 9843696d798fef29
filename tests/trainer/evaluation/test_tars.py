"""Benchmark sets in tars: which members make a sample, and that nothing is left out in silence."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from curation.errors import UserError
from tests.support import small_root
from trainer.evaluation import sources

PICTURE = small_root.picture(1)
Members = list[tuple[str, bytes]]


def write_set(folder: Path, members: Members, names: str = "cat\ndog\nbird\n") -> Path:
    """A set of one tar, which may hold a name twice."""
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_bytes(names.encode())
    with tarfile.open(folder / "test" / "0.tar", "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return folder


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\v"])
def test_a_class_number_is_a_line_number(separator: str, tmp_path: Path) -> None:
    members = [member for i in (0, 2, 1) for member in ((f"{i}.cls", str(i).encode()), (f"{i}.jpg", PICTURE))]
    found = sources.read_classes(write_set(tmp_path, members, f"a{separator}b\ndog\nbird\n"), ["{}"])
    assert [found.names[label] for label in found.labels] == [f"a{separator}b", "bird", "dog"]
    (tmp_path / "classnames.txt").write_text("cat\n\ndog\nbird\n")
    with pytest.raises(UserError, match="Line 2 of .* is blank, so class 1 has no name"):
        sources.read_classes(tmp_path, ["{}"])


@pytest.mark.parametrize(
    "members",
    [
        [("a.input.jpg", PICTURE), ("a.output.cls", b"1")],
        [("a.0.webp", PICTURE), ("a.cls", b"1\n")],
        [("a.CLS", b"1"), ("a.GIF", PICTURE)],
        [("a.cls", b"1"), ("a.jpg", PICTURE), ("._a.jpg", b"a Mac's"), ("a.json", b"{}")],
    ],
)
def test_a_sample_is_what_shares_a_key_up_to_the_first_point(members: Members, tmp_path: Path) -> None:
    found = sources.read_classes(write_set(tmp_path, members), ["{}"])
    assert (len(found.pictures), found.labels) == (1, (1,)) and found.pictures[0].data() == PICTURE


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([], "hold no picture with a .cls"),
        ([("a.cls", b"1")], "a.cls has no picture that is recognised"),
        ([("a.jpg", PICTURE), ("a.cls", b"1"), ("b.cls", b"1"), ("b.jxl", b"x")], "b.cls has no picture"),
        ([("a.jpg", PICTURE), ("a.cls", b"0"), ("a.jpg", PICTURE), ("a.cls", b"1")], "holds a.jpg twice"),
        ([("a.jpg", PICTURE), ("a.png", PICTURE), ("a.cls", b"0")], "holds a.jpg and a.png in one sample"),
        ([("a.jpg", PICTURE), ("a.cls", "²".encode())], "has class '²'"),
        ([("a.jpg", PICTURE), ("a.cls", b"1" * 5000)], "has class '1111"),
        ([("a.jpg", PICTURE), ("a.cls", b"")], "has class ''"),
        ([("a.jpg", PICTURE), ("a.cls", b"\xff")], "a.cls is not UTF-8"),
        ([("a.jpg", PICTURE), ("a.cls", bytes(1 << 21))], "a.cls has 2,097,152 bytes"),
    ],
)
def test_a_set_whose_samples_are_not_whole_is_one_sentence(members: Members, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        sources.read_classes(write_set(tmp_path, members), ["{}"])
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_captions_keep_separators_of_other_kinds_inside(tmp_path: Path) -> None:
    write_set(tmp_path, [("a.jpg", PICTURE), ("a.txt", "A kite\u2028over the sea\r\n\nA boy".encode())])
    (tmp_path / "dataset_type.txt").write_bytes(b"\xef\xbb\xbfRetrieval\r\n")
    assert sources.read_captions(tmp_path).texts == ("A kite\u2028over the sea", "A boy")


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [-512, 8 << 30, 8 << 60])
def test_a_tar_whose_header_lies_about_a_size_is_one_sentence(size: int, kind: bytes, tmp_path: Path) -> None:
    folder = write_set(tmp_path, [("a.jpg", PICTURE)])
    info = tarfile.TarInfo("b.cls")
    info.size, info.type = size, kind
    tar = folder / "test" / "0.tar"
    tar.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + tar.read_bytes())
    with pytest.raises(UserError, match="is no whole tar") as caught:
        sources.read_classes(folder, ["{}"])
    assert "\n" not in str(caught.value)


def test_a_tar_that_is_cut_between_two_samples_is_no_smaller_set(tmp_path: Path) -> None:
    folder = write_set(tmp_path, [("a.cls", b"0"), ("a.jpg", PICTURE), ("b.cls", b"1"), ("b.jpg", PICTURE)])
    tar = folder / "test" / "0.tar"
    with tarfile.open(tar) as archive:
        cut = archive.getmember("b.cls").offset
    tar.write_bytes(tar.read_bytes()[:cut])
    with pytest.raises(UserError, match="is no whole tar"):
        sources.read_classes(folder, ["{}"])
