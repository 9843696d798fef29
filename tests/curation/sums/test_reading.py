"""Files that DuckDB and memory maps read in parts are summed once before, and a damaged one is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from curation.errors import UserError
from curation.export import export
from curation.manifest import manifest as manifest_module
from curation.manifest.manifest import Manifest
from curation.report import status_text, write_html
from curation.storage import Root
from curation.sums import reading
from curation.sums.cover import summed_tables
from curation.sums.seal import open_files, seal_root
from tests.support import small_root
from tests.support.command import Command
from tests.support.rot import flip_in_pages
from tests.support.small_root import UNITS, VERSION

FILES = {
    f"samples/{UNITS[0]}.parquet": "select count(caption) from manifest",
    f"downloads/{UNITS[1]}.parquet": "select sum(width) from manifest",
    f"rejects/{UNITS[0]}.parquet": "select reason, count(*) from rejects group by reason",
    f"scores_caption_length/{UNITS[0]}.parquet": "select max(caption_words) from manifest",
    f"selection/{VERSION}/{UNITS[1]}.parquet": "select count(*) from manifest where kept",
    f"duplicates/{VERSION}/part-00000.parquet": "select count(duplicate_of) from manifest",
    f"train_index/{VERSION}/part-00000.parquet": "select sum(size) from train_index",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "root"
    root = Root(folder)
    root.create(sealed=True)
    small_root.finish(root)
    seal_root(root, summed_tables(root))
    return folder


@pytest.fixture
def sealed(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """A sealed root with every table; files count as settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(reading, "SETTLED_S", -1.0)
    return Root(shutil.copytree(built, tmp_path / "root"))


