"""Shards: tarfile and webdataset read them, offsets are right, the same samples give the same bytes."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from pathlib import Path

import pytest
import webdataset as wds
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.errors import UserError
from curation.shards import DISK_WRITE_BYTES, ShardWriter, file_sha256, header, index, read_member
from curation.storage import Root

SAMPLES = st.dictionaries(
    st.text("0123456789abcdef", min_size=32, max_size=32),
    st.fixed_dictionaries({"jpg": st.binary(max_size=1500), "txt": st.binary(max_size=20), "json": st.just(b"{}")}),
    max_size=6,
)


def write(path: Path, samples: dict[str, dict[str, bytes]]) -> ShardWriter:
    with ShardWriter(path) as writer:
        for key in sorted(samples):
            writer.add(key, samples[key])
    return writer


@settings(deadline=None, max_examples=40)
@given(SAMPLES)
def test_round_trip(samples: dict[str, dict[str, bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.tar")
        writer = write(path, samples)
        content = path.read_bytes()
        assert writer.sha256 == hashlib.sha256(content).hexdigest() and writer.num_bytes == len(content)
        assert len(content) % tarfile.RECORDSIZE == 0
        with tarfile.open(path) as archive:
            found = {i.name: archive.extractfile(i).read() for i in archive}  # type: ignore[union-attr]
        assert found == {f"{k}.{e}": data for k, files in samples.items() for e, data in files.items()}
        root = Root(folder)
        assert list(index(root, "a.tar")) == writer.members
        for member in writer.members:
            assert read_member(root, "a.tar", member.offset, member.size) == samples[member.key][member.extension]
        write(Path(folder, "b.tar"), samples)
        assert file_sha256(root, "b.tar") == writer.sha256


def test_webdataset_reads_it(tmp_path: Path) -> None:
    samples = {f"{i:032x}": {"jpg": bytes([i]) * i, "txt": f"caption {i}".encode()} for i in range(1, 20)}
    write(tmp_path / "a.tar", samples)
    found = list(wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    assert [s["__key__"] for s in found] == sorted(samples)
    assert all(s["jpg"] == samples[s["__key__"]]["jpg"] for s in found)


def test_a_shard_of_many_writes_is_whole(tmp_path: Path) -> None:
    samples = {f"{i:032x}": {"jpg": bytes([i % 251]) * (70_000 + i)} for i in range(300)}
    writer = write(tmp_path / "a.tar", samples)
    assert writer.num_bytes > 2 * DISK_WRITE_BYTES
    assert hashlib.sha256((tmp_path / "a.tar").read_bytes()).hexdigest() == writer.sha256
    for member in writer.members[::37]:
        found = read_member(Root(tmp_path), "a.tar", member.offset, member.size)
        assert found == samples[member.key]["jpg"]


def test_keys_must_rise(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keys of a shard must rise"), ShardWriter(tmp_path / "a.tar") as writer:
        writer.add("b", {"txt": b""})
        writer.add("a", {"txt": b""})


def test_header_is_what_tarfile_writes() -> None:
    info = tarfile.TarInfo("x.jpg")
    info.size = 8_000_000_000
    assert header("x.jpg", 8_000_000_000) == info.tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(ValueError):
        header("x" * 300, 1)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_torn_shard_is_named(tmp_path: Path, kept: float) -> None:
    write(tmp_path / "a.tar", {f"{i:032x}": {"jpg": b"x" * 5000} for i in range(8)})
    content = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "torn.tar").write_bytes(content[: int(45_000 * kept)])
    with pytest.raises(UserError, match="torn.tar is (truncated|not a readable tar)"):
        list(index(Root(tmp_path), "torn.tar"))
    with pytest.raises(UserError, match="truncated"):
        read_member(Root(tmp_path), "torn.tar", 44_000, 1000)
