"""A root with every table there is, and queries on it."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import UNITS, SmallRoot


def build_whole_root(root: Root) -> SmallRoot:
    """Every table there is, two tables of scores among them."""
    made = small_root.build(root)
    ok = sorted(made.images)
    small_root.duplicates(made, {ok[0]: ok[1], ok[5]: ok[6]})
    for unit in UNITS:
        uids = [uid for uid in ok if made.units[uid] == unit]
        words = pa.array([len(uid.strip("0")) for uid in uids], pa.int32())
        root.publish_parquet(f"scores_words/{unit}.parquet", pa.table({"uid": uids, "num_words": words}))
        # The second has no row for some, and a column that samples has too.
        half = uids[::2]
        sharp = pa.table({"uid": half, "odd name": [1.5] * len(half), "aesthetic": pa.array([9.0] * len(half))})
        root.publish_parquet(f"scores_sharp/{unit}.parquet", sharp)
    small_root.pack(made, small_root.select(made))
    return made


QUERIES = [
    "select source, count(*), avg(aesthetic) from manifest group by source order by 1",
    "select count(*) from manifest",
    "select count(*) from manifest where kept and status = 'ok'",
    "select m.uid, M.Reason from manifest m where not m.kept order by 1",
    "with a as (select uid, row_number() over (partition by source order by uid) as r from manifest) from a order by 1",
    "select uid, \"odd name\" from manifest where \"odd name\" is not null order by uid",
    "select m from manifest m order by uid",
    "select a.uid, b.kept from manifest a join manifest b on a.uid = b.duplicate_of order by all",
    "select uid from manifest where uid in (select uid from manifest where num_words > 3) order by uid limit 3",
    "select source from manifest semi join (select kept, source from manifest where kept) k using (source) order by 1",
    "from (pivot manifest on source in ('laion', 'coyo') using count(*) group by kept) order by all",
    "select column_name, min, max, count from (summarize select width, source from manifest)",
    "select columns('dupl.*') from manifest order by all",
    "with manifest as (select 1 as kept) select kept, count(*) from manifest group by all",
    "select count(*) from manifest natural join selection",
    "select width * 2 as w, count(*) from manifest where lower(source) = 'coyo' group by all order by all",
    "select uid from samples union select uid from manifest where kept order by 1 -- the end",
    "from selection where uid = (select min(uid) from selection)",
]  # fmt: skip


def rounded_rows(relation: duckdb.DuckDBPyRelation) -> list[list[Any]]:
    """All rows; averages to 9 digits, since threads add in any order."""
    return [[round(v, 9) if isinstance(v, float) else v for v in row] for row in relation.fetchall()]
