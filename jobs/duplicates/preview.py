"""`curate dedupe --preview FILE.html`: pairs over bins of similarity, to choose max_hamming and min_cosine by eye.

Compares all pairs of the rows of jobs/duplicates/preview_sample.py, well below the thresholds, and decides nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from curation.duplicates.blocks import BLOCK
from curation.duplicates.clustering import normalise, usable
from curation.duplicates.contact_sheet import Bin, Pair, render_page
from curation.duplicates.hamming import BITS
from curation.duplicates.phash import NUM_SET_BITS
from curation.duplicates.verification import correlate, make_fingerprint
from curation.errors import UserError
from curation.files import whole_file
from curation.recipe.config import Recipe
from curation.report.safety import is_known_safe
from curation.storage import Root
from curation.tables import embedded_units
from jobs.duplicates.checks import check_vectors
from jobs.duplicates.plan import check_embedded, resolve_doubtful
from jobs.duplicates.preview_sample import draw_sample
from jobs.embed import check_same_model, read_stored_picture
from jobs.embedders import find_embedder, resolve_model

PAIRS_PER_BIN = 12
COSINE_BIN = 0.025
LOWEST_COSINE = 0.5
MAX_HAMMING = 16


@dataclass(frozen=True, kw_only=True)
class PreviewPlan:
    """What a preview compares, and where the recipe cuts: pairs of at least `min_cosine` or at most `max_hamming`."""

    embedded: bool
    """Whether vectors are compared beside hashes."""
    min_cosine: float | None
    """None where no vectors are compared, or where nobody knows a cosine yet."""
    doubtful: tuple[float, float] | None
    """The range of cosines in which the pictures decide; None for none."""
    min_correlation: float
    max_hamming: int
    min_entropy: float


def preview(spark: SparkSession, recipe: Recipe, root: Root, output: str) -> None:
    """Write the contact sheet of `root` to `output`. Raises UserError for what is missing or damaged."""
    with whole_file(Path(output)) as file:
        plan = plan_preview(recipe, root)
        rows, vectors, how = draw_sample(spark, root, plan.embedded, plan.min_entropy)
        if len(rows) < 2:
            raise UserError(f"{root.base} has {len(rows)} pictures to compare: run `curate download` first.")
        bins = [] if vectors is None else _fill_vector_bins(root, rows, vectors, plan)
        bins += _fill_hash_bins(root, rows, plan.max_hamming, plan.min_entropy)
        note = (
            f"{len(rows):,} of the root's pictures ({how}), of exact copies one each, compared with each other. The "
            f"red line is where the recipe cuts; where the pairs above it are not the same picture, move it up. "
            f"Pictures that no score calls safe are blurred until the pointer is over them."
        )
        file.write(render_page(f"Near-duplicates in {root.base}", note, bins).encode())


def plan_preview(recipe: Recipe, root: Root) -> PreviewPlan:
    """What to compare: hashes always, vectors where there are any. Raises UserError for what the tier would refuse."""
    config = recipe.dedupe
    embedded = "embedding" in config.tiers and bool(embedded_units(root))
    limit, doubtful = config.min_cosine, None
    if embedded:
        model, units = resolve_model(recipe), root.units("downloads")
        check_embedded(root, units)
        check_vectors(root, units)
        check_same_model(root, model)
        limit = find_embedder(model).min_cosine if limit is None else limit
        doubtful = None if limit is None else resolve_doubtful(config, model)
    return PreviewPlan(
        embedded=embedded,
        min_cosine=limit,
        doubtful=doubtful,
        min_correlation=config.min_correlation,
        max_hamming=config.max_hamming,
        min_entropy=config.min_entropy,
    )


class PairSample:
    """A seeded sample of the pairs of each bin, from blocks of similarities; never holds more than the sample."""

    def __init__(self, rows: np.ndarray, num_bins: int) -> None:
        self._rows, self._random = rows, np.random.default_rng(0)
        self.totals = [0] * num_bins
        self._drawn = [np.zeros((0, 4)) for _ in range(num_bins)]

    def add(self, first: int, second: int, bins: np.ndarray, similarity: np.ndarray) -> None:
        """A block whose corner is pair (`first`, `second`) of the rows; `bins` int `[a, b]` is -1 for other pairs."""
        upper = np.arange(first, first + bins.shape[0])[:, None] < np.arange(second, second + bins.shape[1])
        for number in range(len(self.totals)):
            flat = np.flatnonzero((bins == number) & upper)
            self.totals[number] += len(flat)
            draws = self._random.random(len(flat))
            least = np.argsort(draws)[:PAIRS_PER_BIN]
            left, right = np.unravel_index(flat[least], bins.shape)
            pairs = (draws[least], self._rows[first + left], self._rows[second + right], similarity[left, right])
            together = np.concatenate([self._drawn[number], np.stack(pairs, axis=1)])
            self._drawn[number] = together[np.argsort(together[:, 0])[:PAIRS_PER_BIN]]

    def pairs(self, number: int) -> list[tuple[int, int, float]]:
        """The sample of a bin: (left, right, similarity), most alike first."""
        pairs = [(int(left), int(right), float(value)) for _, left, right, value in self._drawn[number]]
        return sorted(pairs, key=lambda pair: (-pair[2], pair[0], pair[1]))


def _fill_vector_bins(root: Root, rows: pa.Table, vectors: np.ndarray, plan: PreviewPlan) -> list[Bin]:
    known = np.flatnonzero(usable(vectors))
    limits: tuple[float, ...] = plan.doubtful or ((plan.min_cosine,) if plan.min_cosine is not None else ())
    vectors, edges = normalise(vectors[known]), _place_bin_edges(*limits)
    draw = PairSample(known, len(edges) - 1)
    for first in range(0, len(known), BLOCK):
        for second in range(first, len(known), BLOCK):
            cosine = vectors[first : first + BLOCK] @ vectors[second : second + BLOCK].T
            bins = (len(edges) - 1 - np.searchsorted(edges[::-1], cosine, side="right")).clip(min=0)
            draw.add(first, second, np.where(cosine >= edges[-1], bins, -1), cosine)
    bins = []
    for number, (high, low) in enumerate(zip(edges, edges[1:], strict=False)):
        title = f"cosine {low:.3f} to {high:.3f}"
        is_removed = bool(limits) and low >= limits[-1]
        made = _make_bin(root, rows, title, draw.totals[number], draw.pairs(number), is_removed)
        is_doubtful = plan.doubtful is not None and plan.doubtful[0] <= low < plan.doubtful[1]
        bins.append(_verify_pairs(made, plan.min_correlation) if is_doubtful else made)
    return bins


def _verify_pairs(item: Bin, enough: float) -> Bin:
    """`item` with what a second look says of each of its pairs."""

    def verify(pair: Pair) -> Pair:
        left, right = make_fingerprint(pair.left), make_fingerprint(pair.right)
        agree = left is not None and right is not None and correlate(left, right, enough) >= enough
        return replace(pair, label=f"{pair.label} {'verified' if agree else 'not verified'}")

    return replace(item, pairs=tuple(map(verify, item.pairs)), is_doubtful=True)


def _place_bin_edges(*limits: float) -> np.ndarray:
    """Falling limits of the bins from 1 to about LOWEST_COSINE, `limits` among them."""
    anchor = limits[-1] if limits else 1.0
    above, below = (int((end - anchor) / COSINE_BIN) for end in (1.0, LOWEST_COSINE))
    inner = anchor + np.arange(above, below - 1, -1) * COSINE_BIN
    inner = inner[np.abs(inner[:, None] - np.array(limits[:-1])).min(axis=1, initial=1) > COSINE_BIN / 100]
    inner = np.sort(np.r_[inner, limits[:-1]])[::-1]
    edges: np.ndarray = np.r_[1.0, inner[inner < 1 - COSINE_BIN / 100]]
    return edges


def _fill_hash_bins(root: Root, rows: pa.Table, max_hamming: int, min_entropy: float) -> list[Bin]:
    """Bins of the hashes that the perceptual tier would compare: not those of plain pictures."""
    values = np.array([int(h or "0", 16) for h in rows["phash"].to_pylist()], np.uint64)
    detailed = rows["entropy"].fill_null(8.0).to_numpy() >= min_entropy
    known = np.flatnonzero(detailed & (np.bitwise_count(values) == NUM_SET_BITS))
    values, draw = values[known], PairSample(known, MAX_HAMMING // 2 + 1)
    for first in range(0, len(known), BLOCK):
        for second in range(first, len(known), BLOCK):
            # Two such hashes have as many bits set, so they differ in an even number of bits.
            distance = np.bitwise_count(values[first : first + BLOCK, None] ^ values[second : second + BLOCK])
            bins = np.where(distance <= MAX_HAMMING, distance // 2, -1).astype(np.int32)
            draw.add(first, second, bins, 1 - distance / BITS)
    titles = [f"perceptual hashes {2 * number} bits apart" for number in range(len(draw.totals))]
    return [
        _make_bin(root, rows, title, draw.totals[number], draw.pairs(number), 2 * number <= max_hamming)
        for number, title in enumerate(titles)
    ]


def _make_bin(
    root: Root, rows: pa.Table, title: str, total: int, drawn: list[tuple[int, int, float]], is_removed: bool
) -> Bin:
    def picture(i: int) -> bytes:
        return read_stored_picture(root, rows.slice(i, 1).to_pylist()[0])

    def is_blurred(i: int) -> bool:
        return not is_known_safe(rows.slice(i, 1).to_pylist()[0])

    uids = rows["uid"]
    pairs = tuple(
        Pair(
            left=picture(left),
            right=picture(right),
            similarity=similarity,
            label=f"{uids[left].as_py()[:6]} {uids[right].as_py()[:6]}",
            is_blurred=(is_blurred(left), is_blurred(right)),
        )
        for left, right, similarity in drawn
    )
    return Bin(title=title, total=total, pairs=pairs, is_removed=is_removed)
