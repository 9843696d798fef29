"""Second looks at pairs that embeddings leave in doubt, beside each other: which tells copies from like pictures.

    .venv/bin/python -m benchmarks.dedupe_verifiers --photographs 400

Uses the pictures that `python -m benchmarks.dedupe prepare` made, as many as stand. Thresholds are chosen on the
calibration photographs, figures are of the test photographs. Writes benchmarks/results/dedupe_verifiers.{json,md},
dedupe_correlations.{json,md} from which `min_correlation` was chosen, and dedupe_verified.{json,md} for what it finds
of each kind of copy.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.dedupe_photographs import TARGETS, Edges, Truth, find_near_hashes, find_similar
from benchmarks.dedupe_pictures import MODEL, NUM_TEST, Pictures, load_blocks
from benchmarks.table import write
from curation.duplicates.verification import correlate, make_fingerprint
from curation.images.process import process
from curation.recipe.config import DedupeConfig, DownloadConfig
from jobs.embedders import find_embedder

SAMPLE = 200
"""Right pairs and wrong pairs of each set on which verifiers are compared."""
MAX_WRONG = 0.002
"""Share of the wrong pairs of the calibration photographs that a threshold may let pass."""
COPIES_PER_PHOTOGRAPH = 10
CORRELATIONS = (0.50, 0.54, 0.58, 0.60, 0.62, 0.64, 0.66, 0.68, 0.70, 0.73, 0.76, 0.80, 0.85)
SMALL = 32
MIN_MATCHES = 5
RATIO = 0.8
"""A keypoint matches when its nearest descriptor is nearer than this share of the second nearest (Lowe 2004)."""
MAX_ERROR = 4.0
"""Pixels by which a match may lie beside the transform that RANSAC found."""
PACKAGES = ("faiss-cpu", "numpy", "opencv-python-headless")
Keypoints = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """One way to look: what is kept of a picture, and how well two of those agree."""

    name: str
    describe: Callable[[bytes], Any]
    compare: Callable[[Any, Any], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/bench-dedupe"))
    parser.add_argument("--photographs", type=int, default=NUM_TEST, help="test photographs with copies, at most")
    parser.add_argument("--images", type=Path, default=Path("../shared/data/flickr8k/images"))
    arguments = parser.parse_args()
    pictures, files = load_blocks(arguments.images, arguments.folder / "photographs")
    calibration = np.array([i for i, entry in enumerate(pictures.entries) if entry.group == "calibration"])
    test = np.array([i for i, entry in enumerate(pictures.entries) if entry.group == "test"])
    test = test[: arguments.photographs * COPIES_PER_PHOTOGRAPH]
    sys.stdout.write(_compare_verifiers(pictures, files, calibration, test))
    sys.stdout.write(_list_correlations(pictures, files, {"calibration": calibration, "test": test}))
    sys.stdout.write(_find_copies(pictures, files, test))


def _compare_verifiers(pictures: Pictures, files: list[Path], calibration: np.ndarray, test: np.ndarray) -> str:
    sets = [_draw_doubtful(pictures, members) for members in (calibration, test)]
    rows = [_measure(verifier, pictures, files, sets) for verifier in VERIFIERS]
    notes = [
        f"Pairs of cosine {_band()[0]} to {_band()[1]} under {MODEL}: {len(sets[0][0]):,} of "
        f"{len(calibration) // COPIES_PER_PHOTOGRAPH} calibration photographs and {len(sets[1][0]):,} of "
        f"{len(test) // COPIES_PER_PHOTOGRAPH} test photographs, at most {SAMPLE} right and {SAMPLE} wrong ones each.",
        f"`from` is the smallest score that at most {100 * MAX_WRONG} % of the wrong calibration pairs reach.",
        "CPU milliseconds of one core; decoding is counted in `ms a picture`.",
    ]
    return write("dedupe_verifiers", rows, notes, PACKAGES)


def _band() -> tuple[float, float]:
    band = find_embedder(MODEL).doubtful_cosines
    assert band is not None
    return band


def _draw_doubtful(pictures: Pictures, members: np.ndarray) -> tuple[Edges, np.ndarray]:
    """A seeded sample of the pairs in doubt, and which of them are right."""
    edges, cosine = find_similar(pictures, members, _band()[0])
    edges = edges[cosine < _band()[1]]
    right = Truth(pictures.entries, members).right(edges)
    rng = np.random.default_rng(0)
    chosen = [rng.permutation(np.flatnonzero(mask))[:SAMPLE] for mask in (right, ~right)]
    places = np.sort(np.concatenate(chosen))
    return edges[places], right[places]


def _measure(
    verifier: Verifier, pictures: Pictures, files: list[Path], sets: list[tuple[Edges, np.ndarray]]
) -> dict[str, Any]:
    needed = np.unique(np.concatenate([edges.ravel() for edges, _ in sets]))
    stored = {int(i): _read_stored(files[i]) for i in needed}
    started = time.process_time()
    described = {i: verifier.describe(data) for i, data in stored.items()}
    described_s = time.process_time() - started
    started = time.process_time()
    scores = [np.array([verifier.compare(described[a], described[b]) for a, b in edges.tolist()]) for edges, _ in sets]
    compared_s = time.process_time() - started
    (_, known), (_, right) = sets
    wrong = np.sort(scores[0][~known])[::-1]
    limit = float(wrong[int(MAX_WRONG * len(wrong))])
    passed = scores[1] > limit
    return {
        "verifier": verifier.name,
        "from": limit,
        "right found %": 100 * float(passed[right].mean()),
        "wrong found %": 100 * float(passed[~right].mean()),
        "lowest right": float(scores[1][right].min()),
        "highest wrong": float(scores[1][~right].max()),
        "ms a picture": 1e3 * described_s / len(described),
        "ms a pair": 1e3 * compared_s / sum(len(edges) for edges, _ in sets),
    }


def _list_correlations(pictures: Pictures, files: list[Path], groups: dict[str, np.ndarray]) -> str:
    """What each threshold of the correlation finds of all pairs in doubt."""
    rows: list[dict[str, Any]] = [{"correlation": limit} for limit in CORRELATIONS]
    notes = [f"All pairs of cosine {_band()[0]} to {_band()[1]} under {MODEL}, both pictures looked for in the other."]
    for name, members in groups.items():
        edges, cosine = find_similar(pictures, members, _band()[0])
        edges = edges[cosine < _band()[1]]
        right = Truth(pictures.entries, members).right(edges)
        seen = {int(i): make_fingerprint(_read_stored(files[i])) for i in np.unique(edges)}
        scores = np.array([_correlate(seen[a], seen[b], None) for a, b in edges.tolist()])
        for row in rows:
            passed = scores >= row["correlation"]
            row |= {
                f"right of {name} %": 100 * float(passed[right].mean()),
                f"wrong of {name}": int(passed[~right].sum()),
            }
        highest = ", ".join(f"{score:.3f}" for score in np.sort(scores[~right])[::-1][:5])
        notes.append(
            f"{name}: {int(right.sum()):,} right and {int((~right).sum()):,} wrong pairs; highest wrong {highest}."
        )
    return write("dedupe_correlations", rows, notes, PACKAGES)


def _read_stored(file: Path) -> bytes:
    return process(file.read_bytes(), DownloadConfig(), measured=False).data


def _find_copies(pictures: Pictures, files: list[Path], members: np.ndarray) -> str:
    """What embeddings find alone, with a second look, and together with hashes, of each kind of copy."""
    truth, config, (start, end) = Truth(pictures.entries, members), DedupeConfig(), _band()
    min_cosine = find_embedder(MODEL).min_cosine
    assert min_cosine is not None
    edges, cosine = find_similar(pictures, members, start)
    doubtful = edges[cosine < end]
    seen = {int(i): make_fingerprint(_read_stored(files[i])) for i in np.unique(doubtful)}
    began = time.process_time()
    enough = config.min_correlation
    agree = np.array([_correlate(seen[a], seen[b], enough) >= enough for a, b in doubtful.tolist()], bool)
    seconds = time.process_time() - began
    hashes = find_near_hashes(pictures, members, config)
    found = {
        "perceptual": hashes,
        f"embedding, {min_cosine}": edges[cosine >= min_cosine],
        f"embedding, {end}": edges[cosine >= end],
        "verified": doubtful[agree],
    }
    found["before"] = np.unique(np.concatenate([hashes, edges[cosine >= min_cosine]]), axis=0)
    found["now"] = np.unique(np.concatenate([hashes, edges[cosine >= end], doubtful[agree]]), axis=0)
    recalls = {name: truth.recall(pairs) for name, pairs in found.items()}
    rows: list[dict[str, Any]] = [
        {"": kind, **{name: recalls[name][kind] for name in found}, "target": 99.5} for kind in truth.pairs
    ]
    masks = {name: truth.right(pairs) for name, pairs in found.items()}
    precision = {name: 100 * float(mask.mean()) if len(mask) else None for name, mask in masks.items()}
    rows.append({"": "pair precision", **precision, "target": 99.9})
    rows.append({"": "pairs found", **{name: len(mask) for name, mask in masks.items()}, "target": None})
    rows.append({"": "wrong pairs", **{name: int((~mask).sum()) for name, mask in masks.items()}, "target": None})
    notes = [
        f"Per cent of copies that are paired with their original, of {len(truth.pairs['jpeg'])} test photographs with "
        f"{len(TARGETS) + 2} copies each, {len(members):,} pictures; no threshold was chosen on any of them.",
        f"verified: the pairs of cosine {start} to {end} whose pictures correlate by {enough} or more, "
        f"{len(doubtful):,} looked at in {seconds:.0f} CPU seconds. All pairs are looked at here; in a run only "
        "those of rows that are kept.",
        f"before: hashes and cosine {min_cosine}; now: hashes, cosine {end} and what was verified.",
    ]
    return write("dedupe_verified", rows, notes, PACKAGES)


def _correlate(left: np.ndarray | None, right: np.ndarray | None, enough: float | None) -> float:
    return 0.0 if left is None or right is None else correlate(left, right, enough)


def _decode(data: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE))


def _shrink(data: bytes) -> np.ndarray:
    """Grey pixels `[SMALL²]` of length 1 around their mean."""
    small = cv2.resize(_decode(data), (SMALL, SMALL), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    return np.asarray(small / max(1e-6, float(np.linalg.norm(small))))


def _compare_unaligned(left: np.ndarray, right: np.ndarray) -> float:
    mirrored = right.reshape(SMALL, SMALL)[:, ::-1].ravel()
    return max(float(left @ right), float(left @ mirrored))


def _find_keypoints(make: Callable[[], Any], data: bytes) -> tuple[Keypoints, Keypoints]:
    """Keypoints of the picture and of its mirror image."""
    grey = _decode(data)
    return _detect(make(), grey), _detect(make(), np.ascontiguousarray(grey[:, ::-1]))


def _detect(detector: Any, grey: np.ndarray) -> Keypoints:
    keypoints, descriptors = detector.detectAndCompute(grey, None)
    return np.array([point.pt for point in keypoints], np.float32).reshape(-1, 2), descriptors


def _compare_keypoints(norm: int, left: tuple[Keypoints, Keypoints], right: tuple[Keypoints, Keypoints]) -> float:
    return float(max(_count_inliers(norm, left[0], seen) for seen in right))


def _count_inliers(norm: int, left: Keypoints, right: Keypoints) -> int:
    """Places of `left` whose matches in `right` one similarity transform explains."""
    (places, descriptors), (other_places, other_descriptors) = left, right
    if descriptors is None or other_descriptors is None or min(len(places), len(other_places)) < MIN_MATCHES:
        return 0
    found = cv2.BFMatcher(norm).knnMatch(descriptors, other_descriptors, k=2)
    good = [two[0] for two in found if len(two) == 2 and two[0].distance < RATIO * two[1].distance]
    if len(good) < MIN_MATCHES:
        return 0
    here = places[[match.queryIdx for match in good]]
    there = other_places[[match.trainIdx for match in good]]
    transform, inliers = cv2.estimateAffinePartial2D(here, there, method=cv2.RANSAC, ransacReprojThreshold=MAX_ERROR)
    if transform is None or not 0.5 < float(np.hypot(transform[0, 0], transform[1, 0])) < 2:
        return 0
    return len(np.unique((here[inliers[:, 0] > 0] / 8).astype(int), axis=0))


def _make_orb() -> Any:
    return cv2.ORB.create(nfeatures=400, scaleFactor=1.2, nlevels=8, edgeThreshold=12, patchSize=24, fastThreshold=5)


def _make_sift() -> Any:
    return cv2.SIFT.create(nfeatures=300)


VERIFIERS = (
    Verifier(name="correlation of the middle", describe=make_fingerprint, compare=correlate),
    Verifier(name="correlation without alignment", describe=_shrink, compare=_compare_unaligned),
    Verifier(
        name="ORB, RANSAC",
        describe=partial(_find_keypoints, _make_orb),
        compare=partial(_compare_keypoints, cv2.NORM_HAMMING),
    ),
    Verifier(
        name="SIFT, RANSAC",
        describe=partial(_find_keypoints, _make_sift),
        compare=partial(_compare_keypoints, cv2.NORM_L2),
    ),
)

if __name__ == "__main__":
    main()
