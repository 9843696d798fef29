"""A store that fails while files are put, read and deleted: they are in the end what they are on a disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from curation import root_lock
from curation.manifest.manifest import Manifest
from curation.storage import Root
from curation.verify import verify
from tests.support import s3_server, small_root
from tests.support.s3_proxy import Moody, Proxy, Shaky

PART_BYTES = 6 << 20
SEED = 20261128
GLOB = "a[b]*?"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server.s3() as url:
        yield url


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same attempts with shorter waits, and uploads in parts of files that are not large."""
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    monkeypatch.setattr("curation.object_store.WAIT_S", 0.01)
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *_, **__: PART_BYTES)


def behind(proxy: Proxy, name: str = "run") -> Root:
    return Root(f"s3://curation/{name}", **s3_server.options(proxy.endpoint, skip_instance_cache=True))


def make_parts(tmp_path: Path) -> tuple[Path, bytes]:
    """A file that is sent in three parts."""
    data = bytes(range(256)) * (PART_BYTES // 256) * 2 + b"end"
    made = tmp_path / "made"
    made.write_bytes(data)
    return made, data


@pytest.mark.parametrize("was_there", [False, True])
def test_an_upload_whose_completion_was_not_heard_of_is_whole(endpoint: str, tmp_path: Path, was_there: bool) -> None:
    made, data = make_parts(tmp_path)
    with Moody(endpoint) as moody:
        root = behind(moody, f"parts-{was_there}")
        if was_there:
            root.publish("raw/x.tar", b"an older one")
        moody.way, moody.only, moody.methods, moody.fail_next = "lost", "uploadId=", ("POST",), 1
        root.publish("raw/x.tar", made)
        assert moody.num_refused == 1
        assert root.read_bytes("raw/x.tar") == data and not made.exists()


@pytest.mark.parametrize("way", ["lost", "reset", "503"])
def test_a_file_is_put_although_its_request_fails(endpoint: str, way: str) -> None:
    with Moody(endpoint) as moody:
        root = behind(moody)
        moody.way, moody.only, moody.methods, moody.fail_next = way, f"/{way}.bin", ("PUT",), 2
        root.publish(f"{way}.bin", b"once")
        assert moody.num_refused == 2 and root.read_bytes(f"{way}.bin") == b"once"


def test_what_a_store_says_it_has_not_deleted_is_deleted_again(endpoint: str) -> None:
    with Moody(endpoint) as moody:
        root = behind(moody)
        for name in ("a", "b"):
            root.publish(f"embeddings/{name}.npy", b"x")
        moody.way, moody.only, moody.fail_next = "undeleted", "delete", 2
        root.remove("embeddings")
        assert moody.num_refused == 2 and root.list("embeddings") == []


def test_what_a_store_never_deletes_is_an_error(endpoint: str) -> None:
    with Moody(endpoint) as moody:
        root = behind(moody)
        for name in ("a", "b"):
            root.publish(f"stays/{name}.npy", b"x")
        moody.way, moody.only, moody.down = "undeleted", "delete", True
        with pytest.raises(OSError, match="does not delete it"):
            root.remove("stays")


def test_deleting_what_is_not_there_is_no_error(endpoint: str) -> None:
    root = Root("s3://curation/run", **s3_server.options(endpoint))
    root.remove("nothing")
    root.remove("nothing/at/all.bin")


def test_a_root_whose_name_looks_like_a_pattern(endpoint: str) -> None:
    options = s3_server.options(endpoint)
    beside = Root("s3://curation/abcd", **options)
    beside.publish("run/train/shard.tar", b"of another root")
    root = Root(f"s3://curation/{GLOB}/run", **options)
    root.create()
    made = small_root.finish(root)
    assert verify(root) is None
    with Manifest(root) as manifest:
        assert manifest.query("select count(*) from manifest").fetchall() == [(len(made.samples),)]
    root.remove(f"samples/{small_root.UNITS[0]}.parquet")
    root.remove("train")
    assert root.list("samples") == [f"{small_root.UNITS[1]}.parquet"]
    assert root.list(f"train/{small_root.VERSION}") == [] and not root.exists("train")
    assert beside.read_bytes("run/train/shard.tar") == b"of another root"


def test_a_lease_is_renewed_again_after_the_store_was_away(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_lock, "RENEW_S", 0.05)
    monkeypatch.setattr("s3fs.core.S3FileSystem.retries", 1)
    with Moody(endpoint) as moody:
        root = behind(moody, "leased")
        with root_lock.hold_root(root):
            (name,) = root.list(root_lock.LEASES)
            moody.way, moody.only, moody.methods, moody.down = "reset", name, ("PUT",), True
            wait_until(lambda: moody.num_refused > 6)
            moody.down = False
            first = root.read_json(f"{root_lock.LEASES}/{name}")["until"]
            wait_until(lambda: root.read_json(f"{root_lock.LEASES}/{name}")["until"] > first)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_many_files_on_a_shaky_store_are_those_of_a_disk(endpoint: str, tmp_path: Path) -> None:
    with Shaky(endpoint, SEED, share=0.15) as shaky:
        root, local = behind(shaky, "shaky"), Root(tmp_path / "local")

        def work(number: int) -> None:
            for there in (root, local):
                there.publish(f"t/{number}.bin", b"first")
                there.publish_json(f"t/{number}.json", {"number": number})
                assert there.read_json(f"t/{number}.json") == {"number": number}
                there.publish(f"t/{number}.bin", bytes([number]) * 5_000)
                assert there.read_bytes(f"t/{number}.bin", 100, 300) == bytes([number]) * 300
                there.publish(f"gone/{number}/a", b"x")
                there.publish(f"gone/{number}/b", b"x")
                there.remove(f"gone/{number}")

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(18)))
        assert root.sizes("t") == local.sizes("t") and not root.exists("gone")
        assert [root.read_bytes(f"t/{name}") for name in root.list("t")] == [
            local.read_bytes(f"t/{name}") for name in local.list("t")
        ]
        kinds = {kind.partition(" ")[2] for kind in shaky.made}
        assert kinds >= {"503", "reset", "slow", "short", "lost"}, shaky.made
