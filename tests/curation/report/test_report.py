"""The report: a funnel whose counts add up, text that is plain, a page that loads nothing and hides nothing."""

from __future__ import annotations

import base64
import io
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from curation import schema
from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.report import charts, write_html
from curation.report.safety import is_known_safe
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot


class _Page(HTMLParser):
    """Collects what a browser could load, and checks that tags are balanced."""

    void = frozenset({"meta", "img", "br", "rect", "line"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.images: list[bytes] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object", "a", "form", "base")
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "data", "action", "background"):
                self.loads.append(value or "")
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def _page(root: Root, folder: Path) -> _Page:
    write_html(root, folder / "report.html")
    return _Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_loads_nothing_and_its_pictures_are_the_stored_ones(made: SmallRoot, tmp_path: Path) -> None:
    page = _page(made.root, tmp_path)
    assert page.loads and all(url.startswith("data:image/jpeg;base64,") for url in page.loads)
    assert "url(" not in page.text and "@import" not in page.text
    sizes = [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size for url in page.loads]
    assert all(max(size) <= 144 for size in sizes)
    for section in ("Funnel", "Sources", "Scores", "Kept", "Dropped by wide", "Downloads that failed"):
        assert section in page.text


def test_hostile_captions_stay_text(root: Root, tmp_path: Path) -> None:
    made = small_root.build(root)
    hostile = "</title></style><script>alert(1)</script><img src=http://evil.test/x onerror='x'>\"'&amp;"
    for unit in UNITS:
        rows = [row | {"caption": hostile, "source": hostile} for uid, row in sorted(made.samples.items())]
        rows = [row for row in rows if made.units[row["uid"]] == unit]
        root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema.SAMPLES))
    small_root.select(made)
    page = _page(root, tmp_path)
    assert hostile in page.text and all(url.startswith("data:") for url in page.loads)


def test_a_damaged_picture_does_not_hide_the_rest(made: SmallRoot, tmp_path: Path) -> None:
    whole = len(_page(made.root, tmp_path).loads)
    kept = Manifest(made.root).query('select shard, "offset" from manifest where kept order by uid').fetchall()[0]
    path = Path(made.root.full(kept[0]))
    data = bytearray(path.read_bytes())
    data[kept[1] : kept[1] + 64] = bytes(64)
    path.write_bytes(data)
    page = _page(made.root, tmp_path)
    assert "unreadable" in page.text and 0 < len(page.loads) < whole


@pytest.mark.parametrize("stages", [0, 1])
def test_unfinished_roots_have_a_page(root: Root, tmp_path: Path, stages: int) -> None:
    if stages:
        small_root.build(root)
    page = _page(root, tmp_path)
    assert "Funnel" in page.text and ("Scores" in page.text) == bool(stages)


