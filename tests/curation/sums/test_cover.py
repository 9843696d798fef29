"""Which files stand under a sum: also units inside of packed files, and no packed file that does not count."""

from pathlib import Path

from curation.compaction.compact import compact
from curation.sums.cover import list_packable, list_standing, list_unnamed_packed
from tests.support import packed_root
from tests.support.removal import Killing
from tests.support.small_root import BATCH, VERSION


def test_units_in_packed_files_stand_with_their_own_sizes(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    assert list_packable(root) == ["samples", "rejects", "downloads", "scores_words", f"selection/{VERSION}"]
    before = {folder: list_standing(root, folder.partition("/")[0]) for folder in list_packable(root)}
    compact(root)
    for folder, files in before.items():
        packed = f"{folder}/packed/{BATCH}-000000-000007.parquet"
        found = list_standing(root, folder.partition("/")[0])
        assert {rel: size for rel, size in found.items() if rel != packed} == files
        assert (packed in found) == (folder != "rejects")


def test_a_packed_file_of_an_interrupted_run_does_not_stand(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    assert packed_root.is_killed(lambda: compact(root), Killing(0, after=True))
    packed = f"samples/packed/{BATCH}-000000-000007.parquet"
    assert root.own_exists(packed) and packed not in list_standing(root, "samples")
    assert list_unnamed_packed(root, "samples") == [packed] and list_unnamed_packed(root, "downloads") == []


def test_units_of_a_packed_file_that_is_gone_do_not_stand(tmp_path: Path) -> None:
    root = packed_root.build(tmp_path / "root")
    compact(root)
    root.delete(f"downloads/packed/{BATCH}-000000-000007.parquet")
    assert list_standing(root, "downloads") == {} and len(list_standing(root, "samples")) == 9
