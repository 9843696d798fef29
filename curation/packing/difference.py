"""How the train shards of one version differ from those of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curation.recipe.select_config import SelectConfig
from curation.schema import TRAIN_INDEX
from curation.scratch import name_scratch
from curation.selection.rows import read_ahead
from curation.selection.streams import Streams, open_connection
from curation.storage import Root
from curation.terminal import write_error

BEFORE, AFTER = 1, 2
"""What a uid counts in the sum of the versions that have it; a uid stands in a version at most once."""
_VERSIONS = "select uid, sum(versions) as versions from uids group by uid"
_SCHEMA = pa.schema([TRAIN_INDEX.field("uid"), pa.field("versions", pa.int64())])


def is_another(root: Root, previous: Mapping[str, Any] | None) -> bool:
    """Whether the current index came after `previous`, the record of another version."""
    current = root.current("train_index")
    return previous is not None and current is not None and previous["fingerprint"] != current["fingerprint"]


def report_difference(root: Root, previous: Mapping[str, Any], counts: Mapping[str, int]) -> None:
    """Say how the current train shards differ from `previous`, on standard error and in logs/pack-FP.json."""
    old, new = previous["fingerprint"], (root.current("train_index") or {})["fingerprint"]
    root.publish_json(f"logs/pack-{new}.json", {"fingerprint": new, "previous": old, **counts})
    write_error(
        f"pack: {counts['num_samples']:,} samples; {counts['num_added']:,} added, {counts['num_removed']:,} removed "
        f"since {old}, whose shards stay in train/{old} until you delete them\n"
    )


def name_counts(found: Mapping[int, int]) -> dict[str, int]:
    """The counts that are reported, from the number of uids for each sum of versions."""
    added = found.get(AFTER, 0)
    return {
        "num_samples": added + found.get(BEFORE + AFTER, 0),
        "num_added": added,
        "num_removed": found.get(BEFORE, 0),
    }


def count_difference(root: Root, before: Sequence[str], after: Sequence[str], limits: SelectConfig) -> dict[str, int]:
    """Samples that the index files `after` have, that `before` have not, and that only `before` have, out of core.

    Files of `before` that are gone count as empty.
    """

    def read(part: tuple[int, str]) -> pa.Table:
        version, name = part
        uids = root.read_parquet(name, ["uid"])["uid"] if root.exists(name) else pa.chunked_array([], pa.string())
        return pa.table([uids, pa.repeat(version, len(uids))], schema=_SCHEMA)

    parts = [*((BEFORE, name) for name in before), *((AFTER, name) for name in after)]
    with open_connection(limits, root.scratch(), prefix=name_scratch(root, "difference")) as connection:
        streams = Streams(connection)
        streams.register("uids", _SCHEMA, read_ahead(read, parts, root.count_readers(streams.num_threads)))
        batches = streams.query(f"select versions::bigint as v, count(*) as n from ({_VERSIONS}) group by versions")
        return name_counts({row["v"]: row["n"] for batch in batches for row in batch.to_pylist()})
