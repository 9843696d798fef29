"""img2dataset as the engine: our statuses for its rows, our safety around its fetching, no row lost without a name."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from PIL import Image

from curation.demo.faults import FAULTS, Fault
from curation.demo.web import LOOPBACK, Web, picture_bytes
from curation.demo.web import pictures as demo_pictures
from curation.download.native_engine import fetch_rows
from curation.download.unit import download_unit
from curation.errors import UserError
from curation.fetch.domains import registered_domain
from curation.manifest.manifest import Manifest
from curation.recipe.config import DownloadConfig, load_recipe
from curation.schema import SAMPLES, Status, uid
from curation.shards import read_member
from curation.storage import Root
from curation.verify import verify
from jobs import download, ingest
from jobs.engines.img2dataset_engine import fetch_rows as by_img2dataset
from jobs.engines.img2dataset_refusals import RefusedError, parse_refusal
from tests.support.small_web import pictures, recipe, serve

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

UNIT = "0a1b2c3d-000000"
NAMES = [name for name, _ in demo_pictures()]


def plan(root: Root, urls: list[str], claims: Mapping[str, str] | None = None) -> None:
    """A planned unit of `urls`; `claims` maps URLs to the sha256 that their metadata claims."""
    rows = []
    for i, url in enumerate(urls):
        caption = None if i % 3 == 2 else f"caption {i}"
        known = {"uid": uid(url, caption), "url": url, "caption": caption, "source": "t"}
        known |= {"domain": registered_domain(url), "claimed_sha256": (claims or {}).get(url)}
        rows.append(dict.fromkeys(SAMPLES.names) | known)
    rows.sort(key=lambda row: str(row["uid"]))
    root.publish_parquet(f"samples/{UNIT}.parquet", pa.Table.from_pylist(rows, SAMPLES))
    inputs = [{"num_rows": len(rows), "source": "t", "path": "p", "fingerprint": "f"}]
    counts = {"totals": {"samples": len(rows)}, "units": {"000000": len(rows)}}
    root.publish_json(f"plans/{UNIT[:8]}.json", {"batch": UNIT[:8], "number": 0, "inputs": inputs} | counts)


def rows(root: Root) -> dict[str, dict[str, Any]]:
    """Rows of downloads by URL."""
    assert verify(root) is None
    urls = {r["uid"]: r["url"] for r in root.read_parquet(f"samples/{UNIT}.parquet").to_pylist()}
    return {urls[r["uid"]]: r for r in root.read_parquet(f"downloads/{UNIT}.parquet").to_pylist()}


def at(fault: Fault) -> str:
    """The URL of a picture that meets `fault`."""
    return f"http://{fault.host}/faults/{fault.name}/{NAMES[3]}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Root, dict[str, str]]:
    """The demo's web with all its faults through img2dataset; the root, and the URL of each fault."""
    root = Root(tmp_path_factory.mktemp("engine") / "root")
    root.create()
    opt_out = Path(root.path, "opt-out.txt")
    sha256 = hashlib.sha256(picture_bytes(NAMES[1])).hexdigest()
    opt_out.write_text(f"opted.example\nhttp://www.plain.example/pictures/{NAMES[2]}\n{sha256}\n")
    faults = {f.name: at(f) for f in FAULTS.values() if f.status is not Status.TIMEOUT}
    urls = [f"http://www.plain.example/pictures/{name}" for name in NAMES[:6]]
    urls += ["http://a.opted.example/1.jpg", "http://private.example/pictures/x.jpg", "http://10.0.0.1/1.jpg"]
    urls += [
        "file:///etc/hostname",
        "ftp://a.example/1.jpg",
        "nonsense",
        "http://nothing.invalid/1.jpg",
    ]
    with Web() as web:
        config = DownloadConfig(
            connect_to=web.connect_to, allow_addresses=(LOOPBACK,), opt_out=(str(opt_out),), max_bytes=2_000_000,
            timeout_s=60, max_pixels=40_000_000, max_concurrency=16, image_size=64, retries=1,
        )  # fmt: skip
        plan(root, [*urls, *faults.values()], {urls[0]: "0" * 64, faults["other_bytes"]: "f" * 64})
        download_unit(root, UNIT, config, 0, by_img2dataset)
    return root, faults


def test_what_comes_is_in_our_tables_and_shards(made: tuple[Root, dict[str, str]]) -> None:
    root, _ = made
    url, data = f"http://www.plain.example/pictures/{NAMES[4]}", picture_bytes(NAMES[4])
    row = rows(root)[url]
    stored = read_member(root, row["shard"], row["offset"], row["size"])
    with Image.open(io.BytesIO(data)) as fetched, Image.open(io.BytesIO(stored)) as kept:
        assert (row["width"], row["height"]) == fetched.size
        assert (row["stored_width"], row["stored_height"]) == kept.size and min(kept.size) == 64
    assert row["shard"].startswith(f"raw/{UNIT}-") and row["fetch_round"] == 0
    assert (row["sha256"], row["num_bytes"], row["format"]) == (hashlib.sha256(data).hexdigest(), len(data), "jpeg")
    assert row["stored_sha256"] == hashlib.sha256(stored).hexdigest()
    assert row["phash"] and row["pixel_sha256"] and row["entropy"] > 0 and row["sharpness"] > 0


@pytest.mark.parametrize("name", sorted(f.name for f in FAULTS.values() if f.status is not Status.TIMEOUT))
def test_each_fault_of_the_web_ends_as_with_our_own_engine(made: tuple[Root, dict[str, str]], name: str) -> None:
    row = rows(made[0])[made[1][name]]
    assert row["status"] == FAULTS[name].status, row["detail"]


