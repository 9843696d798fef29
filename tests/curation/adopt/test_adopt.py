"""Adopting what img2dataset left: every row of it ends once, nothing is copied, whatever state the folder is in."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.adopt import adopt
from curation.adopt.messages import classify_message
from curation.demo.altered import huge_png
from curation.download.unit import download_unit
from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.recipe.config import DownloadConfig, load_recipe
from curation.schema import Status, uid
from curation.shards import read_member
from curation.storage import Root
from curation.verify import verify
from tests.jobs.test_ingest import snapshot
from tests.support.img2dataset_run import cut, img2dataset, write_tar
from tests.support.s3_server import options, s3
from tests.support.small_root import picture
from tests.support.small_web import pictures, recipe, serve

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NUM_ROWS = 44


def faulty(host: str, path: str, asked: int) -> tuple[int, bytes]:
    """One in ten is gone, one no picture, one refused."""
    number = int(path.strip("/").partition(".")[0])
    if number % 10 == 8:
        return 200, b"<html>not here</html>"
    return (503, b"") if number % 10 == 7 else pictures(host, path, asked)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """What img2dataset left of 44 rows in three shards, and the port that they came from."""
    folder = tmp_path_factory.mktemp("img2dataset")
    with serve(faulty) as (port, _):
        urls = [f"http://127.0.0.1:{port}/{i}.jpg" for i in range(40)]
        urls += ["http://nothing.invalid/1.jpg", "http://127.0.0.1:1/1.jpg", "nonsense", urls[3]]
        captions = [None if i % 5 == 4 else f"caption {i}" for i in range(43)] + ["caption 3"]
        laion = pa.table({"url": urls, "caption": captions, "similarity": [i / 100 for i in range(NUM_ROWS)]})
        when = pa.array([1_700_000_000] * 10, pa.timestamp("s"))
        timed = pa.table({"url": urls[:10], "caption": ["c"] * 10, "when": when})
        img2dataset(folder, {"laion": laion, "timed": timed})
        return folder / "laion", port


@pytest.fixture
def folder(made: tuple[Path, int], tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(made[0], tmp_path / "laion"))


def rows(root: Root) -> dict[str, dict[str, Any]]:
    assert verify(root) is None
    found = Manifest(root).query("select * from manifest").to_arrow_table().to_pylist()
    return {row["uid"]: row for row in found}


def rejected(root: Root) -> Counter[str]:
    units = root.units("rejects")
    return Counter(r for u in units for r in root.read_parquet(f"rejects/{u}.parquet")["reason"].to_pylist())


def statuses(root: Root) -> Counter[str]:
    return Counter(row["status"] for row in rows(root).values())


def test_every_row_of_a_real_run_is_accounted_for(root: Root, made: tuple[Path, int]) -> None:
    folder, port = made
    before = {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.iterdir()}
    adopt(root, [str(folder)])
    found = rows(root)
    assert len(found) == NUM_ROWS - 1 and rejected(root) == {"repeated": 1}
    assert statuses(root) == {
        "ok": 28, "http_404": 4, "http_5xx": 4, "not_an_image": 4, "dns": 1, "connect": 1, "invalid_url": 1,
    }  # fmt: skip
    for i in (1, 4, 21):
        url = f"http://127.0.0.1:{port}/{i}.jpg"
        row = found[uid(url, None if i % 5 == 4 else f"caption {i}")]
        fetched = pictures("", f"/{i}.jpg", 0)[1]
        stored = read_member(root, row["shard"], row["offset"], row["size"])
        assert Image.open(io.BytesIO(stored)).size == (row["stored_width"], row["stored_height"])
        assert row["sha256"] == hashlib.sha256(fetched).hexdigest()
        assert row["stored_sha256"] == hashlib.sha256(stored).hexdigest()
        assert (row["width"], row["height"]) == Image.open(io.BytesIO(fetched)).size
        assert row["phash"] and row["pixel_sha256"] and row["entropy"] > 0
        assert row["clip_similarity"] == pytest.approx(i / 100) and row["source"] == "laion"
        assert row["domain"] == "127.0.0.1" and row["fetch_round"] is None
    assert found[uid(f"http://127.0.0.1:{port}/9.jpg", None)]["detail"] == "HTTP Error 404: Not Found"
    # Nothing is copied, nothing touched.
    assert not root.exists("raw")
    assert before == {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.iterdir()}


def test_adopting_again_changes_nothing_and_a_kill_loses_nothing(root: Root, folder: Path) -> None:
    adopt(root, [str(folder)])
    whole = snapshot(root)
    adopt(root, [str(folder), str(folder)])
    assert snapshot(root) == whole
    root.remove(f"downloads/{root.units('downloads')[1]}.parquet")
    with pytest.raises(UserError, match="1 adopted shards left to read: run the same `curate adopt` again"):
        from jobs import download

        download.run(None, small_recipe(folder.parent), root)  # type: ignore[arg-type]
    adopt(root, [str(folder)])
    assert snapshot(root) == whole
    root.remove(f"plans/{root.list('plans')[0]}")
    root.remove("downloads")
    assert root.units("samples") == []
    adopt(root, [str(folder)])
    assert snapshot(root) == whole


def small_recipe(folder: Path) -> Any:
    return load_recipe(recipe(folder / "meta", 1, 3))


def test_shards_that_come_later_are_a_plan_of_their_own(root: Root, folder: Path) -> None:
    later = folder.parent / "later"
    later.mkdir()
    for file in folder.glob("00002*"):
        shutil.move(file, later / file.name)
    adopt(root, [str(folder)])
    first = rows(root)
    for file in later.iterdir():
        shutil.move(file, folder / file.name)
    adopt(root, [str(folder)])
    after = rows(root)
    assert {u: after[u] for u in first} == first
    assert (len(first), len(after), rejected(root)["repeated"]) == (40, 43, 1)
    assert len(root.list("plans")) == 2


def test_a_torn_tar_costs_only_the_pictures_behind_the_tear(root: Root, folder: Path) -> None:
    cut(folder / "00000.tar", 0.5)
    adopt(root, [str(folder)])
    found = statuses(root)
    assert 0 < found["lost_by_engine"] < 14 and found["ok"] + found["lost_by_engine"] == 28
    lost = next(row for row in rows(root).values() if row["status"] == "lost_by_engine")
    assert "00000.tar holds no picture" in lost["detail"]


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: cut(file, 0.9)])
def test_without_its_parquet_the_tar_and_the_count_speak(
    root: Root, folder: Path, damage: Callable[[Path], None], made: tuple[Path, int]
) -> None:
    whole = Root(f"{root.base}-whole")
    adopt(whole, [str(folder)])
    damage(folder / "00000.parquet")
    adopt(root, [str(folder)])
    found, expected = rows(root), rows(whole)
    assert rejected(root) == {"lost_by_engine": 6, "repeated": 1}  # the failures of 20 rows, that only parquet names
    first = {u for u, row in expected.items() if row["shard"] and row["shard"].endswith("00000.tar")}
    for one in first:
        assert found[one] == expected[one]
    lost = [r for r in root.read_parquet(f"rejects/{root.units('rejects')[0]}.parquet").to_pylist()]
    assert [r["row"] for r in lost] == [7, 8, 9, 17, 18, 19]


def test_rows_that_img2dataset_lost_are_found(root: Root, made: tuple[Path, int]) -> None:
    """A timestamp cannot be written as JSON: img2dataset prints that, says "success" and keeps next to nothing."""
    folder = made[0].parent / "timed"
    stats = json.loads((folder / "00000_stats.json").read_text())
    assert (stats["count"], stats["successes"]) == (10, 7)
    assert pq.read_table(folder / "00000.parquet").num_rows == 3
    adopt(root, [str(folder)])
    assert statuses(root) == {"http_404": 1, "not_an_image": 1, "http_5xx": 1}
    assert rejected(root) == {"lost_by_engine": 7}


def test_a_tar_alone_is_enough_whatever_its_pictures_are_called(root: Root, tmp_path: Path) -> None:
    sink = io.BytesIO()
    Image.new("RGBA", (40, 30), (1, 2, 3, 200)).save(sink, "PNG")
    described = {"url": "http://a.test/1.png", "caption": "from json", "original_width": 80, "original_height": 60}
    write_tar(
        tmp_path / "cc3m" / "00000.tar",
        {
            "000.jpeg": picture(1),
            "000.txt": b"from text",
            "001.PNG": sink.getvalue(),
            "001.json": json.dumps(described | {"tags": ["list"]}).encode(),
            "./part/002.webp": picture(2),
            "003.jpg": picture(3),
            "003.json": b"{ torn",
            "004.txt": b"a caption without a picture",
        },
    )
    adopt(root, [str(tmp_path / "cc3m")])
    found = {row["caption"]: row for row in rows(root).values() if row["caption"]}
    place = (tmp_path / "cc3m" / "00000.tar").resolve()
    assert found["from text"]["url"] == f"file://{place}#000.jpeg"
    assert (found["from json"]["url"], found["from json"]["width"]) == ("http://a.test/1.png", 80)
    assert len(rows(root)) == 4 and statuses(root) == {"ok": 4}
    assert Manifest(root).query("select count(*) from manifest where caption is null").fetchall() == [(2,)]


def test_a_picture_whose_url_is_missing_is_kept(root: Root, tmp_path: Path) -> None:
    """The parquet knows the row, the tar has its picture: only the name of its origin is lost."""
    rows_of = [
        {"url": url, "key": key, "caption": key, "status": status, "error_message": None}
        for key, url, status in [
            ("00", None, "success"),
            ("01", " ", "success"),
            ("02", "http://a.test/2.jpg", "success"),
            ("03", None, "success"),
            ("04", None, "failed_to_download"),
        ]
    ]
    write_tar(tmp_path / "x" / "00000.tar", {f"0{i}.jpg": picture(i) for i in range(3)})
    pq.write_table(pa.Table.from_pylist(rows_of), tmp_path / "x" / "00000.parquet")
    adopt(root, [str(tmp_path / "x")])
    found = {row["caption"]: row for row in rows(root).values()}
    place = (tmp_path / "x" / "00000.tar").resolve()
    assert {key: (row["url"], row["status"]) for key, row in found.items()} == {
        "00": (f"file://{place}#00.jpg", "ok"),
        "01": (f"file://{place}#01.jpg", "ok"),
        "02": ("http://a.test/2.jpg", "ok"),
    }
    assert rejected(root) == {"no_url": 2}


def test_names_with_dots_are_accounted_for_by_webdatasets_key(root: Root, tmp_path: Path) -> None:
    names = ["k.with.dots.jpg", "img.001.jpg", "img.002.jpg", "m.jpg", "m.mask.png", "n.txt.gz"]
    write_tar(tmp_path / "x" / "00000.tar", {name: picture(i) for i, name in enumerate(names)})
    (tmp_path / "x" / "00000_stats.json").write_text('{"count": 4}')
    adopt(root, [str(tmp_path / "x")])
    found = {row["url"].rpartition("#")[2] for row in rows(root).values()}
    assert found == {"k.with.dots.jpg", "img.001.jpg", "m.jpg", "n.txt.gz"}
    assert statuses(root) == {"ok": 4} and rejected(root) == {"repeated": 2}


def test_what_is_no_safe_picture_ends_as_that(root: Root, tmp_path: Path) -> None:
    """`disable_all_reencoding` stores whatever came."""
    stored = {"0": b"<html></html>", "1": huge_png(), "2": picture(2)[:-200], "3": picture(3)}
    write_tar(tmp_path / "x" / "00000.tar", {f"{key}.jpg": data for key, data in stored.items()})
    adopt(root, [str(tmp_path / "x")])
    assert statuses(root) == {"not_an_image": 1, "too_many_pixels": 1, "truncated": 1, "ok": 1}


def test_of_repeated_rows_the_one_with_a_picture_stays(root: Root, folder: Path) -> None:
    table = pq.read_table(folder / "00001.parquet")
    failed = {"status": "failed_to_download", "error_message": "timed out"}
    changed = [row | (failed if row["status"] == "success" else {}) for row in table.to_pylist()]
    twin = folder.parent / "first"
    twin.mkdir()
    pq.write_table(pa.Table.from_pylist(changed, table.schema), twin / "00001.parquet")
    for name in ("00001.tar", "00001_stats.json"):
        shutil.copy(folder / name, twin / name)
    adopt(root, [str(twin), str(folder)])
    found = rows(root)
    assert statuses(root)["ok"] == 28 and statuses(root)["timeout"] == 0
    assert len(found) == 43 and rejected(root) == {"repeated": 21}


def test_a_round_fetches_what_img2dataset_missed(root: Root, made: tuple[Path, int]) -> None:
    folder, port = made
    adopt(root, [str(folder)])
    before = rows(root)
    with serve(lambda *_: (200, picture(7))) as (now, _):
        config = DownloadConfig(
            allow_addresses=("127.0.0.0/8",),
            connect_to={"nothing.invalid": f"127.0.0.1:{now}"},
            image_size=32,
            retries=0,
        )
        for unit in root.units("samples"):
            download_unit(root, unit, config, 1)
    after = rows(root)
    rescued = after[uid("http://nothing.invalid/1.jpg", "caption 40")]
    assert rescued["status"] == "ok" and rescued["shard"].startswith("raw/") and rescued["fetch_round"] == 1
    kept = {u: row for u, row in before.items() if row["status"] in ("ok", "http_404", "not_an_image", "invalid_url")}
    assert {u: after[u] for u in kept} == kept


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("HTTP Error 404: Not Found", Status.HTTP_404),
        ("HTTP Error 410: Gone", Status.HTTP_410),
        ("HTTP Error 403: Forbidden", Status.HTTP_4XX),
        ("HTTP Error 429: Too Many Requests", Status.HTTP_429),
        ("HTTP Error 502: Bad Gateway", Status.HTTP_5XX),
        ("HTTP Error 302: The HTTP server returned a redirect error that would lead to an infinite loop.\nThe last 30x "
         "error message was:\nFound", Status.TOO_MANY_REDIRECTS),
        ("<urlopen error [Errno -2] Name or service not known>", Status.DNS),
        ("<urlopen error [Errno -3] Temporary failure in name resolution>", Status.DNS),
        ("<urlopen error [Errno -5] No address associated with hostname>", Status.DNS),
        ("<urlopen error timed out>", Status.TIMEOUT),
        ("The read operation timed out", Status.TIMEOUT),
        ("<urlopen error _ssl.c:990: The handshake operation timed out>", Status.TIMEOUT),
        ("<urlopen error [Errno 110] Connection timed out>", Status.TIMEOUT),
        ("<urlopen error [Errno 111] Connection refused>", Status.CONNECT),
        ("<urlopen error [Errno 113] No route to host>", Status.CONNECT),
        ("[Errno 104] Connection reset by peer", Status.DISCONNECTED),
        ("Remote end closed connection without response", Status.DISCONNECTED),
        ("<urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired "
         "(_ssl.c:1006)>", Status.TLS),
        ("IncompleteRead(1024 bytes read, 71 more expected)", Status.TRUNCATED),
        ("Use of image disallowed by X-Robots-Tag directive", Status.OPTED_OUT),
        ("hash mismatch", Status.HASH_MISMATCH),
        ("<urlopen error unknown url type: gopher>", Status.UNSUPPORTED_SCHEME),
        ("unknown url type: 'nonsense'", Status.INVALID_URL),
        ("URL can't contain control characters. '/a b' (found at least ' ')", Status.INVALID_URL),
        ("image too small", Status.TOO_SMALL),
        ("aspect ratio too large", Status.TOO_SMALL),
        ("image area too large", Status.TOO_MANY_PIXELS),
        ("Image decoding error", Status.NOT_AN_IMAGE),
        ("something new", Status.INTERNAL_ERROR),
        (None, Status.INTERNAL_ERROR),
    ],
)  # fmt: skip
def test_messages_become_statuses(message: str | None, status: Status) -> None:
    assert classify_message("failed_to_download", message) is status


def test_an_unknown_failure_of_resizing_is_a_corrupt_picture() -> None:
    assert classify_message("failed_to_resize", "OpenCV(4.11) error: (-215:Assertion failed)") is Status.CORRUPT


def test_a_shard_that_changed_is_refused(root: Root, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adopt(root, [str(folder)])
    whole = snapshot(root)
    cut(folder / "00001.tar", 0.8)
    with pytest.raises(UserError, match="1 of 3 files could not be adopted"):
        adopt(root, [str(folder)])
    assert "00001.tar has changed since it was adopted" in capsys.readouterr().err
    assert snapshot(root) == whole


@pytest.mark.slow
def test_a_folder_in_a_bucket(made: tuple[Path, int]) -> None:
    with s3() as endpoint:
        root = Root("s3://curation/root", **options(endpoint))
        root.fs.put(str(made[0]), "curation/laion", recursive=True)
        adopt(root, ["s3://curation/laion/"])
        found = rows(root)
        assert statuses(root)["ok"] == 28 and len(found) == NUM_ROWS - 1
        assert {row["shard"] for row in found.values() if row["shard"]} == {
            f"s3://curation/laion/0000{i}.tar" for i in (0, 1)
        }
        adopt(root, ["s3://curation/laion"])
        assert len(root.list("plans")) == 1


@pytest.mark.slow
def test_the_other_stages_go_on_from_an_adopted_folder(spark: SparkSession, root: Root, made: tuple[Path, int]) -> None:
    from jobs import dedupe, download, pack, score, selection

    adopt(root, [str(made[0])])
    overrides = ['dedupe.tiers=["exact", "perceptual"]', "download.rounds=0"]
    settings = load_recipe(recipe(Path(root.path).parent / "meta", 1, 3), overrides)
    for stage in (download, dedupe, score, selection, pack):
        stage.run(spark, settings, root)
    assert verify(root) is None
    kept = Manifest(root).query("select count(*), count(train_shard) from manifest where kept").fetchall()[0]
    assert kept[0] == kept[1] > 5
