"""Files against their sums: what the quick look asks, and how each difference is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.storage import Root
from curation.verify import find_differences, verify
from curation.verify.sealing import seal
from tests.support import small_root
from tests.support.small_root import UNITS, VERSION


@pytest.fixture
def sealed(root: Root) -> Root:
    """A root with every stage behind it, each file under a sum."""
    small_root.finish(root)
    assert seal(root) is None
    return root


def path(root: Root, rel: str) -> Path:
    return Path(root.full(rel))


@pytest.mark.parametrize(
    ("rel", "damage", "said"),
    [
        (f"samples/{UNITS[0]}.parquet", lambda data: data[:-1], "bytes, not the"),
        (f"train/{VERSION}/{VERSION}-000000.tar", lambda data: data[:-512], "bytes, not the"),
        (f"embeddings/img_emb/img_emb_{UNITS[0]}.npy", lambda data: data[:-4] + data[:4], "does not hold what was"),
    ],
)
def test_the_quick_check_asks_for_sizes_and_reads_what_is_small(
    sealed: Root, rel: str, damage: object, said: str
) -> None:
    assert callable(damage)
    path(sealed, rel).write_bytes(damage(sealed.read_bytes(rel)))
    assert rel in (verify(sealed, quick=True) or "") and said in (verify(sealed, quick=True) or "")


def test_the_quick_check_finds_raw_shards_that_are_gone_or_cut(sealed: Root) -> None:
    (first, second) = (f"raw/{name}" for name in sealed.list("raw"))
    path(sealed, first).unlink()
    path(sealed, second).write_bytes(sealed.read_bytes(second)[:1000])
    found = list(find_differences(sealed, quick=True))
    assert any(first in said and "is missing: " in said for said in found)
    assert any(second in said and "a picture ends at" in said for said in found)


def test_vectors_in_the_place_of_others_are_named(sealed: Root) -> None:
    one, other = (f"embeddings/img_emb/img_emb_{unit}.npy" for unit in UNITS)
    path(sealed, one).write_bytes(sealed.read_bytes(other))
    assert f"{one} holds what belongs into {other}" in (verify(sealed) or "")


def test_train_shards_in_each_others_place_are_both_named(sealed: Root) -> None:
    one, other = (f"train/{VERSION}/{VERSION}-00000{number}.tar" for number in range(2))
    data = sealed.read_bytes(one), sealed.read_bytes(other)
    path(sealed, one).write_bytes(data[1])
    path(sealed, other).write_bytes(data[0])
    found = list(find_differences(sealed))
    assert all(any(rel in said for said in found) for rel in (one, other))


def test_columns_that_cannot_be_read_end_no_check(sealed: Root) -> None:
    rel = f"scores_caption_length/{UNITS[0]}.parquet"
    data = bytearray(sealed.read_bytes(rel))
    data[data.rindex(b"ARROW:schema") + 20] = 0
    path(sealed, rel).write_bytes(data)
    found = list(find_differences(sealed))
    assert found[0].startswith(f"{rel} does not hold what was published") and len(found) > 1


def test_a_link_is_no_file_of_the_root(sealed: Root, tmp_path: Path) -> None:
    rel = f"samples/{UNITS[0]}.parquet"
    path(sealed, rel).rename(tmp_path / "elsewhere")
    path(sealed, rel).symlink_to(tmp_path / "elsewhere")
    assert (verify(sealed) or "").startswith(f"{rel} is a link to another file")


def test_a_file_of_no_plan_is_to_be_deleted(sealed: Root) -> None:
    rel = f"scores_caption_length/{UNITS[0].replace('0a1b', 'ffff')}.parquet"
    sealed.publish(rel, sealed.read_bytes(f"scores_caption_length/{UNITS[0]}.parquet"))
    assert (verify(sealed) or "") == f"{rel} is under no sum and belongs to no plan of this root: delete it."
