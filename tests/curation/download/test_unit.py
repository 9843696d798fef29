"""One unit through the engine: what is recorded of every row, resuming, rounds, and how much a task may hold."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from curation.download.native_engine import fetch_rows
from curation.download.rows import MAX_DETAIL, failed_row
from curation.download.unit import download_unit
from curation.download.unit_rows import UnitRows
from curation.recipe.config import DownloadConfig
from curation.schema import DOWNLOADS, SAMPLES, Status, uid
from curation.settings import content_settings
from curation.storage import Root
from tests.support.hostile_pictures import jpeg
from tests.support.hostile_server import DOMAIN, Exchange, HostileServer
from tests.support.picture_unit import (
    UNIT,
    Row,
    download_config,
    read_downloads,
    serve_pictures,
    write_samples,
)


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with serve_pictures() as running:
        yield running


@pytest.fixture
def config(server: HostileServer) -> DownloadConfig:
    return download_config(server)


def test_every_row_and_every_byte_is_described(tmp_path: Path, config: DownloadConfig) -> None:
    root = write_samples(tmp_path)
    download_unit(root, UNIT, config)
    samples = {row["uid"]: row for row in root.read_parquet(f"samples/{UNIT}.parquet").to_pylist()}
    found = read_downloads(root)
    assert [row["uid"] for row in found] == sorted(samples)
    shards = root.list("raw", ".tar")
    assert len(shards) == 1
    whole = root.read_bytes(f"raw/{shards[0]}")
    assert shards[0] == f"{UNIT}-{hashlib.sha256(whole).hexdigest()[:16]}.tar"
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
        assert all((m.mtime, m.uid, m.gid) == (0, 0, 0) for m in archive.getmembers())
    assert list(members) == sorted(members, key=lambda name: name.partition(".")[0])
    for row in found:
        number = int(samples[row["uid"]]["url"].rpartition("/")[2].partition(".")[0])
        if number % 5 == 4:
            empty = dict.fromkeys(DOWNLOADS.names) | {"uid": row["uid"], "fetch_round": 0}
            assert row == empty | {"status": "http_404", "detail": "HTTP 404"}
            continue
        original = jpeg(60 + number, 50, seed=number)
        stored = whole[row["offset"] : row["offset"] + row["size"]]
        assert stored == members[f"{row['uid']}.jpg"]
        assert row["sha256"] == hashlib.sha256(original).hexdigest()
        assert row["stored_sha256"] == hashlib.sha256(stored).hexdigest()
        assert (row["num_bytes"], row["width"], row["height"]) == (len(original), 60 + number, 50)
        assert Image.open(io.BytesIO(stored)).size == (row["stored_width"], row["stored_height"])
        assert row["phash"] and row["pixel_sha256"] and row["sharpness"] > 0 and row["entropy"] > 0
        described = json.loads(members[f"{row['uid']}.json"])
        assert described["url"] == samples[row["uid"]]["url"] and described["sha256"] == row["sha256"]
        assert members[f"{row['uid']}.txt"].decode() == (samples[row["uid"]]["caption"] or "")


def test_two_roots_are_the_same(tmp_path: Path, config: DownloadConfig) -> None:
    one, two = write_samples(tmp_path / "one"), write_samples(tmp_path / "two")
    download_unit(one, UNIT, config)
    download_unit(two, UNIT, DownloadConfig(**(vars(config) | {"max_concurrency": 1, "num_decoders": 2})))
    assert read_downloads(one) == read_downloads(two)
    assert one.list("raw") == two.list("raw")


def test_a_unit_goes_on_at_the_row_where_it_stopped(
    tmp_path: Path, config: DownloadConfig, server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_samples(tmp_path)
    end = UnitRows.end

    def full(self: UnitRows, sample: Row, row: Row, data: bytes = b"") -> None:
        if len(self.journal.rows) == 12:
            raise OSError(28, "No space left on device")
        end(self, sample, row, data)

    with monkeypatch.context() as patch:
        patch.setattr(UnitRows, "end", full)
        with pytest.raises(OSError, match="No space left"):
            download_unit(root, UNIT, config)
    assert not root.exists(f"downloads/{UNIT}.parquet") and not root.list("raw")
    before = dict(server.asked)
    download_unit(root, UNIT, config)
    assert len(read_downloads(root)) == 30
    pictures = {key for key in server.asked if key[1] != "/robots.txt"}
    again = sum(server.asked[key] - before.get(key, 0) for key in pictures)
    assert again == 30 - 12
    before = dict(server.asked)
    download_unit(root, UNIT, config)
    assert dict(server.asked) == before, "a unit whose row file stands is done"


def test_other_settings_do_not_take_over_the_journal(tmp_path: Path, config: DownloadConfig) -> None:
    patient = DownloadConfig(**(vars(config) | {"timeout_s": 90.0, "max_concurrency": 3}))
    larger = DownloadConfig(**(vars(config) | {"image_size": 33}))
    assert content_settings(config) == content_settings(patient) != content_settings(larger)


def test_a_second_attempt_at_once_ends_the_same(tmp_path: Path, config: DownloadConfig) -> None:
    """Speculation: the journal is held by the first, the second has one of its own."""
    root, other = write_samples(tmp_path / "one"), write_samples(tmp_path / "two")
    download_unit(other, UNIT, config)

    def twice(rows: UnitRows) -> None:
        download_unit(root, UNIT, config)
        fetch_rows(rows)

    download_unit(root, UNIT, config, engine=twice)
    assert read_downloads(root) == read_downloads(other) and root.list("raw") == other.list("raw")
    assert not list(root.scratch().glob("*.journal*"))


def redirects(folder: Path, number: int) -> Root:
    """A unit whose rows all stand on host `a`."""
    root, found = Root(folder), []
    for n in range(number):
        url = f"http://a.{DOMAIN}/{n}.jpg"
        found.append(dict.fromkeys(SAMPLES.names) | {"uid": uid(url, None), "url": url, "domain": DOMAIN})
    found.sort(key=lambda row: str(row["uid"]))
    root.publish_parquet(f"samples/{UNIT}.parquet", pa.Table.from_pylist(found, schema=SAMPLES))
    return root


async def to_b(e: Exchange) -> None:
    await asyncio.sleep(0.02)
    await e.answer(302, b"", Location=f"http://b.{DOMAIN}{e.path}")


def test_lists_that_grew_after_a_kill_hold_for_rows_of_the_journal(
    tmp_path: Path, config: DownloadConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By host and by sha256; the pictures come into no shard. A third kill changes nothing."""
    root, opt_out = write_samples(tmp_path / "root"), tmp_path / "opt_out.txt"
    listed = hashlib.sha256(jpeg(60, 50, seed=0)).hexdigest()
    opt_out.write_text(f"b.{DOMAIN}\n{listed}\n")
    for lists in ((), (str(opt_out),)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("curation.download.unit.publish_unit", killed)
            download_unit(root, UNIT, replace(config, opt_out=lists))
    download_unit(root, UNIT, replace(config, opt_out=(str(opt_out),)))
    urls = {row["uid"]: row["url"] for row in root.read_parquet(f"samples/{UNIT}.parquet").to_pylist()}
    refused = {urls[row["uid"]] for row in read_downloads(root) if row["status"] == "opted_out"}
    assert refused == {f"http://b.{DOMAIN}/{n}.jpg" for n in range(1, 30, 3)} | {f"http://a.{DOMAIN}/0.jpg"}
    whole = root.read_bytes(f"raw/{root.list('raw', '.tar')[0]}")
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        kept = {name.partition(".")[0] for name in archive.getnames()}
    assert kept == {row["uid"] for row in read_downloads(root) if row["status"] == "ok"}


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_claimed_sha256_on_a_list_is_not_fetched(
    tmp_path: Path, config: DownloadConfig, server: HostileServer
) -> None:
    root, opt_out = redirects(tmp_path / "root", 2), tmp_path / "opt_out.txt"
    opt_out.write_text("0" * 63 + "A\n")
    table = root.read_parquet(f"samples/{UNIT}.parquet").to_pylist()
    table[0]["claimed_sha256"] = "0" * 63 + "a"
    root.publish_parquet(f"samples/{UNIT}.parquet", pa.Table.from_pylist(table, schema=SAMPLES))
    download_unit(root, UNIT, replace(config, opt_out=(str(opt_out),)))
    assert [row["status"] for row in read_downloads(root)] == ["opted_out", "ok"]
    assert sum(times for (_, path), times in server.asked.items() if path != "/robots.txt") == 1


def test_an_empty_unit_is_a_unit(tmp_path: Path, config: DownloadConfig) -> None:
    root = write_samples(tmp_path, 0)
    download_unit(root, UNIT, config)
    assert read_downloads(root) == [] and not root.list("raw")


def test_details_are_cut(tmp_path: Path) -> None:
    assert len(failed_row("0", Status.DNS, "x" * 1000)["detail"]) == MAX_DETAIL
    assert failed_row("0", Status.DNS, "")["detail"] is None


async def answer_cut(e: Exchange) -> None:
    """A picture cut where it lies, one that comes cut elsewhere each time, and one that lacks announced bytes."""
    whole = jpeg(60, 50)
    half = len(whole) // 2
    if e.path == "/ends.jpg":
        await e.raw(f"HTTP/1.1 200 OK\nContent-Length: {len(whole)}", whole[:half])
    else:
        await e.answer(200, whole[: half + (e.times if e.path == "/moves.jpg" else 0)])


def test_a_picture_that_came_cut_in_the_same_way_twice_is_not_asked_for_again(tmp_path: Path) -> None:
    uids = {name: uid(f"http://a.{DOMAIN}/{name}.jpg", None) for name in ("lies", "moves", "ends")}
    root, asked = Root(tmp_path), []
    samples = [{"uid": key, "url": f"http://a.{DOMAIN}/{name}.jpg"} for name, key in uids.items()]
    root.publish_parquet(f"samples/{UNIT}.parquet", pa.Table.from_pylist(samples, schema=SAMPLES))
    with HostileServer({"a": answer_cut}, {}) as server:
        for fetch_round in range(4):
            download_unit(root, UNIT, download_config(server), fetch_round)
            asked.append({name: server.asked["a", f"/{name}.jpg"] for name in uids})
    assert [counts["lies"] for counts in asked] == [1, 2, 2, 2]
    assert [counts["moves"] for counts in asked] == [counts["ends"] for counts in asked] == [1, 2, 3, 4]
    ended = {row["uid"]: row for row in read_downloads(root)}
    assert {row["status"] for row in ended.values()} == {"truncated"}
    assert [ended[uids[name]]["fetch_round"] for name in ("lies", "moves", "ends")] == [1, 3, 3]
    assert [name for name, key in uids.items() if ended[key]["detail"].endswith(", twice")] == ["lies"]
