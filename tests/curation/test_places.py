"""A root sends its readers nowhere: they read files in it and in folders that adopt recorded, none of their network."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from curation import places
from curation.errors import UserError
from curation.fetch.addresses import AddressPolicy
from curation.places import ForeignPlaceError, is_public_host
from curation.report import write_html
from curation.shards import read_member
from curation.storage import Root
from curation.verify import verify
from tests.support import small_root
from tests.support.listener import Listener
from tests.support.small_root import BATCH, UNITS, SmallRoot
from trainer.data import Loader

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def inside() -> Iterator[Listener]:
    """A server inside of the reader's network, which no reader may ask."""
    with Listener(b"secret") as server:
        yield server


@pytest.fixture
def made(root: Root) -> SmallRoot:
    built = small_root.build(root)
    small_root.select(built)
    return built


def send_to(made: SmallRoot, place: Callable[[str], str]) -> None:
    """Let downloads say that each shard lies at `place(name)`."""
    for row in made.downloads.values():
        if row["shard"] is not None:
            row["shard"] = place(row["shard"].rpartition("/")[2])
    for unit in UNITS:
        small_root.write_downloads(made, unit)


def record(root: Root, *paths: str) -> None:
    """Publish a plan that says it has adopted shards at `paths`."""
    inputs = [{"source": "x", "path": path, "num_rows": 0, "fingerprint": "f"} for path in paths]
    root.publish_json("plans/ffffffff.json", root.read_json(f"plans/{BATCH}.json") | {
        "batch": "ffffffff", "number": 1, "adopted": True, "inputs": inputs, "units": {},
        "totals": {"samples": 0},
    })  # fmt: skip


def look_by_report(root: Root) -> None:
    write_html(root, Path(root.path) / "page.html")


def look_by_loader(root: Root) -> None:
    loader = Loader(root, table="manifest", batch_size=4, transform=None, tokenizer=None, index_folder=f"{root.path}/i")
    list(loader)


def look_by_export(root: Root) -> None:
    row = next(row for row in root.read_parquet(f"downloads/{UNITS[0]}.parquet").to_pylist() if row["shard"])
    read_member(root, row["shard"], row["offset"], row["size"])


LOOKS = {"report": look_by_report, "verify": verify, "loader": look_by_loader, "one picture": look_by_export}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
@pytest.mark.parametrize("is_recorded", [False, True])
def test_a_server_inside_is_not_asked(
    made: SmallRoot, inside: Listener, look: Callable[[Root], Any], is_recorded: bool
) -> None:
    if is_recorded:
        record(made.root, f"{inside.url}/latest/meta-data.tar")
    send_to(made, lambda name: f"{inside.url}/latest/{name}")
    with pytest.raises(ForeignPlaceError, match="no public address" if is_recorded else "no plan of it has adopted"):
        look(made.root)
    assert inside.requests == []


def test_pack_does_not_ask_it_either(made: SmallRoot, inside: Listener, spark: SparkSession) -> None:
    from curation.recipe.config import Recipe
    from jobs import pack
    from jobs.spark.errors import unwrap_task_errors

    send_to(made, lambda name: f"{inside.url}/latest/{name}")
    with pytest.raises(UserError, match="no plan of it has adopted"), unwrap_task_errors():
        pack.run(spark, Recipe(), made.root)
    assert inside.requests == [] and made.root.current("train") is None


@pytest.mark.parametrize(
    "rel",
    [
        "/etc/passwd",
        "raw/../../secret",
        "../secret",
        "file:///etc/passwd",
        "simplecache::http://127.0.0.1/x",
        "git://x@/etc/passwd",
        "zip://a::/tmp/b.zip",
        "s3://bucket/x.tar",
    ],
)
def test_a_file_outside_is_not_read(root: Root, rel: str) -> None:
    (Path(root.path).parent / "secret").write_text("secret")
    for action in (root.read_bytes, root.open, root.exists, root.size, root.url, root.local):
        with pytest.raises(ForeignPlaceError, match="outside of it"):
            action(rel)