def test_what_never_ends_is_a_timeout(root: Root) -> None:
    urls = [at(f) for f in FAULTS.values() if f.status is Status.TIMEOUT]
    with Web() as web:
        plan(root, urls)
        config = DownloadConfig(connect_to=web.connect_to, allow_addresses=(LOOPBACK,), timeout_s=1, retries=0)
        download_unit(root, UNIT, config, 0, by_img2dataset)
    assert urls and {url: row["status"] for url, row in rows(root).items()} == dict.fromkeys(urls, "timeout")


def test_what_must_not_be_fetched_is_not(made: tuple[Root, dict[str, str]]) -> None:
    found = {url: row["status"] for url, row in rows(made[0]).items()}
    picture = "http://www.plain.example/pictures/"
    assert found[f"{picture}{NAMES[0]}"] == "hash_mismatch"
    assert found[f"{picture}{NAMES[1]}"] == "opted_out"  # by sha256
    assert found[f"{picture}{NAMES[2]}"] == "opted_out"  # by URL
    assert found["http://a.opted.example/1.jpg"] == "opted_out"
    assert found["http://private.example/pictures/x.jpg"] == "robots"
    assert found["http://10.0.0.1/1.jpg"] == "blocked_address"
    assert found["file:///etc/hostname"] == "unsupported_scheme"
    assert found["ftp://a.example/1.jpg"] == "unsupported_scheme"
    assert found["nonsense"] == "invalid_url"
    assert found["http://nothing.invalid/1.jpg"] == "dns"


_POISON = """
import sys
if any("img2dataset_worker" in argument for argument in sys.orig_argv):
    import os
    from img2dataset import resizer
    call = resizer.Resizer.__call__
    def poisoned(self, stream, boxes=None):
        data = stream.getvalue()
        if b"kill" in data:
            os._exit(9)
        if b"lose" in data:
            return None
        return call(self, stream, boxes)
    resizer.Resizer.__call__ = poisoned
"""


@pytest.mark.parametrize("poison", ["lose", pytest.param("kill", marks=pytest.mark.slow)])
def test_a_poisoned_row_is_found_and_named(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    """`lose`: an exception outside what img2dataset guards, as a value that cannot be written; `kill`: a decoder's."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_POISON)
    monkeypatch.syspath_prepend(tmp_path / "site")
    urls = [f"http://h.site.test/{i}.jpg" for i in (*range(9), *range(10, 18))]

    def web(host: str, path: str, asked: int) -> tuple[int, bytes]:
        status, body = pictures(host, path, asked)
        return (200, body[:-2] + poison.encode() + body[-2:]) if path == "/5.jpg" else (status, body)

    with serve(web) as (port, asked):
        config = DownloadConfig(
            connect_to={"*.test": f"127.0.0.1:{port}"}, allow_addresses=("127.0.0.0/8",), image_size=32, retries=0
        )
        plan(root, urls)
        download_unit(root, UNIT, config, 0, by_img2dataset)
    found = rows(root)
    assert Counter(row["status"] for row in found.values()) == {"ok": 16, "lost_by_engine": 1}
    lost = found["http://h.site.test/5.jpg"]
    assert lost["status"] == "lost_by_engine"
    assert lost["detail"] == (
        "img2dataset died of it" if poison == "kill" else "img2dataset was given 17 rows and names 16: not this one"
    )
    # A later round tries it again, by our own engine if need be.
    with serve(pictures) as (port, _):
        again = replace(config, connect_to={"*.test": f"127.0.0.1:{port}"})
        download_unit(root, UNIT, again, 1, fetch_rows)
    assert rows(root)["http://h.site.test/5.jpg"]["status"] == "ok"


def test_refusals_survive_the_way_through_a_message() -> None:
    assert parse_refusal(str(RefusedError(Status.ROBOTS, "a: b"))) == (Status.ROBOTS, "a: b")
    assert parse_refusal("HTTP Error 404: Not Found") is None
    assert parse_refusal("clip-curation strange: x") is None and parse_refusal(None) is None


def test_without_img2dataset_the_engine_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "img2dataset", None)
    with pytest.raises(UserError, match="needs img2dataset: pip install img2dataset"):
        download.load_engine("img2dataset")


def test_an_img2dataset_that_does_not_start_is_one_sentence(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "img2dataset").mkdir()
    (tmp_path / "img2dataset" / "__init__.py").write_text("raise ImportError('No module named imghdr')")
    monkeypatch.syspath_prepend(tmp_path)
    plan(root, ["http://h.site.test/1.jpg"])
    with pytest.raises(UserError, match="does not start .ImportError: No module named imghdr"):
        download_unit(root, UNIT, DownloadConfig(), 0, by_img2dataset)
    assert not root.exists(f"downloads/{UNIT}.parquet")


@pytest.mark.slow
def test_the_stage_runs_it_in_spark_tasks(spark: SparkSession, tmp_path: Path) -> None:
    """The same rows end alike with both engines; only the bytes of resized pictures are each engine's own."""
    ends = []
    with serve(pictures) as (port, _):
        for name in ("native", "img2dataset"):
            made = load_recipe(recipe(tmp_path / "meta", port, 60, rows_per_unit=30), [f"download.engine={name}"])
            root = Root(tmp_path / name)
            ingest.run_here(made, root)
            download.run(spark, made, root)
            assert verify(root) is None
            columns = "uid, status, sha256, width, height, stored_width, stored_height, num_bytes, format"
            ends.append(Manifest(root).query(f"select {columns} from downloads order by uid").fetchall())
    assert ends[0] == ends[1] and Counter(row[1] for row in ends[0]) == {"ok": 54, "http_404": 6}
