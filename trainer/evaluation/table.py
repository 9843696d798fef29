"""The paper's table of 27 image sets (arXiv 2402.04252, table 2): our results beside it, means and robustness.

A mean is given over the sets that were measured, with their number; the published mean is over all 27. The paper's
headline takes the better of "crop" and "squash" set by set; here that column stands under this name and no other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

from curation.errors import UserError
from trainer.columns import align

PUBLISHED: dict[str, tuple[float, float]] = {
    "IN-1K": (83.8, 83.5),
    "IN-V2": (77.9, 77.7),
    "IN-A": (87.3, 85.2),
    "IN-R": (95.7, 95.3),
    "IN-Sketch": (74.7, 74.3),
    "ObjectNet": (82.2, 81.2),
    "CIFAR-10": (99.4, 99.3),
    "CIFAR-100": (93.8, 92.3),
    "MNIST": (83.0, 84.8),
    "Caltech101": (89.8, 89.6),
    "SUN397": (77.7, 76.2),
    "Aircraft": (59.7, 60.5),
    "Country211": (43.1, 41.7),
    "Cars": (94.9, 94.8),
    "Birdsnap": (79.9, 79.0),
    "DTD": (72.1, 71.0),
    "EuroSAT": (79.8, 68.9),
    "FER2013": (59.3, 56.1),
    "Flowers": (86.0, 86.4),
    "Food101": (95.8, 95.5),
    "GTSRB": (72.4, 70.9),
    "PCam": (65.2, 58.1),
    "Pets": (96.1, 96.4),
    "SST2": (67.5, 66.2),
    "RESISC45": (76.9, 75.3),
    "STL10": (99.6, 99.3),
    "VOC2007": (85.8, 85.1),
}
"""Set → zero-shot accuracy in per cent of EVA-CLIP-18B and EVA-CLIP-8B."""
ROBUSTNESS = ("IN-1K", "IN-V2", "IN-A", "IN-R", "IN-Sketch", "ObjectNet")
BEST = "best of both"

Accuracies = dict[str, float]
Results = Mapping[str, Mapping[str, Mapping[str, float]]]


def tabulate_accuracies(results: Results) -> dict[str, Accuracies]:
    """Column → set → accuracy in per cent; "best of both" only where every classified set was measured both ways."""
    columns: dict[str, Accuracies] = {}
    for name, by_resize in results.items():
        for resize, measures in by_resize.items():
            if "accuracy" in measures:
                columns.setdefault(resize, {})[name] = 100 * measures["accuracy"]
    if len(columns) == 2:
        first, second = columns.values()
        if first.keys() == second.keys():
            columns[BEST] = {name: max(value, second[name]) for name, value in first.items()}
    return columns


def mean(column: Accuracies) -> float | None:
    """Mean over the measured sets of the table, or None without one. Other sets are left out."""
    values = [column[name] for name in PUBLISHED if name in column]
    return sum(values) / len(values) if values else None


def robustness(column: Accuracies) -> tuple[float, float] | None:
    """Mean of the six ImageNet variants, and how far IN-1K lies above it; None unless all six were measured."""
    if not all(name in column for name in ROBUSTNESS):
        return None
    average = sum(column[name] for name in ROBUSTNESS) / len(ROBUSTNESS)
    return average, column["IN-1K"] - average


def published_columns() -> dict[str, Accuracies]:
    """The paper's columns."""
    names = ("paper 18B", "paper 8B")
    return {name: {row: values[i] for row, values in PUBLISHED.items()} for i, name in enumerate(names)}


def halve_interval(measures: Mapping[str, float], name: str) -> float | None:
    """Half the width of a measure's 95 % interval, in per cent; None where it was not measured."""
    low, high = measures.get(f"{name}_low"), measures.get(f"{name}_high")
    return None if low is None or high is None else 50 * (high - low)


def format_results(results: Results) -> str:
    """Classification beside the paper's figures, then retrieval and the rest; ends in a newline.

    "±" is half the width of the 95 % interval over pictures.
    """
    ours = tabulate_accuracies(results)
    blocks = [_format_classification(ours, results)] if ours else []
    precision = [row for name, by_resize in results.items() for row in _precision_rows(name, by_resize)]
    if precision:
        blocks.append("\n".join(align([["mean average precision in per cent", "resize", ""], *precision])) + "\n")
    videos = _video_rows(results)
    if videos:
        blocks.append("\n".join(align(videos)) + "\n")
    retrieval = [row for name, by_resize in results.items() for row in _retrieval_rows(name, by_resize)]
    if retrieval:
        head = ["retrieval, R@1/5/10 in per cent", "resize", "image to text", "text to image"]
        blocks.append("\n".join(align([head, *retrieval])) + "\n")
    probed = [row for name, by_resize in results.items() for row in _probe_rows(name, by_resize)]
    if probed:
        head = ["frozen features, accuracy in per cent", "resize", "linear probe", "1 neighbour", "20 neighbours"]
        blocks.append("\n".join(align([head, *probed])) + "\n")
    return "\n".join(blocks)


