"""Random folders: names, kinds and damage by chance; every file is a row, belongs to one, is a reject, or is named."""

from __future__ import annotations

import gzip
import io
import os
import re
import tempfile
from contextlib import redirect_stderr
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.adopt import adopt
from curation.errors import UserError
from curation.storage import Root
from curation.verify import verify
from tests.support.img2dataset_run import write_tar
from tests.support.small_root import picture

FOLDERS = ("", "a/", "a/b/", ".hidden/", "with space & #/", "ü/")
STEMS = ("x", "y.1", "_z", "ä", ".dot", "00000")
PICTURES = ("jpg", "PNG", "jpe", "img", "")
"""Extensions, the last two of which say nothing."""
TEXTS = ("txt", "json", "caption")
OTHERS = ("md", "npy", "csv")
REFUSED = (
    "zip",
    "tgz",
    "empty.tar",
    "junk.tar",
    "packed.tar",
    "none.parquet",
    "torn.parquet",
    "pipe.jpg",
    "broken.jpg",
)
NOTHING = "holds no tar, no picture and no parquet file with pictures"


def make_picture(seed: int) -> bytes:
    return (picture(seed % 7), picture(seed % 7)[:-80], b"no picture", b"")[seed % 11 % 4]


def make_text(seed: int) -> bytes:
    return (b"a caption", b"", b"caf\xe9", b'{"caption": "x"}', b'{"text": "\\ud83c"}', b"[" * 9000)[seed % 6]


def write_refused(path: Path, kind: str) -> None:
    """A file that cannot be adopted."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"n": [1, 2]}), sink)
    torn = sink.getvalue()[:-20]
    if kind == "pipe.jpg":
        os.mkfifo(path)
    elif kind == "broken.jpg":
        path.symlink_to(path.parent / "nothing")
    else:
        known = {
            "empty.tar": b"",
            "none.parquet": sink.getvalue(),
            "torn.parquet": torn,
            "gzip.tar": gzip.compress(b"x"),
        }
        path.write_bytes(known.get(kind, b"junk" * 300))


entry = st.tuples(
    st.sampled_from(FOLDERS),
    st.sampled_from(STEMS),
    st.one_of(
        st.sampled_from([("picture", one) for one in PICTURES]),
        st.sampled_from([("text", one) for one in (*TEXTS, "jpg.txt")]),
        st.sampled_from([("other", one) for one in OTHERS]),
        st.sampled_from([("tar", "tar"), ("table", "parquet")]),
        st.sampled_from([("refused", one) for one in REFUSED]),
    ),
    st.integers(0, 1000),
)


class Expected:
    """What is written, and what has to become of it: rows of tars and tables, refusals, and files by themselves."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows, self.num_refused = folder, 0, 0
        self.files: dict[str, bytes] = {}
        self.taken: set[str] = set()

    def add(self, where: str, stem: str, kind: tuple[str, str], seed: int) -> None:
        name = f"{where}{stem}.{kind[1]}" if kind[1] else f"{where}{stem}"
        if name in self.taken or f"{where}{stem}.tar" in self.taken and kind[0] == "table" or (
            kind[0] == "tar" and f"{where}{stem}.parquet" in self.taken
        ):  # fmt: skip
            return
        self.taken.add(name)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind[0] == "refused":
            write_refused(path, kind[1])
            self.num_refused += 1
        elif kind[0] == "tar":
            write_tar(path, {f"{n}.jpg": make_picture(seed + n) for n in range(1 + seed % 3)} | {"t.txt": b"x"})
            self.rows += 2 + seed % 3
        elif kind[0] == "table":
            pictures = pa.array([make_picture(seed + n) or None for n in range(1 + seed % 3)], pa.binary())
            pq.write_table(pa.table({"image": pictures}), path)
            self.rows += 1 + seed % 3
        else:
            self.files[name] = make_picture(seed) if kind[0] == "picture" else make_text(seed)
            path.write_bytes(self.files[name])

    def count_rows(self) -> tuple[int, int]:
        """Files that are pictures, and files that belong to none."""
        pictures = {name for name, data in self.files.items() if self._is_picture(name, data)}
        owners = pictures | {stem(name) for name in pictures}
        return len(pictures), sum(name not in pictures and stem(name) not in owners for name in self.files)

    def _is_picture(self, name: str, data: bytes) -> bool:
        extension = extension_of(name)
        if extension in ("jpg", "png", "jpe"):
            return True
        begins = data.startswith(b"\xff\xd8\xff") and extension not in TEXTS
        named = {stem(one) for one in self.files if extension_of(one) in ("jpg", "png", "jpe")}
        return begins and stem(name) not in named


def stem(name: str) -> str:
    folder, slash, base = name.rpartition("/")
    return f"{folder}{slash}{base.rpartition('.')[0] or base}"


def extension_of(name: str) -> str:
    head, _, extension = name.rpartition("/")[2].rpartition(".")
    return extension.lower() if head else ""


def run(root: Root, folder: Path) -> tuple[int, str]:
    """How many files were refused, and what was said."""
    said = io.StringIO()
    with redirect_stderr(said):
        try:
            adopt(root, [str(folder)])
        except UserError as error:
            found = re.match(r"([\d,]+) of ([\d,]+) files could not be adopted", str(error))
            return int(found[1]) if found else -1, f"{said.getvalue()}{error}"
    return 0, said.getvalue()


def count(root: Root, table: str) -> int:
    return sum(root.read_parquet(f"{table}/{unit}.parquet", ["uid"]).num_rows for unit in root.units(table))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(entry, max_size=12))
def test_every_file_of_any_folder_is_accounted_for(entries: list[tuple[str, str, tuple[str, str], int]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder, root = Path(scratch, "set").resolve(), Root(Path(scratch, "root"))
        folder.mkdir()
        expected = Expected(folder)
        for one in entries:
            expected.add(*one)
        refused, said = run(root, folder)
        pictures, others = expected.count_rows()
        if not expected.rows + pictures:
            assert not Path(root.path).exists()
            assert refused == expected.num_refused if expected.num_refused else NOTHING in said
            return
        assert refused == expected.num_refused, said
        assert count(root, "samples") + count(root, "rejects") == expected.rows + pictures + others, said
        assert verify(root) is None
        assert count(root, "downloads") == count(root, "samples")
        plans = root.list("plans")
        assert run(root, folder)[0] == refused and root.list("plans") == plans
