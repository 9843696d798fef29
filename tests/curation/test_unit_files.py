"""A unit is read in the same way by itself and inside of a packed file."""

import pytest

from curation.compaction.compact import compact
from curation.storage import Root
from tests.support import packed_root
from tests.support.small_root import BATCH

REL = f"samples/{BATCH}-000003.parquet"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Root, Root]:
    """The same root with small files and with packed ones."""
    folder = tmp_path_factory.mktemp("pair")
    plain = packed_root.build(folder / "plain")
    packed = packed_root.build(folder / "packed")
    compact(packed)
    return plain, Root(folder / "packed")


def test_sizes_lists_and_ranges_are_those_of_the_small_files(pair: tuple[Root, Root]) -> None:
    plain, packed = pair
    data = plain.read_bytes(REL)
    assert packed.exists(REL) and packed.size(REL) == len(data)
    assert packed.sizes("samples") == plain.sizes("samples") and packed.list("samples") == plain.list("samples")
    for offset, size in ((0, None), (5, 7), (5, None), (len(data) - 2, 9), (len(data) + 3, 4)):
        assert packed.read_bytes(REL, offset, size) == plain.read_bytes(REL, offset, size)
    with packed.open(REL) as opened:
        assert opened.read() == data
    assert packed.read_schema(REL) == plain.read_schema(REL)
    assert packed.read_parquet(REL, ["url"]).equals(plain.read_parquet(REL, ["url"]))
    assert packed.own_sizes("samples") == {} and not packed.own_exists(REL)


def test_a_unit_that_there_is_not_is_missing_in_both(pair: tuple[Root, Root]) -> None:
    lacking = f"samples/{BATCH}-000099.parquet"
    for root in pair:
        assert not root.exists(lacking) and root.place_of(lacking) is None
        for read in (root.read_bytes, root.size, root.open, root.read_parquet):
            with pytest.raises(FileNotFoundError):
                read(lacking)


def test_a_packed_file_itself_is_a_file_like_others(pair: tuple[Root, Root]) -> None:
    plain, packed = pair
    place = packed.place_of(REL)
    assert place is not None and packed.place_of(place.file) is None
    assert packed.read_parquet(place.file).num_rows == 8 * packed_root.NUM_ROWS
    assert plain.place_of(REL) is None and not plain.exists(place.file)