@pytest.mark.parametrize(
    "folder", ["git://x@/d", "simplecache::http://h.test/d", "reference://x", "ftp://h.test/d", "http://[::1/d"]
)
def test_a_recorded_folder_of_another_kind_is_not_read(root: Root, folder: str) -> None:
    root.publish_json("plans/0a1b2c3d.json", {"number": 0, "adopted": True, "inputs": [{"path": f"{folder}/0.tar"}]})
    with pytest.raises(ForeignPlaceError, match="Shards are not read from"):
        root.read_bytes(f"{folder}/1.tar")


def test_folders_of_a_plan_that_ingested_are_not_read(root: Root, tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata" / "x.tar").write_bytes(b"x")
    root.publish_json("plans/0a1b2c3d.json", {"number": 0, "inputs": [{"path": f"{tmp_path}/metadata/0.parquet"}]})
    with pytest.raises(ForeignPlaceError):
        root.read_bytes(f"{tmp_path}/metadata/x.tar")


def test_an_adopted_folder_is_read_also_when_its_plan_comes_later(root: Root, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    shard = tmp_path / "set" / "00000.tar"
    shard.write_bytes(b"abcdef")
    with pytest.raises(ForeignPlaceError):
        root.read_bytes(str(shard))
    root.publish_json("plans/0a1b2c3d.json", {"number": 0, "adopted": True, "inputs": [{"path": str(shard)}]})
    assert root.read_bytes(str(shard), 2, 3) == b"cde"
    copy: Root = pickle.loads(pickle.dumps(root))
    assert copy.read_bytes(str(shard)) == b"abcdef"
    with pytest.raises(ForeignPlaceError):
        copy.read_bytes(str(tmp_path / "set" / ".." / "secret"))


def test_a_folder_on_the_public_web_is_read_and_its_redirects_are_checked(
    root: Root, inside: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127.0.0.1 stands for a public address, 127.0.0.2 for one inside."""
    monkeypatch.setattr(places, "POLICY", AddressPolicy(["127.0.0.1/32"]))
    is_public_host.cache_clear()
    root.publish_json(
        "plans/0a1b2c3d.json", {"number": 0, "adopted": True, "inputs": [{"path": f"{inside.url}/0.tar"}]}
    )
    assert root.read_bytes(f"{inside.url}/1.tar", 1, 3) == b"ecr"
    inside.redirect, before = f"http://127.0.0.2:{inside.port}/x", len(inside.requests)
    with pytest.raises(OSError, match="not public"):
        root.read_bytes(f"{inside.url}/1.tar", 1, 3)
    assert inside.requests[before:] == ["/1.tar"]
    is_public_host.cache_clear()


def test_of_a_server_without_ranges_no_more_is_read_than_was_asked_for(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read whole, and its first bytes were taken for those of the part."""
    monkeypatch.setattr(places, "POLICY", AddressPolicy(["127.0.0.1/32"]))
    is_public_host.cache_clear()
    with Listener(b"secret" * 1_000_000, knows_ranges=False) as server:
        path = f"{server.url}/0.tar"
        root.publish_json("plans/0a1b2c3d.json", {"number": 0, "adopted": True, "inputs": [{"path": path}]})
        assert root.read_bytes(path, 0, 3) == b"sec" and root.read_bytes(path, 3, 0) == b""
        for read in (lambda: root.read_bytes(path, 1, 3), lambda: root.read_bytes(path, 1), lambda: root.open(path)):
            with pytest.raises(UserError, match="by a server that knows ranges"):
                read()
        assert len(root.read_bytes(path)) == 6_000_000
    is_public_host.cache_clear()


def test_a_pipe_in_a_table_is_refused_and_not_waited_for(root: Root) -> None:
    Path(root.path, "raw").mkdir()
    os.mkfifo(Path(root.path, "raw", "x.tar"))
    for action in (root.read_bytes, root.open):
        with pytest.raises(UserError, match="no regular file"):
            action("raw/x.tar")


@pytest.mark.parametrize(("offset", "size"), [(-1, 3), (0, -3), (0, 1 << 62), (1 << 62, 1)])
def test_a_forged_place_takes_no_memory(root: Root, offset: int, size: int) -> None:
    root.publish("raw/x.tar", b"abc")
    with pytest.raises(UserError, match="truncated|curate verify"):
        read_member(root, "raw/x.tar", offset, size)
