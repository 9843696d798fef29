"""What DuckDB may hold for a query: the limit reaches it, what exceeds it goes to disk, and no less than that fails."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb
import pytest

from curation.errors import UserError
from curation.manifest.manifest import Manifest
from curation.manifest.query import write_query
from curation.private_folder import private_folder_path
from jobs.cli import main
from tests.support.small_root import SmallRoot

ROWS = "(select repeat(md5((i % 600_000)::varchar), 10) as text from range(1_200_000) as r(i))"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()


def _setting(manifest: Manifest, name: str) -> str:
    return str(manifest.query(f"select current_setting('{name}')::varchar").fetchall()[0][0])


def test_the_limit_and_the_private_folder_reach_duckdb(made: SmallRoot) -> None:
    with Manifest(made.root, memory_gb=0.5) as manifest, Manifest(made.root) as free:
        assert _setting(manifest, "memory_limit").startswith("476.8")  # MiB
        assert _setting(free, "memory_limit") == _setting_of_duckdb("memory_limit")
        folder = Path(_setting(manifest, "temp_directory"))
        assert folder.parent == private_folder_path() and not folder.exists()
        with pytest.raises(UserError):
            manifest.query("set memory_limit = '1GB'")


def _setting_of_duckdb(name: str) -> str:
    with duckdb.connect() as connection:
        return str(connection.execute(f"select current_setting('{name}')::varchar").fetchall()[0][0])


def test_groups_beyond_the_limit_go_to_disk_and_are_right(made: SmallRoot) -> None:
    with Manifest(made.root, memory_gb=0.15) as manifest:
        asked = f"select text, count(*) as n from {ROWS} group by text order by text"
        folder = Path(_setting(manifest, "temp_directory"))
        reader = manifest.query(asked).to_arrow_reader(50_000)
        first = reader.read_next_batch()
        assert sum(file.stat().st_size for file in folder.iterdir()) > 10e6, "it spilled"
        rows = first.num_rows + sum(batch.num_rows for batch in reader)
        assert rows == 600_000 and set(first["n"].to_pylist()) == {2}
    assert not list(private_folder_path().iterdir()), "nothing is left"


def test_what_does_not_go_to_disk_is_one_sentence_that_names_the_option(made: SmallRoot, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    with pytest.raises(UserError, match=r"needs more memory.*--memory-gb"):
        write_query(made.root, f"select list(text) from {ROWS}", "csv", str(output), memory_gb=0.1)
    assert not output.exists() and not list(private_folder_path().iterdir())


def test_an_account_that_may_write_nowhere_asks_what_fits_into_memory(
    made: SmallRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/proc/no/such")
    with Manifest(made.root, memory_gb=0.1) as manifest:
        assert manifest.query("select count(*) from samples").fetchall() == [(len(made.samples),)]
        with pytest.raises(duckdb.OutOfMemoryException):
            manifest.query(f"select text, count(*) from {ROWS} group by text order by text").fetchall()


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "1e9"])
def test_a_wrong_limit_is_one_sentence(made: SmallRoot, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["query", made.root.url(), "select 1", "--memory-gb", wrong])
    assert ended.value.code == 2
    assert "A query may hold 0.1 to 65,536 GB of memory" in capsys.readouterr().err
