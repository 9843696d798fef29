"""Random queries give from a root of many files what plain DuckDB gives from the whole views."""

from __future__ import annotations

import random

import duckdb
import pytest

from curation.manifest import manifest as manifest_module
from curation.manifest import uid_index
from curation.manifest.manifest import Manifest
from tests.support.small_root import SmallRoot
from tests.support.whole_root import rounded_rows

COLUMNS = ("uid", "source", "caption", "width", "num_words", "kept", "reason", "duplicate_of", "aesthetic")
VIEWS = ("manifest", "manifest", "manifest", "samples", "downloads", "selection")
SHARED = ("uid",)


class Generator:
    """Queries over nested scopes, some of whose conditions name another scope's uid."""

    def __init__(self, seed: int, uids: list[str]) -> None:
        self.random = random.Random(seed)
        self.uids = [*uids[:6], "0" * 32]

    def query(self) -> str:
        return f"{self.select([], 0)} order by all"

    def select(self, outer: list[str], depth: int) -> str:
        pick = self.random
        view, alias = pick.choice(VIEWS), f"t{depth}{pick.randrange(3)}"
        names = COLUMNS if view == "manifest" else SHARED
        listed = [self.column(names, alias) for _ in range(pick.randint(1, 3))]
        if depth < 2 and pick.random() < 0.35:
            listed.append(f"(select count(*) from {self.table(alias, depth)})")
        if pick.random() < 0.1:
            listed = ["count(*)"]
        where = " and ".join(self.condition(names, alias, outer, depth) for _ in range(pick.randint(0, 3)))
        joined = f" join {pick.choice(VIEWS)} j{depth} using (uid)" if pick.random() < 0.2 else ""
        return f"select {', '.join(listed)} from {view} {alias}{joined}" + (f" where {where}" if where else "")

    def column(self, names: tuple[str, ...], alias: str) -> str:
        # Beside a second table a bare name could be of either; only uid, which both share by USING, is not.
        return f"{alias}.{self.random.choice(names)}"

    def table(self, outer: str, depth: int) -> str:
        return f"({self.select([outer], depth + 1)}) s{depth}"

    def condition(self, names: tuple[str, ...], alias: str, outer: list[str], depth: int) -> str:
        pick = self.random
        owner = pick.choice([alias, alias, *outer])
        uid = f"'{pick.choice(self.uids)}'"
        kind = pick.randrange(7)
        if kind == 0:
            return f"{owner}.uid = {uid}"
        if kind == 1:
            return f"{owner}.uid in ({uid}, '{pick.choice(self.uids)}')"
        if kind == 2:
            return f"({owner}.uid = {uid} or {self.column(names, alias)} is null)"
        if kind == 3:
            return f"not {owner}.uid = {uid}"
        if kind == 4 and depth < 2:
            return f"exists (select 1 from {self.table(alias, depth)})"
        if kind == 5 and depth < 2:
            return f"{alias}.uid in (select t.uid from manifest t where {owner}.uid = {uid})"
        return f"{self.column(names, alias)} is not null"


def compare(made: SmallRoot, seeds: range) -> int:
    """Compare the queries of `seeds`; the number of those that DuckDB takes."""
    num_run = 0
    with Manifest(made.root) as manifest:
        for seed in seeds:
            sql = Generator(seed, sorted(made.samples)).query()
            try:
                whole = rounded_rows(manifest.connection.sql(sql))
            except duckdb.Error:
                continue  # a column that both tables of a join have
            assert rounded_rows(manifest.query(sql)) == whole, sql
            num_run += 1
    return num_run


@pytest.fixture
def many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two files be many enough for files without a wanted uid to be left out."""
    for module in (manifest_module, uid_index):
        monkeypatch.setattr(module, "MIN_FILES", 1)


def test_a_condition_on_another_scope_prunes_nothing(made: SmallRoot, many_files: None) -> None:
    uid = sorted(made.samples)[0]
    sql = f"select (select count(*) from manifest i where o.uid = '{uid}') from manifest o where o.uid = '{uid}'"
    with Manifest(made.root) as manifest:
        assert manifest.query(sql).fetchall() == [(len(made.samples),)]


def test_random_queries(made: SmallRoot, many_files: None) -> None:
    assert compare(made, range(75)) > 37


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_random_queries(made: SmallRoot, many_files: None) -> None:
    assert compare(made, range(1_000, 11_000)) > 5_000
