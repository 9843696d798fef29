"""What a packing is made from: when there is none to make, and which columns its rows and its index have."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curation.download.withdrawn import NO_LISTS
from curation.errors import UserError
from curation.packing.version import (
    build_index_schema,
    build_row_schema,
    check_largest,
    find_work,
    publish_version,
    read_score_schemas,
)
from curation.recipe.config import PackConfig
from curation.schema import TRAIN_INDEX
from curation.storage import Root
from jobs import pack
from tests.support.small_root import UNITS
from tests.support.train_shards import build_packable, pack_recipe, select_narrower

SCORES = {"scores_x": pa.schema([("top_caption", pa.string()), ("width", pa.float32()), ("sharp", pa.float32())])}


def test_rows_have_each_column_once_and_the_index_says_where_members_lie_first() -> None:
    rows, index = build_row_schema(SCORES), build_index_schema(SCORES, {"caption": 1.0})
    assert len(set(rows.names)) == len(rows.names) and rows.field("width").type == pa.int32()
    assert rows.names.index("uid") == 0 and rows.names[-2:] == ["top_caption", "sharp"]
    assert index.names[: len(TRAIN_INDEX.names)] == TRAIN_INDEX.names and "fetched_sha256" in index.names
    assert set(rows.names) - set(index.names) == {"stored_sha256"}
    assert "original_caption" in build_index_schema(SCORES, {"top_caption": 1.0}).names
    with pytest.raises(UserError, match="'sharp', which is no column of text; those are .*top_caption"):
        build_index_schema(SCORES, {"sharp": 1.0})


def test_scores_that_lack_a_unit_are_left_out(root: Root) -> None:
    build_packable(root)
    assert list(read_score_schemas(root, UNITS)) == ["scores_recaption"]
    root.remove(f"scores_recaption/{UNITS[1]}.parquet")
    assert read_score_schemas(root, UNITS) == {}


def test_there_is_work_until_it_is_done_and_again_for_another_selection_or_seed(root: Root) -> None:
    made = build_packable(root)
    config = pack_recipe().pack
    first = find_work(root, config, NO_LISTS)
    assert first is not None and first.previous is None and first.version.scores == ("scores_recaption",)
    pack.run_here(pack_recipe(), root)
    assert find_work(root, config, NO_LISTS) is None
    other = find_work(root, pack_recipe(seed=1).pack, NO_LISTS)
    assert other is not None and other.version.fp != first.version.fp
    assert other.previous is not None and other.previous["fingerprint"] == first.version.fp
    select_narrower(made)
    narrower = find_work(root, config, NO_LISTS)
    assert narrower is not None and narrower.version.fp not in (first.version.fp, other.version.fp)


def test_nothing_is_published_of_no_shard(root: Root) -> None:
    build_packable(root)
    work = find_work(root, pack_recipe().pack, NO_LISTS)
    assert work is not None
    with pytest.raises(UserError, match="keeps no row"):
        publish_version(work, [])
    assert root.current("train") is None and not root.list(f"train/{work.version.fp}")


def test_a_sample_that_is_larger_than_a_shard_is_refused_where_shards_are_cut_by_bytes() -> None:
    check_largest(PackConfig(), 10**12)
    check_largest(PackConfig(num_bytes_per_shard=5_000), 5_000)
    with pytest.raises(UserError, match="is 5,000, and one sample alone takes 5,001 bytes"):
        check_largest(PackConfig(num_bytes_per_shard=5_000), 5_001)
