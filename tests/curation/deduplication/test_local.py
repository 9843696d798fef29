"""The duplicates of metadata, beside what comparing every pair of rows says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import sorting
from curation.manifest.manifest import Manifest
from curation.recipe.config import DedupeConfig
from curation.storage import Root
from jobs import dedupe
from tests.support.hashed_root import HASH, Row, fill, near, recipe, sha


def has_bits(phash: str | None) -> bool:
    """Whether a hash has as many bits set as that of a picture."""
    return phash is not None and int(phash, 16).bit_count() == 32


def oracle(rows: Sequence[Row], config: DedupeConfig) -> dict[int, tuple[int, str]]:
    """Row → the one that removes it and the tier, by comparing all pairs; the widest picture is kept, no two equal."""
    ranked = sorted(
        (i for i, row in enumerate(rows) if row.get("status") != "http_404"), key=lambda i: -rows[i]["width"]
    )
    texts = {i: (rows[i].get("caption") or "").strip(" ").lower() if config.same_caption else "" for i in ranked}
    contents: dict[int, object] = dict(zip(ranked, ranked, strict=True))
    if "exact" in config.tiers:
        for i in ranked:
            same = [j for j in ranked if rows[i]["sha256"] is not None and rows[j]["sha256"] == rows[i]["sha256"]]
            pixels = [rows[j]["pixel_sha256"] for j in same or [i] if rows[j]["pixel_sha256"] is not None]
            contents[i] = max(pixels, default=rows[i]["sha256"] or i)
    best = {i: next(j for j in ranked if (contents[j], texts[j]) == (contents[i], texts[i])) for i in ranked}
    hashed = [i for i in ranked if best[i] == i and has_bits(rows[i]["phash"])]
    gone: dict[int, tuple[int, str]] = {}
    for i in hashed if "perceptual" in config.tiers else []:
        for j in hashed[: hashed.index(i)]:
            bits = (int(rows[i]["phash"], 16) ^ int(rows[j]["phash"], 16)).bit_count()
            if bits <= config.max_hamming and j not in gone and texts[i] == texts[j]:
                gone[i] = (j, "perceptual")
                break
    copies = {i: gone.get(best[i], (best[i], "exact")) for i in ranked if best[i] != i}
    return gone | copies


def found(root: Root, rows: Sequence[Row]) -> dict[int, tuple[int, str]]:
    """What the table says, in the numbers of `rows`."""
    said = Manifest(root).query(
        "select s.url, k.url, d.tier from duplicates d join samples s using (uid) join samples k on k.uid = d.kept_uid"
    )
    return {int(a.rpartition("/")[2]): (int(b.rpartition("/")[2]), tier) for a, b, tier in said.fetchall()}


@st.composite
def tables(draw: st.DrawFn) -> list[Row]:
    numbers = st.integers(0, 6)
    row = st.fixed_dictionaries(
        {
            "status": st.sampled_from(["ok", "ok", "http_404"]),
            "sha256": st.none() | numbers.map(sha),
            "pixel_sha256": st.none() | numbers.map(lambda n: sha(f"p{n}")),
            "phash": st.none() | st.lists(st.integers(0, 59), max_size=4).map(lambda bits: near(HASH, *bits)),
            "caption": st.sampled_from(["a", "A ", "b", None]),
        }
    )
    rows = draw(st.lists(row, min_size=1, max_size=30))
    widths = draw(st.permutations(range(1, len(rows) + 1)))
    return [row | {"width": width, "height": 1} for row, width in zip(rows, widths, strict=True)]


@settings(max_examples=60, deadline=None)
@given(
    rows=tables(),
    same_caption=st.booleans(),
    tiers=st.sampled_from([("exact", "perceptual"), ("exact",), ("perceptual",)]),
    max_hamming=st.sampled_from([0, 2, 6]),
    piece_rows=st.sampled_from([3, sorting.PIECE_ROWS]),
)
def test_what_all_pairs_say_is_found(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    same_caption: bool,
    tiers: tuple[str, ...],
    max_hamming: int,
    piece_rows: int,
) -> None:
    root = Root(tmp_path_factory.mktemp("oracle") / "root")
    root.create()
    fill(root, rows, num_units=2)
    made = recipe(tiers=tiers, same_caption=same_caption, max_hamming=max_hamming)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorting, "PIECE_ROWS", piece_rows)
        patch.setattr(sorting, "RANGE_ROWS", piece_rows)
        dedupe.run_here(made, root)
    assert found(root, rows) == oracle(rows, made.dedupe)


def test_a_hash_that_very_many_have_takes_memory_by_its_rows(root: Root) -> None:
    rng = np.random.default_rng(0)
    rows: list[Row] = [
        {"sha256": sha(i), "phash": near(HASH), "width": int(w), "height": 1}
        for i, w in enumerate(rng.permutation(3_000))
    ]
    fill(root, rows, num_units=1)
    dedupe.run_here(recipe(), root)
    widest = max(range(len(rows)), key=lambda i: rows[i]["width"])
    assert found(root, rows) == {i: (widest, "perceptual") for i in range(len(rows)) if i != widest}
    statistics = root.read_json(f"duplicates/{(root.current('duplicates') or {})['fingerprint']}/statistics.json")
    assert statistics["rounds"] == [{"edges": 8 * 3_000 - 36, "searched_again": 0}]
    assert not root.list(".scratch")
