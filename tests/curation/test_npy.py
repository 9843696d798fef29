import io
from pathlib import Path

import numpy as np
import pytest

from curation.errors import UserError
from curation.npy import read_vectors_shape
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
