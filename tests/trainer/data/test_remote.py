"""A whole root on a real S3 API: the same batches as from a folder, a cache with a cap, and answers of 503."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec.asyn
import pytest

from curation.errors import UserError
from curation.storage import Root
from tests.support import s3_proxy, s3_server
from tests.support.trainer import roots
from trainer.data import Cache, Loader, Shuffle, readers

NUM_ROWS = 96


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server.s3() as found:
        roots.packed(Root("s3://curation/run", **s3_server.options(found)), NUM_ROWS, rows_per_shard=12)
        yield found


@pytest.fixture
def remote(endpoint: str) -> Root:
    return Root("s3://curation/run", **s3_server.options(endpoint))


def _loader(root: Root, **options: Any) -> Loader:
    chosen: dict[str, Any] = {"batch_size": 8, "transform": None, "tokenizer": None, "seed": 4}
    return Loader(root, **(chosen | options))


def _epoch(loader: Loader) -> list[tuple[str, bytes, str]]:
    return [sample for batch in loader for sample in zip(batch["uid"], batch["pixels"], batch["tokens"], strict=True)]


def test_the_same_batches_as_from_a_folder(remote: Root, tmp_path: Path) -> None:
    local = Root(tmp_path / "root")
    roots.packed(local, NUM_ROWS, rows_per_shard=12)
    for options in ({}, {"where": "score % 9 = 2"}, {"num_workers": 1}, {"shuffle": Shuffle(run_rows=16)}):
        assert _epoch(_loader(remote, **options)) == _epoch(_loader(local, **options))
    sparse = _loader(remote, where="score % 9 = 2")
    _epoch(sparse)
    assert sparse.bytes_needed <= sparse.bytes_read <= 1.5 * sparse.bytes_needed


def test_the_cache_answers_the_second_epoch(remote: Root, tmp_path: Path) -> None:
    cache = Cache(folder=tmp_path / "cache", block_rows=8)
    loader = _loader(remote, cache=cache)
    first = _epoch(loader)
    read = loader.bytes_read
    assert read > 0
    second = _epoch(loader)
    assert loader.bytes_read == read and sorted(second) == sorted(first) and second != first
    # Another process of the node finds it too, and another selection does not mistake it for its own.
    assert _epoch(_loader(remote, cache=cache)) == first
    assert _epoch(_loader(remote, cache=cache, where="score >= 40")) == _epoch(_loader(remote, where="score >= 40"))


def _held(folder: Path) -> int:
    """Bytes of all blocks; one may be deleted by the thread that reads ahead while we look."""
    sizes = []
    for path in folder.rglob("*.block"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


def test_the_cache_keeps_to_its_cap(remote: Root, tmp_path: Path) -> None:
    cap = 40_000
    cache = Cache(folder=tmp_path / "cache", max_bytes=cap, block_rows=8)
    loader = _loader(remote, cache=cache)
    largest = 0
    for _ in range(2):
        for _batch in loader:
            largest = max(largest, _held(cache.folder))
    assert cap / 2 < largest <= cap
    assert loader.bytes_read > loader.bytes_needed / 2, "what does not fit is read again"
    assert not loader.replaced


def test_a_block_larger_than_the_cap_is_not_kept(remote: Root, tmp_path: Path) -> None:
    cache = Cache(folder=tmp_path / "cache", max_bytes=100, block_rows=8)
    assert _epoch(_loader(remote, cache=cache)) == _epoch(_loader(remote))
    assert not list(cache.folder.rglob("*.block"))


def _moody(moody: s3_proxy.Moody) -> Root:
    once = {"retries": {"total_max_attempts": 1}}
    options = s3_server.options(moody.endpoint, skip_instance_cache=True, config_kwargs=once)
    return Root("s3://curation/run", **options)


@pytest.fixture
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same attempts with shorter waits."""
    s3fs = pytest.importorskip("s3fs")
    monkeypatch.setattr(readers, "RETRY_WAIT_S", 0.01)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)


@pytest.mark.usefixtures("_hasty")
def test_a_passing_503_is_retried(endpoint: str, remote: Root) -> None:
    wanted = _epoch(_loader(remote))
    with s3_proxy.Moody(endpoint) as moody:
        loader = _loader(_moody(moody))
        moody.only, moody.fail_next = ".tar", 3
        assert _epoch(loader) == wanted
        assert moody.num_refused == 3 and not loader.replaced


@pytest.mark.usefixtures("_hasty")
def test_a_store_that_stays_down_is_a_named_error(endpoint: str) -> None:
    with s3_proxy.Moody(endpoint) as moody:
        loader = _loader(_moody(moody), max_failures=10)
        batches = iter(loader)
        next(batches)
        moody.only, moody.down = ".tar", True
        with pytest.raises(
            UserError,
            match=r"11 samples in a row cannot be read.*\(train/.*tar: .*(rate|Unavailable).*after \d attempts?",
        ):
            list(batches)
        assert moody.num_refused >= readers.REMOTE_ATTEMPTS


@pytest.mark.slow
@pytest.mark.usefixtures("_hasty")
def test_one_shard_that_cannot_be_had_is_replaced(endpoint: str, tmp_path: Path) -> None:
    with s3_proxy.Moody(endpoint) as moody:
        cache = Cache(folder=tmp_path / "cache", block_rows=8)
        loader = _loader(_moody(moody), cache=cache)
        moody.only, moody.down = f"{roots.VERSION}-000002.tar", True
        seen = _epoch(loader)
        assert len(seen) == NUM_ROWS and len(loader.replaced) == 12
        assert all("000002.tar" in reason for reason in loader.replaced.values())
        attempts = [reason.rpartition("(")[2] for reason in loader.replaced.values()]
        assert "after 4 attempts)" in attempts and "after 1 attempt)" in attempts
        moody.down = False
        assert not {uid for uid, *_ in seen} & set(loader.replaced)
        _epoch(loader)
        assert len(loader.replaced) == 12, "a failure is not cached: the next epoch has every sample"


def test_an_iterator_that_is_dropped_waits_for_nothing(endpoint: str) -> None:
    """The collector may run in the client's own thread, where waiting for a read would be waiting for itself."""
    with s3_proxy.Moody(endpoint) as moody:
        root = _moody(moody)
        loader = _loader(root)
        run = iter(loader)
        next(run)
        moody.only, moody.down = ".tar", True
        held = [run]

        async def drop() -> None:
            held.pop().close()

        del run
        fsspec.asyn.sync(root.fs.loop, drop, timeout=60)
        assert not held


def test_an_object_that_is_gone(remote: Root) -> None:
    other = Root("s3://curation/gone", **remote.storage_options)
    roots.packed(other, 24, rows_per_shard=12)
    loader = Loader(other, batch_size=8, transform=None, tokenizer=None)
    other.remove(f"train/{roots.VERSION}/{roots.VERSION}-000001.tar")
    assert len(_epoch(loader)) == 24
    assert len(loader.replaced) == 12 and all("no such object" in reason for reason in loader.replaced.values())
