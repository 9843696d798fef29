"""Ingest: every input row is a sample or a reject, once, whatever the files and however often it runs."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings

from curation.errors import UserError
from curation.ingest import flow
from curation.ingest.local import LocalEngine
from curation.manifest.manifest import Manifest
from curation.recipe.config import Recipe, SourceConfig, load_recipe
from curation.schema import SAMPLES, uid
from curation.storage import Root
from curation.verify import verify
from jobs import ingest
from tests.support.metadata_folders import MadeFile, metadata_folders, write_folder

LAION = pa.schema([("URL", pa.string()), ("TEXT", pa.string()), ("WIDTH", pa.int32()), ("similarity", pa.float64())])
COYO = pa.schema([("url", pa.string()), ("text", pa.string()), ("image_phash", pa.string())])


def laion_row(i: int, **changes: Any) -> dict[str, Any]:
    row = {"URL": f"http://h{i % 7}.example/{i}.jpg", "TEXT": f"caption {i}", "WIDTH": i, "similarity": 0.3}
    return row | changes


def write(folder: Path, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    meta = tmp_path / "meta"
    dirty = [
        laion_row(0),  # repeats within the file
        laion_row(100, URL=None),
        laion_row(101, URL="  "),
        laion_row(102, TEXT=None),
        laion_row(103, similarity=0.1),  # fails where
        laion_row(104, similarity=None),  # unknown fails where
    ]
    write(meta, "a/part 0+1.parquet", [laion_row(i) for i in range(40)] + dirty, LAION)
    write(meta, "b/part 0+1.parquet", [laion_row(i) for i in range(30, 60)], LAION)  # 10 repeats, same file name
    big = [{"url": f"http://i.big.example/{i}.jpg", "text": "x", "image_phash": "0" * 16} for i in range(45)]
    shared = [{"url": laion_row(i)["URL"], "text": laion_row(i)["TEXT"], "image_phash": None} for i in range(5)]
    write(meta, "coyo.parquet", big + shared, COYO)
    file = tmp_path / "r.toml"
    file.write_text("""
        [[sources]]
        name = "laion"
        paths = ["meta/*/part*.parquet"]
        where = "clip_similarity >= 0.2"
        [[sources]]
        name = "coyo"
        paths = ["meta/coyo.parquet"]
        [download]
        num_rows_per_unit = 20
    """)
    return load_recipe(file)


def samples(root: Root) -> list[dict[str, Any]]:
    return [row for u in root.units("samples") for row in root.read_parquet(f"samples/{u}.parquet").to_pylist()]


def rejects(root: Root) -> list[dict[str, Any]]:
    return [row for u in root.units("rejects") for row in root.read_parquet(f"rejects/{u}.parquet").to_pylist()]


def snapshot(root: Root) -> dict[str, bytes]:
    base = Path(root.path)
    return {str(p.relative_to(base)): p.read_bytes() for p in sorted(base.rglob("*")) if p.is_file()}


def test_every_row_is_accounted_for(recipe: Recipe, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    ingest.run_here(recipe, root)
    found, refused = samples(root), rejects(root)
    assert len(found) + len(refused) == 46 + 30 + 50
    assert Counter(r["reason"] for r in refused) == {"no_url": 2, "where": 2, "repeated": 1 + 10 + 5}
    assert len({r["uid"] for r in found}) == len(found)
    assert all(r["uid"] == uid(r["url"], r["caption"]) for r in found)
    # The first of the rows with one uid stays: laion comes before coyo in the recipe.
    assert Counter(r["source"] for r in found) == {"laion": 41 + 20, "coyo": 45}
    assert all(root.read_parquet(f"samples/{u}.parquet").schema == SAMPLES for u in root.units("samples"))
    plan = root.read_json(f"plans/{root.list('plans')[0]}")
    assert plan["totals"] == {"samples": len(found), "no_url": 2, "where": 2, "repeated": 16}


def test_units_own_their_domains(recipe: Recipe, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    ingest.run_here(recipe, root)
    homes: dict[str, set[str]] = {}
    for unit in root.units("samples"):
        table = root.read_parquet(f"samples/{unit}.parquet")
        uids = table.column("uid").to_pylist()
        assert uids == sorted(uids)
        for domain in table.column("domain").to_pylist():
            homes.setdefault(domain, set()).add(unit)
    assert len(homes.pop("big.example")) == 3  # 45 rows in units of 20
    assert all(len(units) == 1 for units in homes.values())


def test_what_a_plan_says_of_its_hosts_counts_no_repeat(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Root(tmp_path / "root")
    ingest.run_here(recipe, root)
    domains = Counter(row["domain"] for row in samples(root))
    (plan,) = [root.read_json(f"plans/{name}") for name in root.list("plans", ".json")]
    assert plan["hosts"]["largest"] == dict(domains)
    assert plan["hosts"]["num_rows"] == sum(domains.values()) and plan["hosts"]["num_domains"] == len(domains)
    assert f"  big.example: {domains['big.example']:,} rows" in capsys.readouterr().err


def test_lost_units_are_made_again_with_the_same_bytes(recipe: Recipe, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    ingest.run_here(replace(recipe, sources=recipe.sources[:1]), root)
    ingest.run_here(recipe, root)
    before = snapshot(root)
    for name in (*root.list("samples")[::2], *root.list("rejects")[:1]):
        root.remove(f"{'samples' if root.exists(f'samples/{name}') else 'rejects'}/{name}")
    ingest.run_here(recipe, root)
    assert snapshot(root) == before


def test_a_lost_plan_is_made_again(recipe: Recipe, tmp_path: Path) -> None:
    root, first = Root(tmp_path / "root"), replace(recipe, sources=recipe.sources[:1])
    ingest.run_here(first, root)
    lost = f"plans/{root.list('plans')[0]}"
    ingest.run_here(recipe, root)
    before = snapshot(root)
    root.remove(lost)
    with pytest.raises(UserError, match="is missing: restore it from a copy, or run `curate ingest` once with"):
        ingest.run_here(replace(recipe, sources=recipe.sources[1:]), root)
    ingest.run_here(first, root)
    assert snapshot(root) == before


def test_lost_units_need_what_made_them(recipe: Recipe, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    ingest.run_here(recipe, root)
    root.remove(f"samples/{root.list('samples')[0]}")
    other = replace(recipe, sources=(replace(recipe.sources[0], where="clip_similarity >= 0.9"), recipe.sources[1]))
    with pytest.raises(UserError, match="needs each source's `where` as it was"):
        ingest.run_here(other, root)
    (tmp_path / "meta" / "coyo.parquet").rename(tmp_path / "meta" / "elsewhere.parquet")
    with pytest.raises(
        UserError, match="making them again needs .*coyo.parquet of source 'coyo', or a file that holds"
    ):
        ingest.run_here(replace(recipe, sources=recipe.sources[:1]), root)


def test_same_input_same_bytes_and_no_work_twice(recipe: Recipe, tmp_path: Path) -> None:
    first, second = Root(tmp_path / "one"), Root(tmp_path / "two")
    ingest.run_here(recipe, first)
    before = snapshot(first)
    ingest.run_here(recipe, first)
    assert snapshot(first) == before
    ingest.run_here(recipe, second)
    assert snapshot(second) == before


def test_killed_before_the_plan_stood(recipe: Recipe, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    ingest.run_here(recipe, root)
    before = snapshot(root)
    root.remove(f"samples/{root.units('samples')[0]}.parquet")
    root.remove(f"plans/{root.list('plans')[0]}")
    assert root.units("samples") == [] == root.missing_units("downloads")
    ingest.run_here(recipe, root)
    assert snapshot(root) == before


def test_what_a_killed_ingest_of_another_recipe_left_is_no_sample(recipe: Recipe, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    # A process that is killed has sealed nothing: what it published is in no ledger.
    flow.ingest(LocalEngine(root, recipe.select), recipe, root)
    root.remove(f"plans/{root.list('plans')[0]}")
    narrowed = load_recipe(tmp_path / "r.toml", ["sources.0.where=claimed_width > 0"])
    ingest.run_here(narrowed, root)
    fresh = Root(tmp_path / "fresh")
    ingest.run_here(narrowed, fresh)
    assert snapshot(root) == snapshot(fresh)


def test_a_source_added_later(recipe: Recipe, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    ingest.run_here(recipe, root)
    before = snapshot(root)
    write(tmp_path / "meta", "c/part9.parquet", [laion_row(i) for i in range(55, 65)], LAION)
    ingest.run_here(recipe, root)
    after = snapshot(root)
    tables = {name for name in before if not name.startswith(("sums/", "root.json"))}
    assert {name: after[name] for name in tables} == {name: before[name] for name in tables}
    assert len(samples(root)) == 61 + 45 + 5
    assert Counter(r["reason"] for r in rejects(root))["repeated"] == 16 + 5


def test_a_changed_file_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    ingest.run_here(recipe, root)
    write(tmp_path / "meta", "coyo.parquet", [{"url": "http://x.example", "text": "", "image_phash": None}], COYO)
    with pytest.raises(UserError, match="coyo.parquet has changed since it was ingested"):
        ingest.run_here(recipe, root)


def test_a_batch_with_two_captions_beside_one_with_one(recipe: Recipe, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    ingest.run_here(recipe, root)
    (tmp_path / "meta/alt.csv").write_text("link,best,alt\nhttp://new.example/1,,one\nhttp://new.example/2,two,zwei\n")
    with open(tmp_path / "r.toml", "a") as f:
        f.write("""
            [[sources]]
            name = "alt"
            paths = ["meta/alt.csv"]
            columns = { url = "link", caption = ["best", "alt"] }
        """)
    ingest.run_here(load_recipe(tmp_path / "r.toml"), root)
    assert verify(root) is None
    rows = Manifest(root).query("select caption, caption_2 from samples where source = 'alt' order by url").fetchall()
    assert rows == [("one", "one"), ("two", "zwei")]
    assert Manifest(root).query("select count(*), count(caption_2) from manifest").fetchall() == [(61 + 45 + 2, 2)]


def test_where_asks_for_a_further_caption_of_its_source(tmp_path: Path) -> None:
    """And a later ingest of other sources, whose rows have none, does not ask it."""
    (tmp_path / "two.csv").write_text("link,best,alt\nhttp://a.example/1,one,eins\nhttp://a.example/2,two,zwei\n")
    (tmp_path / "one.csv").write_text("url,caption\nhttp://b.example/1,three\n")
    two = """
        [[sources]]
        name = "two"
        paths = ["two.csv"]
        columns = { url = "link", caption = ["best", "alt"] }
        where = "caption_2 <> 'zwei'"
    """
    (tmp_path / "r.toml").write_text(two)
    root = Root(tmp_path / "root")
    ingest.run_here(load_recipe(tmp_path / "r.toml"), root)
    (tmp_path / "r.toml").write_text(two + '[[sources]]\nname = "one"\npaths = ["one.csv"]\n')
    ingest.run_here(load_recipe(tmp_path / "r.toml"), root)
    rows = Manifest(root).query("select caption, caption_2 from samples order by url").fetchall()
    assert rows == [("one", "eins"), ("three", None)] and verify(root) is None
    (tmp_path / "r.toml").write_text(two.replace("caption_2", "caption_3"))
    with pytest.raises(UserError, match="no column 'caption_3'"):
        ingest.check(load_recipe(tmp_path / "r.toml"), root)


def test_a_moved_folder_and_a_renamed_source_double_no_row(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Root(tmp_path / "root")
    ingest.run_here(recipe, root)
    before = snapshot(root)
    (tmp_path / "meta").rename(tmp_path / "moved")
    moved = ['sources.0.paths=["moved/*/part*.parquet"]', 'sources.1.paths=["./moved/coyo.parquet"]']
    capsys.readouterr()
    ingest.run_here(load_recipe(tmp_path / "r.toml", [*moved, "sources.1.name=coyo-again"]), root)
    assert snapshot(root) == before
    assert "Already ingested: " in capsys.readouterr().err


def test_lost_units_are_made_again_from_metadata_that_was_moved_and_renamed(recipe: Recipe, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    ingest.run_here(recipe, root)
    before = snapshot(root)
    (tmp_path / "meta").rename(tmp_path / "moved")
    (tmp_path / "moved" / "coyo.parquet").rename(tmp_path / "moved" / "other.parquet")
    moved = ['sources.0.paths=["moved/*/part*.parquet"]', 'sources.1.paths=["moved/other.parquet"]']
    changed = load_recipe(tmp_path / "r.toml", [*moved, "sources.0.name=first", "sources.1.name=second"])
    for name in (*root.list("samples")[::2], *root.list("rejects")[:1]):
        root.remove(f"{'samples' if root.exists(f'samples/{name}') else 'rejects'}/{name}")
    ingest.run_here(changed, root)
    assert snapshot(root) == before


def test_a_wider_condition_on_what_is_ingested_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    ingest.run_here(recipe, root)
    wider = load_recipe(tmp_path / "r.toml", ["sources.0.where=clip_similarity >= 0.05"])
    with pytest.raises(UserError, match=r"part 0\+1\.parquet was ingested .* with where 'clip_similarity >= 0\.2'"):
        ingest.check(wider, root)


def test_every_row_of_every_kind_of_file_is_accounted_for(tmp_path: Path) -> None:
    meta = tmp_path / "meta"
    write(meta, "part.parquet", [laion_row(i) for i in range(5)], LAION)
    write(meta, "_part.parquet", [laion_row(i) for i in range(5, 12)], LAION)
    raw = pa.array([b"a red door", b"caf\xe9"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 2, raw.buffers())
    pq.write_table(
        pa.table({"URL": ["http://a/1", "http://a/2"], "TEXT": text, "similarity": [0.3] * 2}), meta / "x.parquet"
    )
    rows = [(f"http://b.example/{i}.jpg", f"caption {i}") for i in range(4)]
    (meta / "m.csv").write_text("url,text\n" + "".join(f"{u},{t}\n" for u, t in rows) + "too,many,fields\n")
    with gzip.open(meta / "m.tsv.gz", "wt") as f:
        f.write("url\ttext\n" + "".join(f"{u}\t{t}\n" for u, t in rows))
    (meta / "m.jsonl").write_text("".join(json.dumps({"url": u, "text": t}) + "\n" for u, t in rows) + "{\n")
    file = tmp_path / "r.toml"
    file.write_text("""
        [[sources]]
        name = "m"
        paths = ["meta/*"]
    """)
    root = Root(tmp_path / "root")
    ingest.run_here(load_recipe(file), root)
    found, refused = samples(root), rejects(root)
    assert {uid(u, t) for u, t in rows} <= {row["uid"] for row in found}
    assert Counter(row["reason"] for row in refused) == {"not_text": 1, "malformed": 2, "repeated": 8}
    assert {(r["file"], r["row"]) for r in refused if r["reason"] == "malformed"} == {("m.csv", 4), ("m.jsonl", 4)}
    plan = root.read_json(f"plans/{root.list('plans')[0]}")
    assert {Path(i["path"]).name: i["num_rows"] for i in plan["inputs"]} == {
        "part.parquet": 5, "_part.parquet": 7, "x.parquet": 2, "m.csv": 5, "m.tsv.gz": 4, "m.jsonl": 5
    }  # fmt: skip
    assert len(found) + len(refused) == 28 == sum(plan["totals"].values())
    (meta / "late.csv.gz").write_bytes(gzip.compress(b"url,text\n" + b"http://a/1,x\n" * 99_999)[:-50])
    before = snapshot(root)
    with pytest.raises(UserError, match="late.csv.gz cannot be read to its end"):
        ingest.run_here(load_recipe(file), root)
    assert snapshot(root) == before


@pytest.mark.slow
@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(metadata_folders())
def test_a_random_folder_is_samples_and_rejects_or_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, files: list[MadeFile]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    pattern, root = write_folder(folder / "meta", files), Root(folder / "root")
    try:
        ingest.run_here(Recipe(sources=(SourceConfig(name="m", paths=(pattern,)),)), root)
    except UserError as error:
        assert "\n" not in str(error) and any(file.num_rows is None for file in files), error
        assert not (folder / "root").exists()
        return
    plan = root.read_json(f"plans/{root.list('plans')[0]}")
    counts = {Path(item["path"]).name: item["num_rows"] for item in plan["inputs"]}
    assert {file.name for file in files} == counts.keys()
    assert all(counts[file.name] == file.num_rows for file in files if file.num_rows is not None)
    assert sum(counts.values()) == len(samples(root)) + len(rejects(root))
    assert len({(row["file"], row["row"]) for row in rejects(root)}) == len(rejects(root))
    assert verify(root) is None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ('sources.0.paths=["meta/none*.parquet"]', "nothing matches"),
        ('sources.0.paths=["meta/torn.parquet"]', "torn.parquet is not a readable parquet file"),
        ('sources.0.paths=["meta/strange.parquet"]', "strange.parquet fits no known metadata schema"),
        ('sources.0.format="coyo"', "has no column for caption|nothing matches|has no column"),
        ("sources.0.where=width > 3", "where of source 'laion' is no condition on samples .*no column 'width'"),
        ("sources.0.where=(", "where of source 'laion' is no condition"),
        ('sources.0.format="laion5b"', "no source format 'laion5b'"),
    ],
)
def test_bad_input_writes_nothing(recipe: Recipe, tmp_path: Path, override: str, said: str) -> None:
    (tmp_path / "meta" / "torn.parquet").write_bytes((tmp_path / "meta" / "coyo.parquet").read_bytes()[:-20])
    write(tmp_path / "meta", "strange.parquet", [{"a": 1}], pa.schema([("a", pa.int32())]))
    if override.startswith('sources.0.format="coyo"'):
        write(tmp_path / "meta", "a/part1.parquet", [{"URL": "u"}], pa.schema([("URL", pa.string())]))
    changed = load_recipe(tmp_path / "r.toml", [override])
    with pytest.raises(UserError, match=said) as caught:
        ingest.run_here(changed, Root(tmp_path / "root"))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "root").exists()