@pytest.fixture
def summed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are summed while a test runs."""
    seen = list[str]()
    sum_file: Callable[[Root, str], str] = reading.file_sha256

    def note(root: Root, rel: str) -> str:
        seen.append(rel)
        return sum_file(root, rel)

    monkeypatch.setattr(reading, "file_sha256", note)
    return seen


def flip(root: Root, rel: str) -> None:
    flip_in_pages(Path(root.full(rel)))


def ask(root: Root, sql: str) -> list[tuple[object, ...]]:
    with Manifest(root) as manifest:
        return manifest.query(sql).fetchall()


@pytest.mark.parametrize("rel", FILES)
def test_a_flipped_bit_is_named_by_the_query_that_reads_it(sealed: Root, rel: str) -> None:
    assert ask(sealed, FILES[rel])
    flip(sealed, rel)
    with pytest.raises(UserError, match=f"{rel} does not hold what was published: delete it and run `curate"):
        ask(sealed, FILES[rel])


def test_a_query_that_reads_other_tables_is_answered(sealed: Root) -> None:
    flip(sealed, f"scores_caption_length/{UNITS[0]}.parquet")
    assert ask(sealed, "select count(caption) from manifest") and ask(sealed, "select count(*) from downloads")
    for sql in (
        "from scores",
        "select * from manifest",
        "select count(m) from manifest m using sample 5 rows",
        "from (pivot manifest on source in ('laion') using count(*) group by caption_words)",
    ):
        with pytest.raises(UserError, match="scores_caption_length/.* does not hold what was published"):
            ask(sealed, sql)


def test_what_was_summed_is_remembered_for_as_long_as_it_looks_unchanged(
    sealed: Root, summed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [f"samples/{unit}.parquet" for unit in UNITS]
    for _ in range(2):
        ask(sealed, "select count(caption) from samples")
    assert summed == files
    monkeypatch.setattr(reading, "MAX_AGE_S", -1.0)
    ask(sealed, "select count(caption) from samples")
    assert summed == files * 2


def test_a_file_that_was_just_written_is_summed_again(
    sealed: Root, summed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "SETTLED_S", 3600.0)
    for _ in range(2):
        ask(sealed, "select count(*) from rejects")
    assert summed == [f"rejects/{UNITS[0]}.parquet"] * 2


def test_one_uid_costs_the_sums_of_the_files_that_can_hold_it(
    sealed: Root, summed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_module, "MIN_FILES", 2)
    monkeypatch.setattr("curation.manifest.uid_index.MIN_FILES", 2)
    uid = sealed.read_parquet(f"samples/{UNITS[1]}.parquet", ["uid"])["uid"][0].as_py()
    assert ask(sealed, f"select url, status, caption_words from manifest where uid = '{uid}'")
    tables = ("samples", "downloads", "scores_caption_length")
    assert sorted(summed) == sorted(f"{table}/{UNITS[1]}.parquet" for table in tables)
    assert ask(sealed, "select url from samples where uid = '00000000000000000000000000000000'") == []
    assert len(summed) == len(tables)


@pytest.mark.parametrize("torn", [b"{", b"[1]\n7\n", b'["samples/x.parquet", "f", "1"]\n', b"\xff\n", b"[" * 200_000])
def test_a_torn_memory_is_made_anew(sealed: Root, tmp_path: Path, summed: list[str], torn: bytes) -> None:
    ask(sealed, "select count(*) from samples")
    (memory,) = (tmp_path / "cache").rglob("sums/*.jsonl")
    memory.write_bytes(torn)
    for _ in range(3):
        assert ask(sealed, "select count(*) from samples") == [(40,)]
    assert len(summed) <= 6  # the line after a torn one is lost with it


def test_a_memory_of_outdated_lines_is_written_anew(tmp_path: Path) -> None:
    memory = reading.Memory(tmp_path / "sums" / "one.jsonl")
    for number in range(2 * reading.MIN_LINES):
        memory.add({"samples/a.parquet": ("state", number)})
    assert memory.read() == {"samples/a.parquet": ("state", 2 * reading.MIN_LINES - 1)} == memory.read()
    assert memory.path.read_text().count("\n") == 1


def test_without_a_cache_folder_files_are_summed_each_time(
    sealed: Root, summed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "no-folder").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no-folder"))
    for _ in range(2):
        ask(sealed, "select count(*) from rejects")
    assert len(summed) == 2


def test_a_file_that_is_made_anew_and_a_root_without_sums_are_read_as_they_are(sealed: Root, summed: list[str]) -> None:
    rel = f"rejects/{UNITS[0]}.parquet"
    open_files(sealed, [rel])
    assert ask(sealed, "select count(*) from rejects") and summed == []


def test_a_file_that_is_missing_is_named(sealed: Root) -> None:
    sealed.delete(f"downloads/{UNITS[0]}.parquet")
    with pytest.raises(UserError, match=f"downloads/{UNITS[0]}.parquet is missing: run `curate download` again"):
        Manifest(sealed)


def test_a_damaged_foot_is_named_with_what_mends_it(sealed: Root) -> None:
    path = Path(sealed.full(f"samples/{UNITS[0]}.parquet"))
    path.write_bytes(path.read_bytes()[:-3] + b"XXX")
    with pytest.raises(UserError, match="is not a readable parquet file .*: delete it and run `curate ingest` again"):
        Manifest(sealed)


def test_report_and_export_name_damage_and_status_counts_what_is_there(sealed: Root, tmp_path: Path) -> None:
    flip(sealed, f"samples/{UNITS[0]}.parquet")
    flip(sealed, f"train_index/{VERSION}/part-00000.parquet")
    with pytest.raises(UserError, match="does not hold what was published"):
        write_html(sealed, tmp_path / "report.html")
    with pytest.raises(UserError, match="train_index/.* does not hold what was published"):
        export(sealed, "uids", str(tmp_path / "uids.npy"))
    assert not (tmp_path / "report.html").exists() and not (tmp_path / "uids.npy").exists()
    assert "samples" in status_text(sealed)


def test_a_quick_query_compares_sizes_alone(sealed: Root, capsys: pytest.CaptureFixture[str]) -> None:
    command = Command(capsys)
    flip(sealed, f"rejects/{UNITS[0]}.parquet")
    assert "does not hold" in command.refuses("query", sealed.path, "select count(*) from rejects")
    assert command("query", sealed.path, "select count(*) from rejects", "--quick") == 0
    assert command.out


@pytest.fixture
def stored(built: Path) -> Iterator[Root]:
    """The same root in an object store."""
    root = Root("memory://summed/root")
    root.fs.put(str(built), "/summed/root", recursive=True)
    yield root
    root.fs.rm("/summed", recursive=True)


def test_of_an_object_store_whole_files_are_summed_when_that_is_asked_for(stored: Root) -> None:
    rel = f"rejects/{UNITS[0]}.parquet"
    data = bytearray(stored.read_bytes(rel))
    data[len(data) // 5] ^= 4
    stored.fs.pipe_file(stored.full(rel), bytes(data))
    with Manifest(stored, check="sums") as manifest, pytest.raises(UserError, match="does not hold"):
        manifest.query("select count(*) from rejects")
    assert ask(stored, "select count(*) from rejects")
    stored.fs.pipe_file(stored.full(rel), bytes(data[:-1]))
    with pytest.raises(UserError, match=f"rejects/{UNITS[0]}.parquet has {len(data) - 1} bytes, not {len(data)}"):
        Manifest(stored)
