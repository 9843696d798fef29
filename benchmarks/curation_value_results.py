"""Results of benchmarks/curation_value.py: recall by arm with intervals, what each rule found of the harm, a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.curation_value_arms import POOL, RIGHT_FILE, list_conditions, read_kinds
from benchmarks.curation_value_pool import KINDS, RIGHT
from benchmarks.table import RESULTS, write
from curation.manifest.manifest import Manifest
from curation.storage import Root

AT = (1, 10)
ROW, PLACES = "row.json", "places.npz"
"""Files of a run that has ended."""
NUM_DRAWS, LEVEL = 2_000, 0.95
COMPARED = (
    ("all", "raw"),
    ("known right", "raw"),
    ("all after MIM", "all"),
    ("all after MIM", "all for longer"),
    ("all after MIM", "raw"),
    ("all, half", "raw, half"),
    ("all after MIM, half", "all, half"),
    ("all after MIM, half", "all"),
)
"""Whose gain over whom is told."""
NOTES = (
    "recall@k: the mean over {count} held-back photographs, each of which counts half by whether one of its five "
    "captions is among the k nearest, half by the share of its captions that find it among the k nearest photographs. "
    "Chance is {chance:.3f} at 10.",
    "Intervals: 95 % of {draws:,} draws of photographs and of seeds, with replacement; gains are taken draw by draw.",
    "Every arm sees as many pairs, in batches of 128 of filter-small at 64 px, except `all for longer`: it has the "
    "samples that the masked image modelling of `all after MIM` costs in FLOPs on top. The teacher of that is the "
    "filter's model, whose own training is counted nowhere.",
    "`…, half`: half the pairs, and half the pictures of MIM: `all after MIM, half` costs what `all` does, with "
    "its MIM. These arms were added when the first seeds showed that `all for longer` learns its pairs by heart.",
    "`known right` trains on the pairs that are known to be right: more no rule could reach. `rows` are those that the "
    "arm's query selects, `right` the share of them that is as it should be.",
    "The harm, the recipe and its thresholds were fixed before any arm was trained.",
)
HARM_NOTES = (
    "Rows of the pool that the rule alone removes. precision: the share of them that is harm; recall: the share of all "
    "harm among them; then the share of each kind. What it removes of `right` is lost.",
    "`duplicates`, `sharpness` and `captions` look for one kind of harm each: only `dfn` could find a wrong caption. "
    "text_overlap, which reads text in pictures, was left out: it takes 0.2 CPU seconds a picture.",
)
SCALE = 2
WIDTH, ROW_HEIGHT, LEFT, RIGHT_EDGE, TOP = 860, 34, 190, 820, 60


def write_results(folder: Path) -> str:
    """Write the tables and the plot of all runs that have ended; returns the readable tables. Raises SystemExit."""
    found = read_runs(folder)
    if "raw" not in found:
        raise SystemExit(f"No run of the arm raw has ended in {folder}: start without --collect.")
    kinds = read_kinds(folder)
    conditions = list_conditions(folder) | {"all": "kept"}
    kept = {name: _select(folder, f"{POOL} and {condition}") for name, condition in conditions.items()}
    harm = write("curation_harm", [describe_rule(kinds, name, uids) for name, uids in kept.items()], HARM_NOTES)
    draws = draw_recalls({name: values for name, (_, values) in found.items()})
    rows = [describe_arm(folder, kinds, name, *found[name], draws[name]) for name in found]
    raw, drawn = next(row["recall@10"] for row in rows if row["arm"] == "raw"), {n: d[:, -1] for n, d in draws.items()}
    rows = [row | describe_gain(row["recall@10"], raw, drawn[row["arm"]], drawn["raw"]) for row in rows]
    count = found["raw"][1].shape[1]
    notes = [note.format(count=count, chance=max(AT) / count, draws=NUM_DRAWS) for note in NOTES]
    told = [sentence for pair in COMPARED if (sentence := compare(draws, found, *pair))]
    text = write("curation_value", rows, [*told, *notes], ("torch", "deepspeed", "duckdb"))
    draw_plot(rows, RESULTS / "curation_value.png")
    return f"{text}\n{harm}"


def read_runs(folder: Path) -> dict[str, tuple[list[dict[str, Any]], np.ndarray]]:
    """Of each arm with a run that has ended: the rows, and float64 `[seeds, photographs, len(AT)]` of hits."""
    runs = [(json.loads(path.read_text()), path.with_name(PLACES)) for path in folder.glob(f"runs/*/{ROW}")]
    found: dict[str, tuple[list[dict[str, Any]], np.ndarray]] = {}
    for name in dict.fromkeys(row["arm"] for row, _ in sorted(runs, key=lambda run: run[0]["number"])):
        of_arm = sorted((run for run in runs if run[0]["arm"] == name), key=lambda run: run[0]["seed"])
        hits = np.stack([score_photographs(**np.load(places)) for _, places in of_arm])
        found[name] = [row for row, _ in of_arm], hits
    return found


def score_photographs(text_to_image: np.ndarray, image_to_text: np.ndarray, image_of: np.ndarray) -> np.ndarray:
    """What each photograph counts, in [0, 1], at each k of AT: float64 `[photographs, len(AT)]`."""
    num_captions = np.bincount(image_of)
    columns = []
    for k in AT:
        of_captions = np.bincount(image_of, text_to_image < k) / num_captions
        columns.append((of_captions + (image_to_text < k)) / 2)
    return np.stack(columns, axis=1)


def draw_recalls(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Recalls of NUM_DRAWS draws, `[draws, len(AT)]`: the same photographs for all arms, seeds for each by itself."""
    rng = np.random.default_rng(0)
    num_photographs = next(iter(values.values())).shape[1]
    chosen = rng.multinomial(num_photographs, np.full(num_photographs, 1 / num_photographs), NUM_DRAWS)
    drawn = {}
    for name, hits in values.items():
        seeds = rng.multinomial(len(hits), np.full(len(hits), 1 / len(hits)), NUM_DRAWS) / len(hits)
        drawn[name] = np.einsum("ds,spk,dp->dk", seeds, hits, chosen / num_photographs, optimize=True)
    return drawn