def test_a_missing_folder_is_one_sentence_and_nothing_is_left(made: SmallRoot, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        write_html(made.root, tmp_path / "missing" / "report.html")
    write_html(made.root, tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["report.html"]


def test_distributions_count_every_picture_once(root: Root) -> None:
    """Bins, categories and unknown rows add up to the pictures; outliers fall into the end bins."""
    made = small_root.build(root, 60)
    random_ = random.Random(3)
    for unit in UNITS:
        uids = sorted(u for u, row in made.downloads.items() if row["status"] == "ok" and made.units[u] == unit)
        score = [random_.choice([None, float("nan"), 6016.0, random_.random()]) for _ in uids]
        language = [random_.choice([None, "en", "de", "<b>"]) for _ in uids]
        table = pa.table({"uid": uids, "score": pa.array(score, pa.float32()), "language": language})
        root.publish_parquet(f"scores_mixed/{unit}.parquet", table)
    small_root.select(made)
    num_pictures = len(made.images)
    found = {chart.column: chart for chart in charts.distributions(Manifest(root))}
    assert {"score", "language", "clip_similarity", "width"} <= set(found)
    for chart in found.values():
        assert sum(chart.counts) + chart.num_unknown == num_pictures
        assert all(0 <= kept <= count for count, kept in zip(chart.counts, chart.kept, strict=True))
        assert "<b>" not in charts.render_svg(chart)
    assert found["score"].counts[-1] > 0 and found["language"].num_unknown > 0


def test_what_a_rule_looked_at_stands_under_each_picture_it_dropped(made: SmallRoot, tmp_path: Path) -> None:
    current = made.root.current("selection")
    assert current is not None
    config = current["config"] | {"rules": {"wide": "pwatermark < 0.1 and aesthetic > 5"}}
    made.root.publish_current("selection", current["fingerprint"], current["files"], config, {})
    text = _page(made.root, tmp_path).text
    dropped = [
        uid for uid, row in made.downloads.items() if row["status"] == "ok" and row["width"] / row["height"] < 1.2
    ]
    part = text[text.index("Dropped by wide: ") :]
    assert part.startswith(f"Dropped by wide: {len(dropped)}") and "Kept: " in text
    for uid in sorted(dropped)[:12]:
        assert f"aesthetic {made.samples[uid]['aesthetic']:.4g}" in part
        assert f"pwatermark {made.samples[uid]['pwatermark']:.4g}" in part


def test_bins_of_whole_numbers_hold_whole_numbers(root: Root) -> None:
    """Few values get a bin each, many get bins of equal whole width."""
    made = small_root.build(root, 60)
    for unit in UNITS:
        uids = sorted(u for u, row in made.downloads.items() if row["status"] == "ok" and made.units[u] == unit)
        few, many = ([i % 4 for i in range(len(uids))], [i * 17 for i in range(len(uids))])
        columns = {"few": pa.array(few, pa.int32()), "many": pa.array(many, pa.int32())}
        root.publish_parquet(f"scores_numbers/{unit}.parquet", pa.table({"uid": uids, **columns}))
    found = {chart.column: chart for chart in charts.distributions(Manifest(root))}
    assert found["few"].labels == ("0 to 1", "1 to 2", "2 to 3", "3 to 4") and set(found["few"].counts) == {12}
    assert len(found["many"].labels) <= charts.NUM_BINS and sum(found["many"].counts) == len(made.images)
    edges = [label.split(" to ")[0] for label in found["many"].labels]
    assert all(edge.isdigit() for edge in edges)


def test_a_score_that_two_columns_hold_is_charted_once(root: Root) -> None:
    made = small_root.build(root)
    for unit in UNITS:
        uids = sorted(u for u, row in made.downloads.items() if row["status"] == "ok" and made.units[u] == unit)
        score = pa.array([made.samples[uid]["clip_similarity"] for uid in uids], pa.float32())
        root.publish_parquet(f"scores_clip_score/{unit}.parquet", pa.table({"uid": uids, "clip_score": score}))
    columns = [chart.column for chart in charts.distributions(Manifest(root))]
    assert "clip_similarity, clip_score" in columns and "clip_score" not in columns
    assert len(columns) == len(set(columns)) and "clip_similarity_l14" in columns


def test_pictures_that_no_score_calls_safe_are_blurred(root: Root, tmp_path: Path) -> None:
    made = small_root.build(root)
    unknown = sorted(made.images)[::3]
    for unit in UNITS:
        rows = [row for uid, row in sorted(made.samples.items()) if made.units[uid] == unit]
        rows = [row | ({"punsafe": None} if row["uid"] in unknown else {}) for row in rows]
        root.publish_parquet(f"samples/{unit}.parquet", pa.Table.from_pylist(rows, schema.SAMPLES))
    small_root.select(made, min_aspect=0)
    write_html(root, tmp_path / "report.html")
    images = re.findall(r"<img( class=\"unsafe\")?", (tmp_path / "report.html").read_text())
    shown = sorted(made.images)[:12]
    safe = [uid not in unknown and round(made.samples[uid]["punsafe"], 6) <= 0.5 for uid in shown]
    assert [not blur for blur in images] == safe and {True, False} == set(safe)


@pytest.mark.parametrize(
    ("row", "safe"),
    [
        ({}, False),
        ({"punsafe": float("nan")}, False),
        ({"punsafe": 0.1}, True),
        ({"punsafe": 0.1, "opennsfw_score": 0.9}, False),
        ({"nsfw": "UNLIKELY"}, True),
        ({"nsfw": "UNSURE", "punsafe": 0.1}, False),
        ({"nsfw": "", "unsafe_score": 0.5}, True),
    ],
)
def test_safe_is_what_something_calls_safe_and_nothing_unsafe(row: dict[str, object], safe: bool) -> None:
    assert is_known_safe(row) == safe
