"""Scores: one table a filter, rows only for pictures that came, each unit once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import filters
from curation.errors import UserError
from curation.recipe.config import Recipe, SourceConfig
from curation.recipe.select_config import SelectConfig
from curation.storage import Root
from filters.base import READABLE
from jobs import score
from tests.support import small_root
from tests.support.own_filters import CountCaptions
from tests.support.small_root import UNITS, SmallRoot

FILTERS: dict[str, dict[str, Any]] = {"aspect_ratio": {}, "language": {}, "blur": {}, "entropy": {"max_side": 64}}


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return small_root.build(root)


def _run(filters: dict[str, dict[str, Any]], root: Root) -> None:
    score.run_here(Recipe(filters=filters, select=SelectConfig(threads=1)), root)


def _ok(made: SmallRoot, unit: str) -> list[str]:
    return sorted(u for u, row in made.downloads.items() if row["status"] == "ok" and made.units[u] == unit)


def test_scores_equal_each_filter_on_each_row_alone(made: SmallRoot) -> None:
    _run(FILTERS, made.root)
    for unit in UNITS:
        for name, options in FILTERS.items():
            item = filters.build(name, options)
            table = made.root.read_parquet(f"scores_{name}/{unit}.parquet")
            assert table["uid"].to_pylist() == _ok(made, unit)
            for row in table.to_pylist():
                uid = row.pop("uid")
                known = made.samples[uid] | made.downloads[uid] | {"image": made.images[uid]}
                fields = [READABLE[column] for column in item.reads]
                alone = pa.RecordBatch.from_pylist([{f.name: known[f.name] for f in fields}], pa.schema(fields))
                assert item.apply(alone).to_pylist() == [row]


def test_only_what_is_missing_is_computed(made: SmallRoot) -> None:
    _run({"aspect_ratio": {}}, made.root)
    first = Path(made.root.full(f"scores_aspect_ratio/{UNITS[0]}.parquet"))
    other = Path(made.root.full(f"scores_aspect_ratio/{UNITS[1]}.parquet"))
    data, stamp = other.read_bytes(), first.stat().st_mtime_ns
    other.unlink()
    _run({"aspect_ratio": {}, "entropy": {}}, made.root)
    assert other.read_bytes() == data and first.stat().st_mtime_ns == stamp
    assert made.root.units("scores_entropy") == list(UNITS)


def test_a_filter_that_reads_a_caption_which_nothing_has_is_refused(
    made: SmallRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filters, "build", lambda *_: CountCaptions())
    with pytest.raises(UserError, match="Filter count reads caption_2, and samples have caption alone"):
        score.check(Recipe(filters={"count": {}}), made.root)
    source = SourceConfig(name="s", paths=("x",), columns={"caption": ("a", "b")})
    score.check(Recipe(filters={"count": {}}, sources=(source,)), made.root)


def test_changed_options_of_a_scored_filter_are_refused(made: SmallRoot) -> None:
    _run({"entropy": {}}, made.root)
    with pytest.raises(UserError, match="scores_entropy was made with other settings"):
        _run({"entropy": {"max_side": 32}}, made.root)


def test_an_embedding_reaches_the_row_it_belongs_to(made: SmallRoot, tmp_path: Path) -> None:
    head = tmp_path / "head.npz"
    np.savez(head, weight=np.array([[1.0, 0.0]]), bias=np.array([2.0]))
    angles: dict[str, float] = {}
    for unit in UNITS:
        uids = _ok(made, unit)[1:][::-1]  # one picture has none, and the order is not that of the other tables
        angles |= {uid: float(i) / 10 for i, uid in enumerate(uids)}
        matrix = io.BytesIO()
        np.save(matrix, np.array([[3 * np.cos(angles[u]), 3 * np.sin(angles[u])] for u in uids], np.float16))
        made.root.publish(f"embeddings/img_emb/img_emb_{unit}.npy", matrix.getvalue())
        made.root.publish_parquet(f"embeddings/metadata/metadata_{unit}.parquet", pa.table({"uid": uids}))
    _run({"aesthetic_head": {"head": str(head)}}, made.root)
    rows = [r for u in UNITS for r in made.root.read_parquet(f"scores_aesthetic_head/{u}.parquet").to_pylist()]
    found = {row["uid"]: row["aesthetic_head"] for row in rows}
    assert {uid for uid, value in found.items() if value is None} == {_ok(made, unit)[0] for unit in UNITS}
    for uid, angle in angles.items():
        assert found[uid] == pytest.approx(2 + np.cos(angle), abs=2e-3)


@pytest.mark.parametrize(
    ("chosen", "sentence"),
    [
        ({"aspect_ration": {}}, "did you mean aspect_ratio"),
        ({"blur": {"max_sid": 3}}, "did you mean max_side"),
        ({"blur": {"max_side": 1}}, "max_side must be at least 3"),
        ({"aesthetic_head": {"head": "missing.pth"}}, "run `curate embed` first"),
        ({"concept_match": {"entries": "missing.txt"}}, "cannot be read"),
        ({"concept_match": {"entries": "/dev/null"}}, "is empty"),
        ({"opennsfw": {"model": __file__}}, "is no ONNX model|pip install onnxruntime"),
    ],
)
def test_bad_filters_are_refused_before_anything_is_written(
    made: SmallRoot, chosen: dict[str, dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        _run({"aspect_ratio": {}} | chosen, made.root)
    assert not made.root.exists("scores_aspect_ratio")


def test_without_downloads_it_says_what_to_run(root: Root) -> None:
    with pytest.raises(UserError, match="curate download"):
        _run({"entropy": {}}, root)


def test_a_unit_whose_pictures_were_all_lost_has_empty_scores(made: SmallRoot) -> None:
    for uid, row in made.downloads.items():
        if made.units[uid] == UNITS[0]:
            made.downloads[uid] = dict.fromkeys(row) | {"uid": uid, "status": "dns"}
    small_root.write_downloads(made, UNITS[0])
    _run(FILTERS, made.root)
    for name, options in FILTERS.items():
        empty = made.root.read_parquet(f"scores_{name}/{UNITS[0]}.parquet")
        full = made.root.read_parquet(f"scores_{name}/{UNITS[1]}.parquet")
        assert empty.num_rows == 0 < full.num_rows and empty.schema == full.schema
        assert empty.column_names == ["uid", *filters.build(name, options).writes.names]
