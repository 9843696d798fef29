"""The report: a funnel whose counts add up, text that is plain, a page that loads nothing and hides nothing."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from curation import schema
from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.report import write_html
from curation.report.safety import is_known_safe
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot


class _Page(HTMLParser):
    """Collects what a browser could load, and checks that tags are balanced."""

    void = frozenset({"meta", "img", "br", "rect", "line", "input", "path", "circle"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.images: list[bytes] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "object", "form", "base")
        for name, value in attrs:
            assert not name.startswith("on")
            if tag == "a" and name == "href":
                assert re.fullmatch(r"#s\d+", value or "")
                continue
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
    assert "Funnel" in page.text and ("No picture has come yet: run `curate download`." in page.text) != bool(stages)


def test_a_missing_folder_is_one_sentence_and_nothing_is_left(made: SmallRoot, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        write_html(made.root, tmp_path / "missing" / "report.html")
    write_html(made.root, tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["report.html"]


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


def test_a_score_that_two_columns_hold_is_charted_once(root: Root, tmp_path: Path) -> None:
    made = small_root.build(root)
    for unit in UNITS:
        uids = sorted(u for u, row in made.downloads.items() if row["status"] == "ok" and made.units[u] == unit)
        score = pa.array([made.samples[uid]["clip_similarity"] for uid in uids], pa.float32())
        root.publish_parquet(f"scores_clip_score/{unit}.parquet", pa.table({"uid": uids, "clip_score": score}))
    write_html(root, tmp_path / "report.html")
    columns = re.findall(r"<figcaption>([^<]*)", (tmp_path / "report.html").read_text())
    assert "clip_similarity, clip_score" in columns and "clip_score" not in columns
    assert len(columns) == len(set(columns)) and "clip_similarity_l14" in columns


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
