"""What was forgotten does not come back: by another ingest, by a unit that is made again, or by an adoption."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.adopt import adopt
from curation.forget import forget
from curation.forget.requests import parse_requests
from curation.plan import read_plans
from curation.recipe.config import Recipe, load_recipe
from curation.schema import uid
from curation.storage import Root
from curation.verify import verify
from jobs import ingest
from tests.support import removal
from tests.support.small_root import picture

COLUMNS = pa.schema([("URL", pa.string()), ("TEXT", pa.string()), ("WIDTH", pa.int32()), ("similarity", pa.float64())])


def write_rows(path: Path, numbers: range, text: str = "caption") -> None:
    """A file of metadata in LAION's columns."""
    rows = [{"URL": f"http://h{i % 5}.example/{i}.jpg", "TEXT": f"{text} {i}", "WIDTH": i} for i in numbers]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, COLUMNS), path)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe over the files that stand in a folder."""
    write_rows(tmp_path / "meta" / "a.parquet", range(40))
    file = tmp_path / "r.toml"
    sources = '[[sources]]\nname = "laion"\npaths = ["meta/*.parquet"]\n'
    file.write_text(f"{sources}[download]\nnum_rows_per_unit = 10\n")
    return load_recipe(file)


def test_a_later_ingest_and_a_unit_that_is_made_again_keep_them_out(recipe: Recipe, tmp_path: Path) -> None:
    root, folder = Root(tmp_path / "root"), tmp_path / "root"
    ingest.run_here(recipe, root)
    gone = [uid(f"http://h{i % 5}.example/{i}.jpg", f"caption {i}") for i in (0, 1, 2)]
    asked = parse_requests(uids=gone, hosts=["h4.example"])
    assert forget(Root(folder), asked, reason="request", date=removal.DATE) is not None
    assert verify(Root(folder)) is None
    (plan,) = read_plans(Root(folder))
    assert plan["totals"]["samples"] == 29 and plan["totals"]["forgotten"] == 11

    before = removal.contents(folder)
    for name in before:
        if name.startswith(("samples/", "rejects/")):
            (folder / name).unlink()
    ingest.run_here(recipe, Root(folder))
    assert removal.contents(folder) == before

    write_rows(tmp_path / "meta" / "b.parquet", range(5), text="other words")  # their URLs under other uids
    write_rows(tmp_path / "meta" / "c.parquet", range(3), text="caption")  # the very rows
    ingest.run_here(recipe, Root(folder))
    first, second = read_plans(Root(folder))
    assert first == plan and second["totals"] == {
        "samples": 4, "no_url": 0, "where": 0, "repeated": 0, "forgotten": 4,
    }  # fmt: skip
    assert verify(Root(folder)) is None
    text = repr([Root(folder).read_parquet(f"rejects/{u}.parquet").to_pylist() for u in Root(folder).units("rejects")])
    assert not [one for one in gone if one in text]


def test_an_adopted_picture_whose_row_is_forgotten_stays_where_it_is_and_is_not_adopted_again(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(6):
        (pictures / f"{number}.jpg").write_bytes(picture(number + 1))
        (pictures / f"{number}.txt").write_text(f"a quiet photograph, number {number}")
    root, folder = Root(tmp_path / "root"), tmp_path / "root"
    adopt(root, [str(pictures)])
    url = (pictures / "3.jpg").as_uri()
    done = forget(Root(folder), parse_requests(urls=[url]), reason="request", date=removal.DATE)
    assert done is not None and done.proof is not None and not done.proof.found
    assert done.pending.outside == [str(pictures / "3.jpg")] and (pictures / "3.jpg").exists()
    assert verify(Root(folder)) is None
    before = removal.contents(folder)
    assert not [name for name, data in before.items() if b"3.jpg" in data or b"number 3" in data]
    adopt(Root(folder), [str(pictures)])
    assert removal.contents(folder) == before

    other = Root(tmp_path / "other")
    other.create(sealed=True)
    forget(other, parse_requests(urls=[url]), reason="request", date=removal.DATE)
    adopt(Root(tmp_path / "other"), [str(pictures)])
    (plan,) = read_plans(Root(tmp_path / "other"))
    assert plan["totals"]["samples"] == 5 and plan["totals"]["forgotten"] == 1
    assert verify(Root(tmp_path / "other")) is None
