"""Metadata of several sources with all that an ingest refuses, and an ingest of them in small parts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curation.ingest import flow
from curation.ingest.local import LocalEngine, Sizes
from curation.recipe.config import Recipe
from curation.recipe.select_config import SelectConfig
from curation.storage import Root
from curation.sums.recorder import sealing

SIZES = Sizes(share=9, part=6, bucket=25)
"""So small that several processes read, sort and write several files each."""
LAION = pa.schema(
    [
        ("URL", pa.string()),
        ("TEXT", pa.string()),
        ("WIDTH", pa.int32()),
        ("HEIGHT", pa.int32()),
        ("similarity", pa.float64()),
    ]
)
NEAR = (0.26, 0.2600000001, 0.25999999, 0.3, float("nan"), None, -0.5, 0.28)
"""Cosines at the threshold: as float32 the first three are one value."""
RECIPE = """
[[sources]]
name = "laion"
paths = ["{a,b}/part 0.parquet"]
where = '''clip_similarity >= 0.26 and coalesce(claimed_width / claimed_height, 1) <= 3
  and url not like '%/skip%' and (caption is null or not regexp_matches(caption, '^[A-Z]+ \\d+$'))'''
[[sources]]
name = "coyo"
paths = ["coyo.parquet"]
[[sources]]
name = "text"
paths = ["captions.tsv.gz", "m.csv"]
columns = { url = "link", caption = ["best", "alt"] }
where = "caption_2 is null or length(caption_2) <> 4"
[[sources]]
name = "lines"
paths = ["m.jsonl"]
[[sources]]
name = "again"
paths = ["c/part 0.parquet"]
[download]
num_rows_per_unit = 20
"""


def write_sets(folder: Path) -> Path:
    """Write the metadata and the recipe over them into the new folder `folder`; the recipe.

    The first two sources refuse rows for every reason but malformed; the others repeat theirs.
    """
    folder.mkdir()
    _write_laion(folder / "a" / "part 0.parquet", range(70))
    _write_laion(folder / "b" / "part 0.parquet", range(40, 110))
    _write_coyo(folder / "coyo.parquet")
    _write_texts(folder)
    _write_laion(folder / "c" / "part 0.parquet", range(30, 160))  # as many in other files of that name
    (folder / "r.toml").write_text(RECIPE)
    return folder / "r.toml"


def _write_laion(path: Path, numbers: range) -> None:
    rows = [make_row(i) for i in numbers]
    rows += rows[3:9]
    path.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, LAION), path, row_group_size=16)


def make_row(i: int) -> dict[str, Any]:
    """Row `i`; hosts repeat every seven rows, in several spellings."""
    hosts = ("h{}.example", "WWW.h{}.Example:80", "user@x.h{}.example", "h{}.example.", "ü{}.example", "[::{}]")
    host = hosts[i // 7 % len(hosts)].format(i % 7)
    url = {11: None, 12: "  ", 13: "no url", 14: f"http://{host}/skip/{i}"}.get(i, f"https://{host}/{i}.jpg")
    caption = {15: None, 16: "", 17: "DOOR 17", 18: "ü " * 40, 19: 'a "quoted"\n\tdoor'}.get(i, f"caption {i}")
    return {"URL": url, "TEXT": caption, "WIDTH": i % 5 * 90, "HEIGHT": i % 3 * 40, "similarity": NEAR[i % len(NEAR)]}


def _write_coyo(path: Path) -> None:
    """Two domains of several units each, one of them with captions that are no text, and so without uids."""
    big = [(f"http://i.big.example/{i}.jpg".encode(), b"caf\xe9" if i % 9 == 0 else b"x") for i in range(95)]
    large = [(f"http://large.example/{i % 33}.jpg".encode(), b"%d" % (i % 30)) for i in range(70)]
    both = [*big, *large, *big[:5]]
    columns = {"url": [url for url, _ in both], "text": [text for _, text in both], "image_phash": [None] * len(both)}
    pq.write_table(pa.table({name: pa.array(v, pa.binary()) for name, v in columns.items()}), path, row_group_size=50)


def _write_texts(folder: Path) -> None:
    lines = [f"http://t{i % 3}.example/{i}\t{'' if i % 4 else 'best'}\t{'zwei' if i % 5 else 'one'}" for i in range(40)]
    with gzip.open(folder / "captions.tsv.gz", "wt") as f:
        f.write("\n".join(["link\tbest\talt", *lines, "too\tfew", *lines[:7]]) + "\n")
    (folder / "m.csv").write_text("link,best,alt\n" + "".join(f"http://i.big.example/{i}.jpg,x,\n" for i in range(99)))
    # Two rows of one uid whose hosts differ: what ends the URL of the one begins the caption of the other.
    ambiguous = [("http://n.example\n.m.example/x", "y"), ("http://n.example", ".m.example/x\ny")]
    rows = [(row["URL"], row["TEXT"]) for row in map(make_row, range(60))]
    objects = [json.dumps({"url": url, "text": text}) for url, text in [*ambiguous, *rows, *ambiguous]]
    (folder / "m.jsonl").write_text("\n".join([*objects, "{", "[1]"]) + "\n")


def ingest_here(recipe: Recipe, root: Root, sizes: Sizes = SIZES, threads: int = 1) -> None:
    """As `jobs.ingest.run_here`, with `sizes` of its own."""
    limits = SelectConfig(threads=threads, memory_gb=0.2)
    with sealing(root, flow.TABLES) as recording:
        flow.ingest(LocalEngine(recording, limits, sizes), recipe, recording)


def read_rows(root: Root, table: str) -> list[dict[str, Any]]:
    """All rows of samples or rejects."""
    return [row for unit in root.units(table) for row in root.read_parquet(f"{table}/{unit}.parquet").to_pylist()]
