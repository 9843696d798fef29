"""The arms of benchmarks/curation_value.py: queries on one root, with as many pairs seen, and starts of the tower."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.curation_value_pool import RIGHT, TRUTH
from curation.manifest.manifest import Manifest
from curation.recipe.config import load_recipe
from curation.storage import Root
from trainer import models
from trainer.models.flops import image_flops, text_flops

MODEL, NUM_TOKENS = "filter-small", 24
"""The model of all runs, and tokens of a caption after trimming, for FLOPs."""
POOL = "source = 'pool'"
RIGHT_FILE = "right.parquet"
"""The uids of the pairs known to be right."""
_QUANTILE = re.compile(r"quantile\((\w+), [\d.]+\) over \(partition by source\)")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What a model is trained on, for how many pairs, and what its image tower starts from."""

    name: str
    where: str
    samples: int
    pretrained: int = 0
    """Pictures of masked image modelling before; 0 starts at random."""


def list_arms(folder: Path, samples: int) -> list[Arm]:
    """Raw, all rules, starts of the image tower, the pairs known to be right, each rule alone, and half the compute.

    `all after MIM, half` costs about as much as `all`, its masked image modelling included.
    """
    every = f"{POOL} and kept"
    arms = [
        Arm(name="raw", where=POOL, samples=samples),
        Arm(name="all", where=every, samples=samples),
        Arm(name="all after MIM", where=every, samples=samples, pretrained=samples),
        Arm(name="all for longer", where=every, samples=samples + round(samples * compute_pretraining_cost())),
        Arm(name="known right", where=f"{POOL} and {write_right(folder)}", samples=samples),
    ]
    arms += [
        Arm(name=name, where=f"{POOL} and {rule}", samples=samples) for name, rule in list_conditions(folder).items()
    ]
    return arms + [
        replace(arm, name=f"{arm.name}, half", samples=arm.samples // 2, pretrained=arm.pretrained // 2)
        for arm in arms[:3]
    ]


def list_conditions(folder: Path) -> dict[str, str]:
    """The recipe's rules as conditions on the manifest: a quantile is the number that the selection has recorded."""
    current = Root(folder / "root").current("selection")
    recorded = current["config"]["quantiles"] if current else []
    values = {entry["column"]: entry["value"] for entry in recorded if entry["by"] == {"source": "pool"}}
    rules = load_recipe(folder / "recipe.toml").rules
    return {name: f"({_QUANTILE.sub(lambda found: repr(values[found[1]]), rule)})" for name, rule in rules.items()}


def write_right(folder: Path) -> str:
    """A condition that holds for the pairs known to be right, by a list of them that is written once."""
    path = folder / RIGHT_FILE
    if not path.exists():
        right = [uid for uid, kind in read_kinds(folder).items() if kind == RIGHT]
        pq.write_table(pa.table({"uid": sorted(right)}), path)
    return f"uid in (select uid from '{path}')"


def read_kinds(folder: Path) -> dict[str, str]:
    """uid → kind of every row of the pool."""
    kinds = {(file, caption): kind for file, caption, kind in json.loads((folder / TRUTH).read_text())}
    with Manifest(Root(folder / "root")) as manifest:
        rows = manifest.query(f"select uid, source_id, caption from manifest where {POOL}").fetchall()
    return {uid: kinds[file, caption] for uid, file, caption in rows}


def compute_pretraining_cost() -> float:
    """FLOPs of masked image modelling of one picture, by those of training on one pair.

    The student runs forward and backward, which costs two, and the teacher forward.
    """
    config = models.config(MODEL)
    image = image_flops(config)
    return 4 * image / (3 * (image + text_flops(config, NUM_TOKENS)))