def interval(draws: np.ndarray) -> tuple[float, float]:
    """The ends of what LEVEL of `draws` lie in."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def compare(
    draws: Mapping[str, np.ndarray],
    found: Mapping[str, tuple[list[dict[str, Any]], np.ndarray]],
    name: str,
    other: str,
) -> str:
    """The gain in recall@10 of one arm over another as a sentence, empty where one has no run yet."""
    if not {name, other} <= set(found):
        return ""
    ours, theirs = (found[one][1][..., -1].mean() for one in (name, other))
    low, high = interval(draws[name][:, -1] / draws[other][:, -1] - 1)
    return f"**`{name}` over `{other}`: {ours / theirs - 1:+.1%}** in recall@10 ({low:+.1%} to {high:+.1%})."


def describe_arm(
    folder: Path,
    kinds: Mapping[str, str],
    name: str,
    runs: Sequence[Mapping[str, Any]],
    values: np.ndarray,
    draws: np.ndarray,
) -> dict[str, Any]:
    """A row of the table; `draws` are the arm's."""
    selected = _select(folder, runs[0]["where"])
    right = sum(kinds[uid] == RIGHT for uid in selected) / len(selected)
    row = {"arm": name, "seeds": len(runs), "rows": len(selected), "right": right, "pairs seen": runs[0]["samples"]}
    for place, k in enumerate(AT):
        low, high = interval(draws[:, place])
        row |= {f"recall@{k}": float(values[..., place].mean()), f"@{k} low": low, f"@{k} high": high}
    return row | {f"@{AT[-1]} by seed": " ".join(f"{recall:.4f}" for recall in values[..., -1].mean(1))}


def describe_gain(recall: float, raw: float, drawn: np.ndarray, drawn_raw: np.ndarray) -> dict[str, Any]:
    """The relative gain of a recall over that of raw, with its interval; none of raw over itself."""
    low, high = (None, None) if drawn is drawn_raw else interval(drawn / drawn_raw - 1)
    return {"gain @10": None if drawn is drawn_raw else recall / raw - 1, "gain low": low, "gain high": high}


def _select(folder: Path, where: str) -> set[str]:
    with Manifest(Root(folder / "root"), allow_files=[str(folder.resolve() / RIGHT_FILE)]) as manifest:
        return {uid for (uid,) in manifest.query(f"select uid from manifest where {where}").fetchall()}


def describe_rule(kinds: Mapping[str, str], name: str, kept: set[str]) -> dict[str, Any]:
    """What a rule removes, by kind."""
    removed = [kind for uid, kind in kinds.items() if uid not in kept]
    harm = sum(kind != RIGHT for kind in removed)
    all_kinds = list(kinds.values())
    row: dict[str, Any] = {"rule": name, "removed": len(removed), "precision": harm / max(1, len(removed))}
    row["recall"] = harm / max(1, sum(kind != RIGHT for kind in all_kinds))
    return row | {kind: removed.count(kind) / max(1, all_kinds.count(kind)) for kind in KINDS}


def draw_plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """recall@10 of each arm as a bar with its interval, drawn twice as large and scaled down."""
    height = TOP + ROW_HEIGHT * len(rows) + 50
    image = Image.new("RGB", (WIDTH * SCALE, height * SCALE), "white")
    draw = ImageDraw.Draw(image)
    most = max(row["@10 high"] for row in rows) * 1.02

    def place(recall: float) -> float:
        return float(LEFT + (RIGHT_EDGE - LEFT) * recall / most) * SCALE

    def write_text(x: float, y: float, text: str, anchor: str = "lm", size: int = 15) -> None:
        draw.text((x, y), text, "black", ImageFont.load_default(size * SCALE), anchor)

    write_text(LEFT * SCALE, 28 * SCALE, "recall@10 on held-back photographs, 95 % intervals", size=17)
    for number, row in enumerate(rows):
        middle = (TOP + ROW_HEIGHT * (number + 0.5)) * SCALE
        write_text((LEFT - 12) * SCALE, middle, row["arm"], "rm")
        box = (place(0), middle - 10 * SCALE, place(row["recall@10"]), middle + 10 * SCALE)
        draw.rectangle(box, "#9ab4c8" if row["arm"] == "raw" else "#3b74a0")
        draw.line((place(row["@10 low"]), middle, place(row["@10 high"]), middle), "black", 2 * SCALE)
        for end in (row["@10 low"], row["@10 high"]):
            draw.line((place(end), middle - 5 * SCALE, place(end), middle + 5 * SCALE), "black", 2 * SCALE)
        write_text(place(0) + 6 * SCALE, middle, f"{row['recall@10']:.3f}", size=13)
    bottom = (TOP + ROW_HEIGHT * len(rows) + 6) * SCALE
    raw = next(row["recall@10"] for row in rows if row["arm"] == "raw")
    draw.line((place(raw), (TOP - 8) * SCALE, place(raw), bottom), "#b03030", SCALE)
    draw.line((place(0), bottom, place(most), bottom), "black", SCALE)
    for tick in range(int(most / 0.02) + 1):
        write_text(place(tick * 0.02), bottom + 14 * SCALE, f"{tick * 0.02:.2f}", "mm", 13)
    image.resize((WIDTH, height), Image.Resampling.LANCZOS).save(path, optimize=True)
