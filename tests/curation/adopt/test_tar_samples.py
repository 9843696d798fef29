"""Samples of a tar: which members belong together, which one is the picture, which one the caption."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.adopt.tar_samples import read_content, read_record, sniff_pictures, split_name
from curation.errors import UserError
from curation.storage import Root
from tests.support.img2dataset_run import write_tar
from tests.support.small_root import picture


@pytest.mark.parametrize(
    ("name", "key", "extension"),
    [
        ("a.jpg", "a", "jpg"),
        ("s0.input.JPG", "s0", "input.jpg"),
        ("./part.1/22.05.jpg", "part.1/22", "05.jpg"),
        ("README", "README", ""),
        (".hidden.jpg", ".hidden.jpg", ""),
        ("part/._a.jpg", "part/._a.jpg", ""),
        ("line\nfeed.jpg", "line\nfeed", "jpg"),
    ],
)
def test_a_key_ends_at_the_first_dot_of_a_name(name: str, key: str, extension: str) -> None:
    assert split_name(name) == (key, extension)


@pytest.mark.parametrize(
    ("names", "caption"),
    [
        (["a.jpg", "a.txt"], "a.txt"),
        (["a.jpg", "a.caption"], "a.caption"),
        (["a.jpg", "a.text"], "a.text"),
        (["a.input.jpg", "a.outputs.txt"], "a.outputs.txt"),
        (["a.05.jpg", "a.04.txt", "a.05.txt", "a.txt"], "a.05.txt"),
        (["a.jpg", "a.long.txt", "a.txt"], "a.txt"),
        (["a.jpg", "a.cls"], None),
    ],
)
def test_the_text_that_is_called_as_the_picture_is_its_caption(
    tmp_path: Path, names: list[str], caption: str | None
) -> None:
    write_tar(tmp_path / "0.tar", {name: picture(1) if name.endswith("jpg") else name.encode() for name in names})
    root = Root(tmp_path)
    (sample,) = read_content(root, "0.tar").samples
    with root.open("0.tar") as f:
        (found,) = sniff_pictures(f, sample.files)
        assert read_record(f, sample.files, found).values["caption"] == caption


def test_a_picture_without_a_known_extension_is_known_by_its_bytes(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.img": picture(1), "a.txt": b"x", "b": picture(2), "c.bin": b"no picture"})
    root = Root(tmp_path)
    with root.open("0.tar") as f:
        found = [[m.name for m in sniff_pictures(f, one.files)] for one in read_content(root, "0.tar").samples]
    assert found == [["a.img"], ["b"], []]


def test_texts_of_more_than_a_megabyte_are_no_captions(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.jpg": picture(1), "a.txt": bytes(1_100_000), "a.caption": b"short"})
    root = Root(tmp_path)
    (sample,) = read_content(root, "0.tar").samples
    with root.open("0.tar") as f:
        assert read_record(f, sample.files, sample.files["jpg"]).values["caption"] == "short"


@pytest.mark.parametrize(
    ("data", "said"),
    [(b"", "is empty: copy it again"), (b"\x1f\x8b\x08" + bytes(600), "is gzip and no tar"), (b"no tar", "is damaged")],
)
def test_a_file_that_is_no_tar_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "0.tar").write_bytes(data)
    with pytest.raises(UserError, match=said):
        read_content(Root(tmp_path), "0.tar")


def test_a_tar_of_no_member_is_whole(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {})
    assert read_content(Root(tmp_path), "0.tar").num_members == 0
