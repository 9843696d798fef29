"""What `curate pack` does beside the pictures: all kept rows in the order of the shards, then the parts of an index.

    .venv/bin/python -m benchmarks.pack_index --recipe R.toml --root ROOT

benchmarks.decisions calls it. The parts have the columns of the real ones without the places of members, since no shard
is written; they go to a folder that is deleted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from functools import partial

import pyarrow as pa

from curation.download.withdrawn import resolve_lists
from curation.packing.local import write_shards
from curation.packing.version import Version, find_work
from curation.recipe.config import load_recipe
from curation.storage import Root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--root", required=True)
    arguments = parser.parse_args()
    recipe, root = load_recipe(arguments.recipe), Root(arguments.root)
    work = find_work(root, recipe.pack, resolve_lists(recipe))
    if work is None:
        sys.exit(f"{root.base} is packed already")
    with tempfile.TemporaryDirectory(dir=root.scratch()) as folder:
        num_rows = sum(write_shards(work, recipe.select, partial(write_part, Root(folder), work.version)))
    sys.stdout.write(f"{num_rows} rows\n")


def write_part(target: Root, version: Version, shard: tuple[int, pa.Table]) -> int:
    number, table = shard
    target.publish_parquet(version.part(number), table)
    return len(table)


if __name__ == "__main__":
    main()
