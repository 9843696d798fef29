"""The ingest on this machine: in parts of any size, killed at any step, by processes that fail."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from curation.errors import UserError
from curation.ingest.local import Sizes, list_buckets
from curation.ingest.parts import Bucket, Sorted
from curation.recipe.config import load_recipe
from curation.storage import Root
from tests.support import removal
from tests.support.demo_run import REPOSITORY
from tests.support.ingest_sets import ingest_here, read_rows, write_sets

KILLED = """
import os, signal, sys
from curation.ingest import flow, local
from curation.recipe.config import load_recipe
from curation.storage import Root, fingerprint
from tests.support.ingest_sets import ingest_here

name, number, recipe, root = sys.argv[1], int(sys.argv[2]), load_recipe(sys.argv[3]), Root(sys.argv[4])
calls = 0

def die_at_last(function):
    def counted(*arguments, **more):
        global calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **more)
    return counted

place = flow if hasattr(flow, name) else local
setattr(place, name, die_at_last(getattr(place, name)))
ingest_here(recipe, root)
"""


def test_the_sizes_of_shares_parts_and_buckets_change_no_byte(tmp_path: Path) -> None:
    recipe, found = load_recipe(write_sets(tmp_path / "meta")), list[dict[str, bytes]]()
    for number, sizes in enumerate((Sizes(), Sizes(share=1, part=1, bucket=1), Sizes(share=50, part=7, bucket=10_000))):
        ingest_here(recipe, Root(tmp_path / f"{number}"), sizes)
        found.append(removal.contents(tmp_path / f"{number}"))
    assert found[0] == found[1] == found[2]


def test_buckets_of_many_rows_are_as_large_as_parts() -> None:
    wanted = {0: 100_000, 10_000_000: 100_000, 15_000_000: 150_000, 25_000_000: 250_000, 1_000_000_000: 250_000}
    assert {num_rows: Sizes().of_bucket(num_rows) for num_rows in wanted} == wanted
    assert Sizes(bucket=7).of_bucket(25_000_000) == 7


def test_the_first_of_equal_rows_is_kept_in_the_order_of_the_recipe(tmp_path: Path) -> None:
    for number, source in enumerate(("b", "a")):
        rows = [{"url": f"http://h.example/{k}", "caption": "x"} for k in range(number, 40)]
        (tmp_path / source).mkdir()
        (tmp_path / source / "part.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    file = tmp_path / "r.toml"
    file.write_text("".join(f'[[sources]]\nname = "{name}"\npaths = ["{name}/part.jsonl"]\n' for name in "ab"))
    ingest_here(load_recipe(file), Root(tmp_path / "root"), Sizes(share=5, part=5, bucket=5))
    samples, rejects = (read_rows(Root(tmp_path / "root"), table) for table in ("samples", "rejects"))
    assert Counter(row["source"] for row in samples) == {"a": 39, "b": 1}
    assert [(row["source"], row["reason"]) for row in rejects] == [("b", "repeated")] * 39


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_nothing_that_counts_and_the_next_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    file = write_sets(tmp_path / "meta")
    recipe, undisturbed, killed = load_recipe(file), Root(tmp_path / "undisturbed"), Root(tmp_path / "killed")
    ingest_here(recipe, undisturbed)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    for name, number in (("read_part_files", 3), ("sort_part", 4), ("write_bucket", 3), ("check_totals", 1)):
        call = [sys.executable, "-c", KILLED, name, str(number), str(file), killed.path]
        ended = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == -9, ended.stderr
        assert killed.units("samples") == [] == killed.list("plans", ".json")
        assert len(list(killed.scratch_path.glob("ingest-*"))) == 1, "what the kill before it left was deleted"
    ingest_here(recipe, Root(killed.path))
    assert removal.contents(Path(killed.path)) == removal.contents(Path(undisturbed.path))
    assert not list(killed.scratch_path.iterdir())


def test_a_process_that_fails_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    file = write_sets(tmp_path / "meta")
    late = gzip.compress(b"url,text\n" + b"http://a/1,x\n" * 9_999)[:-50]
    (tmp_path / "meta" / "late.csv.gz").write_bytes(late)
    torn = tmp_path / "meta" / "torn.toml"
    torn.write_text(file.read_text() + '[[sources]]\nname = "late"\npaths = ["late.csv.gz"]\n')
    recipe, root = load_recipe(torn), Root(tmp_path / "root")
    with pytest.raises(UserError, match=r"late\.csv\.gz cannot be read to its end"):
        ingest_here(recipe, root, threads=2)
    assert not (tmp_path / "root").exists()


def test_a_bucket_is_read_from_each_part_that_has_rows_of_it_in_the_order_of_parts() -> None:
    one, two = Path("one"), Path("two")
    parts = [Sorted(path=one, buckets=(0, 2)), Sorted(path=two, buckets=(1, 2)), Sorted(path=two, buckets=())]
    found = list_buckets(parts)
    expected = [[(one, 0)], [(two, 0)], [(one, 1), (two, 1)]]
    assert found == [Bucket(batches=tuple(places)) for places in expected]
