"""Galleries: pictures that are safe by a score are shown plainly, and a page takes so many bytes of them."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from curation import schema
from curation.manifest.manifest import Manifest
from curation.report import write_html
from curation.report.pictures import PictureBudget, render_galleries
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot


def test_pictures_that_no_score_calls_safe_are_blurred(root: Root, tmp_path: Path) -> None:
    made = small_root.build(root)
    unknown = sorted(made.images)[::3]
    for unit in UNITS:
        rows = [row for uid, row in sorted(made.samples.items()) if made.units[uid] == unit]
        rows = [row | ({"punsafe": None} if row["uid"] in unknown else {}) for row in rows]
        root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema.SAMPLES))
    small_root.select(made, min_aspect=0)
    write_html(root, tmp_path / "report.html")
    images = re.findall(r"(<input type=\"checkbox\"[^>]*>)?<img", (tmp_path / "report.html").read_text())
    shown = sorted(made.images)[:12]
    safe = [uid not in unknown and round(made.samples[uid]["punsafe"], 6) <= 0.5 for uid in shown]
    assert [not blur for blur in images] == safe and {True, False} == set(safe)


def test_a_budget_is_never_exceeded_and_a_smaller_picture_may_still_fit() -> None:
    budget = PictureBudget(10)
    assert [budget.take(count) for count in (6, 5, 4, 1)] == [True, False, True, False]


@pytest.mark.parametrize(("left", "is_shown"), [(0, False), (10_000_000, True)])
def test_pictures_beyond_the_bytes_of_a_page_are_left_out(made: SmallRoot, left: int, is_shown: bool) -> None:
    with closing(Manifest(made.root)) as manifest:
        galleries = dict(render_galleries(manifest, {"wide": "width / height >= 1.2"}, PictureBudget(left)))
    assert set(galleries) == {"kept", "wide"} and galleries["kept"].count("<figure>") == 12
    assert ("<img" in galleries["kept"]) == is_shown
    assert ("left out: the page has pictures enough" in galleries["kept"]) != is_shown


def test_beside_a_duplicate_stands_the_picture_that_was_kept_instead(root: Root) -> None:
    made = small_root.build(root)
    removed, kept = sorted(made.images)[:2]
    small_root.duplicates(made, {removed: kept})
    small_root.select(made, min_aspect=0)
    with closing(Manifest(root)) as manifest:
        gallery = dict(render_galleries(manifest, {}, PictureBudget()))["kept"]
    assert gallery.count('class="instead"') == 1 and f"kept instead: {kept}" in gallery
