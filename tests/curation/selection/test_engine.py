"""DuckDB as the engine of a selection: its memory, threads and disk are limited, and it says so in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import UserError
from curation.recipe.select_config import SelectConfig
from curation.selection.engine import open_engine
from curation.selection.rule_set import read_rules
from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot

RULES = {"safe": "punsafe <= 0.5", "rare": "count(*) over (partition by aesthetic) <= 3"}


@pytest.fixture
def made(root: Root) -> SmallRoot:
    return small_root.build(root)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_memory_threads_and_the_folder_of_spilled_rows_are_set_and_cannot_be_changed(
    made: SmallRoot, scratch: Path
) -> None:
    rules = read_rules(RULES, {})
    with open_engine(made.root, rules, UNITS, SelectConfig(memory_gb=0.5, threads=3), scratch) as engine:
        wanted = ("memory_limit", "threads", "temp_directory", "enable_external_access")
        (batch,) = engine.query(f"select {', '.join(f'current_setting({n!r})::varchar as {n}' for n in wanted)}")
        found = batch.to_pylist()[0]
        (folder,) = scratch.iterdir()
        assert found["threads"] == "3" and found["memory_limit"].startswith("476.8")  # MiB
        assert found["temp_directory"] == str(folder) and found["enable_external_access"] == "false"
        with pytest.raises(UserError, match="DuckDB gave up"):
            list(engine.query("set threads = 1"))
    assert not list(scratch.iterdir())


def test_rows_that_do_not_fit_into_memory_go_to_disk(made: SmallRoot, scratch: Path) -> None:
    rules = read_rules(RULES, {})
    with open_engine(made.root, rules, UNITS, SelectConfig(memory_gb=0.1, threads=1), scratch) as engine:
        sql = "select i, repeat(md5(i::varchar), 10) as t from range(600_000) as r(i) order by t, i"
        batches = engine.query(sql)
        first = next(batches)
        (folder,) = scratch.iterdir()
        spilled = sum(file.stat().st_size for file in folder.iterdir())
        assert spilled > 50e6 and first.num_rows + sum(batch.num_rows for batch in batches) == 600_000


def test_too_little_memory_and_disk_is_one_sentence(made: SmallRoot, scratch: Path) -> None:
    rules = read_rules(RULES, {})
    limits = SelectConfig(memory_gb=0.1, threads=1)
    with (
        open_engine(made.root, rules, UNITS, limits, scratch) as engine,
        pytest.raises(UserError, match=r"ran out of memory.*select\.memory_gb"),
    ):
        list(engine.query("select list(repeat(md5(i::varchar), 10)) from range(900_000) as r(i)"))
