"""`Manifest.show`: the pictures of a condition as HTML that stands alone, guarded as the page of `curate browse` is."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pyarrow as pa
import pytest

from curation import Manifest, schema
from curation.errors import UserError
from curation.sheet.manifest import MAX_PICTURES
from curation.storage import Root
from tests.support import small_root
from tests.support.chromium import open_browser
from tests.support.small_root import SmallRoot


@pytest.fixture
def made(tmp_path: Path) -> SmallRoot:
    """A root with every stage behind it."""
    root = Root(tmp_path / "root")
    root.create()
    return small_root.finish(root)


def test_pictures_come_in_the_order_that_is_asked_for_with_the_values_that_are_named(made: SmallRoot) -> None:
    with Manifest(made.root) as manifest:
        sheet = manifest.show("status = 'ok' and punsafe <= 0.5 order by clip_similarity desc", limit=9)
        html = sheet._repr_html_()
    wanted = sorted(
        (row for uid, row in made.samples.items() if uid in made.images and row["punsafe"] <= 0.5),
        key=lambda row: (-row["clip_similarity"], row["uid"]),
    )
    assert [row["uid"] for row in sheet.rows] == [row["uid"] for row in wanted[:9]] and len(sheet) == 9
    assert html.count("data:image/jpeg;base64,") == 9 and "<details>" not in html
    assert html.count("clip_similarity 0.") == html.count("punsafe 0") == 9
    assert repr(sheet).startswith(f"<9 pictures of {made.root.base} where status = 'ok' and")


def test_without_a_condition_it_shows_what_is_kept(made: SmallRoot) -> None:
    with Manifest(made.root) as manifest:
        kept = manifest.query("select uid from manifest where kept order by uid").fetchall()
        sheet, everything = manifest.show(), manifest.show("", limit=MAX_PICTURES)
    assert {row["uid"] for row in sheet.rows} == {uid for (uid,) in kept}
    assert len(everything) == 40 and "http 404" in _decode_drawings(everything._repr_html_())


def _decode_drawings(html: str) -> str:
    import base64

    return "".join(base64.b64decode(d).decode() for d in re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", html))


def test_more_pictures_than_a_page_of_the_wall_are_shown_once_each(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.create()
    small_root.build(root, 150)
    with Manifest(root) as manifest:
        for where in ("", "order by clip_similarity"):
            assert len({row["uid"] for row in manifest.show(where, limit=131).rows}) == 131


def test_pictures_that_no_score_calls_safe_are_covered(made: SmallRoot) -> None:
    with Manifest(made.root) as manifest:
        sheet = manifest.show("status = 'ok' and punsafe > 0.5", limit=5)
    html = sheet._repr_html_()
    assert html.count("<details><summary>") == 5 and "the 5 that no score calls safe are blurred until clicked" in html
    covers = re.findall(r'click to see it" src="([^"]+)"', html)
    clear = re.findall(r'</summary><img alt="[^"]*" src="([^"]+)"', html)
    assert len(covers) == len(clear) == 5 and not {*covers} & {*clear}


def test_html_of_captions_and_sources_is_text(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    root.create()
    made = small_root.build(root)
    uid, unit = next(item for item in made.units.items() if item[0] in made.images)
    row = {**made.samples[uid], "caption": '"><script>alert(1)</script>', "source": "<b>&x"}
    rows = [row if one["uid"] == uid else one for u, one in made.samples.items() if made.units[u] == unit]
    root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema.SAMPLES))
    with Manifest(root) as manifest:
        sheet = manifest.show(f"uid = '{uid}' and caption <> '<i>'")
    sheet.save(tmp_path / "sheet.html")
    for html in (sheet._repr_html_(), (tmp_path / "sheet.html").read_text(encoding="utf-8")):
        assert "<script" not in html and "<b>" not in html and "<i>" not in html
        assert "&lt;script&gt;" in html and "&lt;b&gt;&amp;x" in html and "&lt;i&gt;" in html


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("kept; drop view manifest", "One condition at a time"),
        ("uid in (select content from read_text('/etc/passwd'))", "reads the views of the root and no files"),
        ("uid in (select name from duckdb_settings())", "reads the views of the root and no files"),
        ("kept limit 5", "no UNION, GROUP BY or LIMIT"),
        ("select * from manifest", "This is a whole query"),
        ("kepd", 'Referenced column "kepd" not found'),
        ("copy manifest to 'x'", "This page only reads"),
    ],
)
def test_sql_that_does_more_than_choose_rows_is_one_sentence(made: SmallRoot, where: str, said: str) -> None:
    with Manifest(made.root) as manifest, pytest.raises(UserError, match=re.escape(said)):
        manifest.show(where)


@pytest.mark.parametrize("limit", [0, -1, MAX_PICTURES + 1])
def test_a_limit_out_of_range_is_one_sentence(made: SmallRoot, limit: int) -> None:
    with Manifest(made.root) as manifest, pytest.raises(UserError, match="1 to 600 pictures"):
        manifest.show(limit=limit)


def test_a_query_that_takes_too_long_is_stopped_and_the_manifest_answers_again(made: SmallRoot) -> None:
    endless = "(select count(*) from range(1000000) a, range(1000000) b where a.range * b.range = 7) > 0"
    with Manifest(made.root) as manifest:
        with pytest.raises(UserError, match="took longer than 0.3 seconds and was stopped"):
            manifest.show(f"{endless} order by uid", seconds=0.3)
        assert len(manifest.show(limit=3)) == 3


def test_a_damaged_picture_hides_no_other_and_a_file_that_cannot_be_written_is_one_sentence(
    made: SmallRoot, tmp_path: Path
) -> None:
    shard = next((tmp_path / "root" / "raw").glob("*.tar"))
    shard.write_bytes(shard.read_bytes()[:2_000])
    with Manifest(made.root) as manifest:
        sheet = manifest.show("status = 'ok'", limit=40)
    html = sheet._repr_html_()
    assert "unreadable" in _decode_drawings(html) and "data:image/jpeg" in html
    with pytest.raises(UserError, match="cannot be written"):
        sheet.save(tmp_path)


def test_it_works_where_an_event_loop_runs_as_in_a_notebook(made: SmallRoot) -> None:
    async def ask() -> int:
        with Manifest(made.root) as manifest:
            return len(manifest.show(limit=2))

    assert asyncio.run(ask()) == 2


def test_a_browser_shows_the_page_without_a_request_and_a_click_uncovers(made: SmallRoot, tmp_path: Path) -> None:
    with Manifest(made.root) as manifest:
        manifest.show("status = 'ok' order by punsafe desc", limit=12).save(tmp_path / "sheet.html")
    with open_browser() as browser:
        colours = []
        for dark in (False, True):
            browser.resize(1280, 800, dark=dark)
            browser.open(f"file://{tmp_path}/sheet.html")
            colours.append(browser.ask("getComputedStyle(document.body).backgroundColor"))
            browser.wait("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert colours[0] != colours[1]
        shown = "document.querySelector('details > img').checkVisibility()"
        assert browser.ask(shown) is False
        browser.click("summary")
        assert browser.ask(shown) is True
        assert browser.errors == []
        assert {url for url in browser.requests if not url.startswith("data:")} == {f"file://{tmp_path}/sheet.html"}
