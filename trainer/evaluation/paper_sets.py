"""The 27 image sets of the paper's table, found below one folder by their names.

A set lies in a folder of its name in the table (IN-1K), of CLIP_benchmark's (imagenet1k, wds_imagenet1k,
vtab/caltech101, wds_vtab-caltech101), or of either in other case; what it holds is what `eval.image_folders` takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from curation.errors import UserError
from trainer.evaluation import prompts, sources
from trainer.evaluation.label_sets import is_devkit, read_devkit


@dataclass(frozen=True)
class PaperSet:
    """One of the 27: its names elsewhere, and how many classes its releases have."""

    aliases: tuple[str, ...]
    num_classes: tuple[int, ...]


SETS: Mapping[str, PaperSet] = {
    "IN-1K": PaperSet(("imagenet1k", "imagenet"), (1000,)),
    "IN-V2": PaperSet(("imagenetv2",), (1000,)),
    "IN-A": PaperSet(("imagenet-a",), (200,)),
    "IN-R": PaperSet(("imagenet-r",), (200,)),
    "IN-Sketch": PaperSet(("imagenet_sketch",), (1000,)),
    "ObjectNet": PaperSet(("objectnet",), (113,)),
    "CIFAR-10": PaperSet(("cifar10",), (10,)),
    "CIFAR-100": PaperSet(("cifar100",), (100,)),
    "MNIST": PaperSet(("mnist",), (10,)),
    "Caltech101": PaperSet(("caltech101",), (101, 102)),
    "SUN397": PaperSet(("sun397",), (397,)),
    "Aircraft": PaperSet(("fgvc_aircraft", "fgvc-aircraft"), (100,)),
    "Country211": PaperSet(("country211",), (211,)),
    "Cars": PaperSet(("cars", "stanford_cars"), (196,)),
    "Birdsnap": PaperSet(("birdsnap",), (500,)),
    "DTD": PaperSet(("dtd",), (47,)),
    "EuroSAT": PaperSet(("eurosat",), (10,)),
    "FER2013": PaperSet(("fer2013",), (7,)),
    "Flowers": PaperSet(("flowers", "flowers102"), (102,)),
    "Food101": PaperSet(("food101",), (101,)),
    "GTSRB": PaperSet(("gtsrb",), (43,)),
    "PCam": PaperSet(("pcam",), (2,)),
    "Pets": PaperSet(("pets", "oxford_pets"), (37,)),
    "SST2": PaperSet(("renderedsst2", "rendered-sst2"), (2,)),
    "RESISC45": PaperSet(("resisc45",), (45,)),
    "STL10": PaperSet(("stl10",), (10,)),
    "VOC2007": PaperSet(("voc2007_multilabel", "voc2007"), (20,)),
}


def find_sets(folder: Path, wanted: Sequence[str]) -> dict[str, Path]:
    """Set → where it lies below `folder`: those of `wanted`, or all that are there where it is empty.

    Raises:
        UserError: for a folder that is not there or has none, a name that the table has not, or a set of `wanted` that
            is not there.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}: eval.paper_sets names one that holds sets of the paper's table.")
    unknown = next((name for name in wanted if name not in SETS), None)
    if unknown is not None:
        raise UserError(f"eval.paper_names: the table has no set {unknown!r}; its sets are {', '.join(SETS)}.")
    there = _list_folders(folder)
    found = {name: path for name in wanted or SETS if (path := _find(name, there)) is not None}
    absent = [name for name in wanted if name not in found]
    if absent:
        names = ", ".join((absent[0], *SETS[absent[0]].aliases))
        raise UserError(f"{folder} has no folder of {absent[0]} ({len(absent)} sets are missing): one of {names}.")
    if not found:
        raise UserError(f"{folder} holds none of the 27 sets: name a folder IN-1K, CIFAR-10 or wds_imagenet1k.")
    return found


def read_set(name: str, path: Path) -> sources.Classes:
    """The set `name` of the table at `path`, with our templates and class names where it brings none.

    Raises:
        UserError: as `sources.read_classes`, and for another number of classes than the set has.
    """
    ours = prompts.TEMPLATES[name]
    names = prompts.NAMES.get(name, {})
    classes = read_devkit(path, ours, names) if is_devkit(path) else sources.read_classes(path, ours, names)
    counts = SETS[name].num_classes
    if len(classes.names) not in counts:
        told = " or ".join(f"{count:,}" for count in counts)
        raise UserError(
            f"{path} has {len(classes.names):,} classes, and {name} has {told}: "
            "correct its class file or its sub-folders."
        )
    return classes


def _list_folders(folder: Path) -> dict[str, Path]:
    """Simplified name → folder, the tables' collections (vtab/…) too."""
    inside = [path for path in sorted(folder.iterdir()) if path.is_dir()]
    inside += [path for one in inside if one.name in ("vtab", "wds") for path in sorted(one.iterdir()) if path.is_dir()]
    return {_simplify(path.name): path for path in reversed(inside)}


def _find(name: str, there: Mapping[str, Path]) -> Path | None:
    return next((there[key] for key in map(_simplify, (name, *SETS[name].aliases)) if key in there), None)


def _simplify(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^wds[_-]?(vtab[_-]?)?", "", name.lower()))
