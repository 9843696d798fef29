import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from curation.errors import UserError
from curation.npy import read_array, read_arrays, read_vectors_shape
from curation.storage import Root


def npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_the_header_is_read(tmp_path: Path, kind: type) -> None:
    (tmp_path / "a.npy").write_bytes(npy(np.asfortranarray(np.ones((3, 4), kind))))
    (tmp_path / "none.npy").write_bytes(npy(np.ones((0, 4), kind)))
    assert read_vectors_shape(Root(tmp_path), "a.npy", "x") == (3, 4)
    assert read_vectors_shape(Root(tmp_path), "none.npy", "x") == (0, 4)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "is missing"),
        (b"", "is no .npy file"),
        (b"hello", "is no .npy file"),
        (npy(np.ones((2, 3)))[:50], "is no .npy file"),
        (npy(np.ones((2, 3)))[:-1], "is truncated, 175 of 176 bytes"),
        (npy(np.ones((2, 3)))[:128], "is truncated, 128 of 176 bytes"),
        (npy(np.ones(3)), "float64 of shape"),
        (npy(np.ones((2, 3), int)), "int64 of shape"),
        (npy(np.ones((2, 0))), "not one floating-point vector a row"),
        (npy(np.array([["a", "b"]])), "not one floating-point vector a row"),
    ],
)
def test_what_holds_no_vectors_is_refused(tmp_path: Path, data: bytes | None, words: str) -> None:
    if data is not None:
        (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(UserError, match=rf"^{tmp_path}/a.npy .*{words}.*: make it again\.$"):
        read_vectors_shape(Root(tmp_path), "a.npy", "make it again")


def header(text: str) -> bytes:
    """A file of version 1 with this header and no elements."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin-1")


def described(shape: str, kind: str = "'<f4'") -> bytes:
    return header(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}\n")


HOSTILE = {
    "deep brackets": header("(" * 3_000),
    "deep type": header("{'descr':" + "[" * 2_000 + "}"),
    "a negative length": described("(-1, 4)"),
    "more than memory": described("(10000000000000, 4)"),
    "more than an index": described(f"({'9' * 400}, 4)"),
    "more digits than Python reads": described(f"({'9' * 5_000}, 4)"),
    "objects": described("(1, 4)", "'|O'"),
    "a zip": b"PK\x03\x04" + bytes(40),
    "a pickle": b"\x80\x04N.",
    "nothing": b"",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_header_is_a_short_reason(what: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(HOSTILE[what])
    with pytest.raises(ValueError) as caught:
        read_array(tmp_path / "a.npy")
    assert 0 < len(str(caught.value)) < 300 and "\n" not in str(caught.value)
    with pytest.raises(UserError):
        read_vectors_shape(Root(tmp_path), "a.npy", "make it again")
    np.savez(tmp_path / "b.npz", ones=np.ones(1))
    with zipfile.ZipFile(tmp_path / "b.npz", "a") as archive:
        archive.writestr("a.npy", HOSTILE[what])
    with pytest.raises(ValueError):
        read_arrays(tmp_path / "b.npz", 1 << 20)


def test_arrays_come_back_as_they_were_saved(tmp_path: Path) -> None:
    wanted = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(["x", "yz"]), "c": np.ones((0, 4), np.float16)}
    np.savez_compressed(tmp_path / "all.npz", **wanted)
    found = read_arrays(tmp_path / "all.npz", 1 << 20)
    assert found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)
    np.save(tmp_path / "a.npy", np.asfortranarray(wanted["a"]))
    assert np.array_equal(read_array(tmp_path / "a.npy"), wanted["a"])


def test_a_small_file_that_unpacks_to_much_is_not_unpacked(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "all.npz", zeros=np.zeros(1 << 20))
    with pytest.raises(ValueError, match="more than 1,048,576 bytes"):
        read_arrays(tmp_path / "all.npz", 1 << 20)


@pytest.mark.parametrize("place", [0, 60, -30, -10])
def test_a_damaged_archive_is_a_short_reason(place: int, tmp_path: Path) -> None:
    np.savez(tmp_path / "all.npz", ones=np.ones(40))
    data = bytearray((tmp_path / "all.npz").read_bytes())
    data[place : place + 4] = b"\xff" * 4
    (tmp_path / "all.npz").write_bytes(data)
    with pytest.raises((ValueError, OSError)) as caught:
        read_arrays(tmp_path / "all.npz", 1 << 20)
    assert "\n" not in str(caught.value)
