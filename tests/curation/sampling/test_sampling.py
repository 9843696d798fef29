"""`curate sample`: a share of the rows as a whole root, the same bytes each time, also after a kill."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from curation.adopt import adopt
from curation.errors import UserError
from curation.sampling import make_chooser, sample
from curation.storage import Root
from curation.verify import find_differences
from tests.support import removal
from tests.support.removal import KilledError, Killing
from tests.support.small_root import SmallRoot, picture


@pytest.fixture
def made(tmp_path: Path) -> SmallRoot:
    """A sealed root with every stage behind it."""
    return removal.build(tmp_path / "root")


def read_rows(root: Root, table: str) -> dict[str, dict[str, object]]:
    """The rows of a table of units by uid."""
    return {row["uid"]: row for u in root.units(table) for row in root.read_parquet(f"{table}/{u}.parquet").to_pylist()}


def test_a_sample_is_a_whole_root_of_the_rows_that_their_hashes_choose(made: SmallRoot, tmp_path: Path) -> None:
    before = removal.contents(tmp_path / "root")
    target = Root(tmp_path / "sample")
    number = sample(made.root, target, 0.4)
    chosen = {uid for uid in made.samples if make_chooser(0.4, 0)(uid)}
    assert number == len(chosen) and 5 < number < 35
    again = Root(tmp_path / "sample")
    assert list(find_differences(again)) == [] and set(read_rows(again, "samples")) == chosen
    for uid, row in read_rows(again, "downloads").items():
        if row["status"] == "ok":
            assert again.read_bytes(str(row["shard"]), row["offset"], row["size"]) == made.images[uid]  # type: ignore[arg-type]
    assert set(read_rows(again, "scores_caption_length")) == chosen & set(made.images)
    assert again.current("selection") is None and removal.contents(tmp_path / "root") == before


def test_vectors_stay_with_their_uids(made: SmallRoot, tmp_path: Path) -> None:
    target = Root(tmp_path / "sample")
    sample(made.root, target, 0.5)
    for unit in target.units("samples"):
        vectors = []
        for root in (made.root, target):
            uids = root.read_parquet(f"embeddings/metadata/metadata_{unit}.parquet")["uid"].to_pylist()
            array = np.load(io.BytesIO(root.read_bytes(f"embeddings/img_emb/img_emb_{unit}.npy")))
            vectors.append({uid: row.tobytes() for uid, row in zip(uids, array, strict=True)})
        assert vectors[1].items() <= vectors[0].items() and vectors[1]


def test_a_larger_share_has_every_row_of_a_smaller_one(made: SmallRoot) -> None:
    small, large = ({uid for uid in made.samples if make_chooser(share, 3)(uid)} for share in (0.2, 0.6))
    assert small < large and small != {uid for uid in made.samples if make_chooser(0.2, 4)(uid)}


def test_a_kill_anywhere_and_the_command_again_end_in_the_same_bytes(made: SmallRoot, tmp_path: Path) -> None:
    counting = Killing(None, after=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Root, "put", lambda root, rel, data: counting.put(root, rel, data))
        sample(made.root, Root(tmp_path / "whole"), 0.4)
    wanted = removal.contents(tmp_path / "whole")
    for number in range(0, counting.count, 5):
        killing = Killing(number, after=number % 2 == 0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Root, "put", lambda root, rel, data, k=killing: k.put(root, rel, data))
            with pytest.raises(KilledError):
                sample(made.root, Root(tmp_path / "killed"), 0.4)
        sample(made.root, Root(tmp_path / "killed"), 0.4)
        assert removal.contents(tmp_path / "killed") == wanted, number
        shutil.rmtree(tmp_path / "killed")


def test_an_adopted_folder_is_sampled_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number in range(20):
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(picture(number + 1))
    root = Root(tmp_path / "root")
    adopt(root, [str(tmp_path / "pictures")])
    number = sample(root, Root(tmp_path / "sample"), 0.5)
    again = Root(tmp_path / "sample")
    assert 0 < number < 20 and list(find_differences(again)) == []
    shards = {str(row["shard"]) for row in read_rows(again, "downloads").values()}
    assert len(shards) == number and all(shard.startswith(str(tmp_path / "pictures")) for shard in shards)


def test_a_folder_of_which_no_row_was_taken_is_known_to_a_later_adoption(tmp_path: Path) -> None:
    root = Root(tmp_path / "root")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").write_bytes(picture(len(name)))
        (tmp_path / name / f"{name}.png").write_bytes(picture(ord(name[0])))
        adopt(root, [str(tmp_path / name)])
    units = {unit: root.read_parquet(f"samples/{unit}.parquet")["uid"].to_pylist() for unit in root.units("samples")}
    seed = next(
        seed
        for seed in range(1_000)
        if sorted(sum(map(make_chooser(0.4, seed), u)) > 0 for u in units.values()) == [0, 1]
    )
    number = sample(root, Root(tmp_path / "sample"), 0.4, seed)
    again = Root(tmp_path / "sample")
    adopt(again, [str(tmp_path / "one"), str(tmp_path / "two")])
    assert len(read_rows(Root(tmp_path / "sample"), "samples")) == number and list(find_differences(again)) == []


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_share_that_is_none_is_one_sentence(made: SmallRoot, tmp_path: Path, share: float) -> None:
    with pytest.raises(UserError, match=re.escape("--share must be between 0 and 1")):
        sample(made.root, Root(tmp_path / "sample"), share)
    assert not (tmp_path / "sample").exists()


def test_another_root_is_never_written_into(made: SmallRoot, tmp_path: Path) -> None:
    other = removal.build(tmp_path / "other")
    with pytest.raises(UserError, match="is a root already: name a new folder"):
        sample(made.root, other.root, 0.4)
    with pytest.raises(UserError, match="is a root already: name a new folder"):
        sample(made.root, Root(tmp_path / "root"), 0.4)
    sample(made.root, Root(tmp_path / "sample"), 0.4)
    with pytest.raises(UserError, match="is another sample"):
        sample(made.root, Root(tmp_path / "sample"), 0.3)