def _format_classification(ours: dict[str, Accuracies], results: Results) -> str:
    columns = {**ours, **published_columns()}
    measured = next(iter(ours.values()))
    in_table = [name for name in PUBLISHED if name in measured]
    rows = [["zero-shot accuracy in per cent", *columns]]
    for name in order_measured(measured):
        widths = [halve_interval(results[name].get(way, {}), "accuracy") for way in columns]
        cells = [_cell(column.get(name), width) for column, width in zip(columns.values(), widths, strict=True)]
        rows.append([name, *cells])
    if in_table:
        # Like with like: the paper's columns are averaged over the same sets.
        same = {key: {name: column[name] for name in in_table if name in column} for key, column in columns.items()}
        rows.append([f"mean of these {len(in_table)} of 27", *(_cell(mean(column)) for column in same.values())])
    if all(name in measured for name in ROBUSTNESS):
        pairs = [robustness(column) for column in columns.values()]
        rows.append(["robustness: mean of the six", *(_cell(pair[0] if pair else None) for pair in pairs)])
        rows.append(["gap from IN-1K", *(_cell(pair[1] if pair else None) for pair in pairs)])
    return "\n".join(align(rows)) + "\n"


def order_measured(measured: Accuracies) -> list[str]:
    """The measured sets, those of the table first and in its order."""
    return [*(name for name in PUBLISHED if name in measured), *(name for name in measured if name not in PUBLISHED)]


def _retrieval_rows(name: str, by_resize: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    rows = []
    for resize, measures in by_resize.items():
        ways = [
            [
                _cell(100 * measures[measured], halve_interval(measures, measured))
                for k in (1, 5, 10)
                if (measured := f"{way}_recall@{k}") in measures
            ]
            for way in ("image_to_text", "text_to_image")
        ]
        if any(ways):
            rows.append([name, resize, *(" / ".join(way) for way in ways)])
    return rows


def _video_rows(results: Results) -> list[list[str]]:
    """A row for each set and number of frames: top-1, top-5, and the mean of both."""
    rows = [["videos, accuracy in per cent", "resize", "frames", "top 1", "top 5", "mean of both"]]
    for name, by_resize in results.items():
        for resize, measures in by_resize.items():
            for count in [key.removeprefix("accuracy/") for key in measures if key.startswith("accuracy/")]:
                cells = []
                for measured in ("accuracy", "accuracy@5", "mean_top1_top5"):
                    value = measures.get(f"{measured}/{count}")
                    width = [measures.get(f"{measured}_{end}/{count}") for end in ("low", "high")]
                    half = None if None in width else 50 * (width[1] - width[0])  # type: ignore[operator]
                    cells.append(_cell(None if value is None else 100 * value, half))
                rows.append([name, resize, count.removesuffix("_frames"), *cells])
    return rows if len(rows) > 1 else []


def _precision_rows(name: str, by_resize: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    measured = "mean_average_precision"
    return [
        [name, resize, _cell(100 * measures[measured], halve_interval(measures, measured))]
        for resize, measures in by_resize.items()
        if measured in measures
    ]


def _probe_rows(name: str, by_resize: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Each accuracy with its 95 % interval."""
    rows = []
    for resize, measures in by_resize.items():
        if "linear_accuracy" in measures:
            cells = []
            for way in ("linear", "knn@1", "knn@20"):
                values = [100 * measures.get(f"{way}_{part}", math.nan) for part in ("accuracy", "low", "high")]
                cells.append("-" if math.isnan(values[0]) else "{:.1f} ({:.1f} to {:.1f})".format(*values))
            rows.append([name, resize, *cells])
    return rows


def _cell(value: float | None, width: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if width is None else f"{value:.1f} ±{width:.1f}"


def read_results(file: Path) -> Results:
    """The sets of a results file. Raises UserError when it is none."""
    try:
        sets = json.loads(file.read_bytes())["sets"]
        return {
            name: {way: {measured: float(value) for measured, value in values.items()} for way, values in ways.items()}
            for name, ways in sets.items()
        }
    except FileNotFoundError as error:
        raise UserError(f"There is no results file {file}: write one with --out.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file} is no results file of trainer.evaluate.") from error
