"""Tables, vectors and shards without the forgotten rows: the others keep their bytes, empty units a listing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curation import schema
from curation.adopt import adopt
from curation.forget import forget
from curation.forget.requests import parse_requests
from curation.storage import Root
from curation.sums.recorder import sealing
from curation.sums.seal import drop_entries
from curation.verify import find_differences
from tests.support import removal
from tests.support.small_root import UNITS, VERSION, SmallRoot, picture


def forget_uids(made: SmallRoot, uids: list[str]) -> Root:
    """The root without `uids`, opened anew."""
    done = forget(made.root, parse_requests(uids=uids), reason="request", date=removal.DATE)
    assert done is not None and done.proof is not None and done.proof.holds
    return Root(made.root.base)


def read_vectors(root: Root, unit: str) -> dict[str, bytes]:
    """The vector of each uid."""
    uids = root.read_parquet(f"embeddings/metadata/metadata_{unit}.parquet")["uid"].to_pylist()
    vectors = np.load(io.BytesIO(root.read_bytes(f"embeddings/img_emb/img_emb_{unit}.npy")))
    return {uid: vector.tobytes() for uid, vector in zip(uids, vectors, strict=True)}


def test_each_vector_stays_with_its_uid(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    before = {unit: read_vectors(made.root, unit) for unit in UNITS}
    gone = sorted(made.images)[3:20:4]
    root = forget_uids(made, gone)
    for unit in UNITS:
        assert read_vectors(root, unit) == {uid: one for uid, one in before[unit].items() if uid not in gone}


def test_units_without_such_a_row_are_not_touched(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    gone = [uid for uid in sorted(made.images) if made.units[uid] == UNITS[0]][:2]
    before = removal.contents(tmp_path / "root")
    forget_uids(made, gone)
    after = removal.contents(tmp_path / "root")
    of_other = [name for name in before if UNITS[1] in name]
    assert len(of_other) >= 6 and all(after[name] == before[name] for name in of_other)


def test_a_unit_whose_every_row_is_forgotten_has_no_files(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    root = forget_uids(made, [uid for uid in made.samples if made.units[uid] == UNITS[0]])
    left = [name for name in removal.contents(tmp_path / "root") if UNITS[0] in name]
    assert left == [f"rejects/{UNITS[0]}.parquet"]
    assert list(find_differences(root)) == [] and root.units("samples") == [UNITS[1]]


def test_a_unit_that_loses_its_every_picture_keeps_its_tables(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    root = forget_uids(made, [uid for uid in made.images if made.units[uid] == UNITS[0]])
    assert root.missing_units("downloads") == [] and root.missing_units("scores_caption_length") == []
    assert read_vectors(root, UNITS[0]) == {} and list(find_differences(root)) == []
    assert not [name for name in root.list("raw") if name.startswith(UNITS[0])]


def test_a_duplicate_of_a_forgotten_row_stays_removed_for_a_hash(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    (row,) = made.root.read_parquet(f"duplicates/{VERSION}/part-00000.parquet").to_pylist()
    done = forget(made.root, parse_requests(uids=[row["kept_uid"]]), reason="request", date=removal.DATE)
    assert done is not None and done.pending.follow == [row["uid"]]
    (after,) = Root(made.root.base).read_parquet(f"duplicates/{VERSION}/part-00000.parquet").to_pylist()
    assert after["uid"] == row["uid"] and after["tier"] == f"forgotten:{row['tier']}"
    assert after["kept_uid"] == after["component"] and after["kept_uid"].startswith("forgotten:")
    assert list(find_differences(Root(made.root.base))) == []


def test_with_copies_the_duplicate_goes_too(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    (row,) = made.root.read_parquet(f"duplicates/{VERSION}/part-00000.parquet").to_pylist()
    requests = parse_requests(uids=[row["kept_uid"]])
    done = forget(made.root, requests, reason="request", date=removal.DATE, with_copies=True)
    assert done is not None and sorted(done.pending.looked.uids) == sorted([row["uid"], row["kept_uid"]])
    assert removal.find_left(tmp_path / "root", made, [row["uid"], row["kept_uid"]]) == []


def test_shards_that_no_row_names_and_journals_go(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    uid = sorted(made.images)[0]
    made.root.publish(f"raw/{made.units[uid]}-0123456789abcdef.tar", made.images[uid])
    (made.root.scratch() / f"{made.units[uid]}-x.journal").write_bytes(made.images[uid])
    forget_uids(made, [uid])
    assert removal.find_left(tmp_path / "root", made, [uid]) == []


def test_rejects_of_a_forgotten_uid_say_nothing_but_their_source(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    uid = next(uid for uid in sorted(made.samples) if made.units[uid] == UNITS[0])
    repeat = {"source": "coyo", "file": "b.parquet", "row": 7, "uid": uid, "reason": "repeated"}
    removal.publish(made.root, {f"rejects/{UNITS[1]}.parquet": pa.Table.from_pylist([repeat], schema.REJECTS)})
    requests = parse_requests(uids=[uid])
    assert forget(Root(made.root.base), requests, reason="request", date=removal.DATE) is not None
    (row,) = Root(made.root.base).read_parquet(f"rejects/{UNITS[1]}.parquet").to_pylist()
    assert row == {"source": "coyo", "file": None, "row": None, "uid": None, "reason": "forgotten"}


@pytest.mark.parametrize("has_listing", [True, False], ids=["with its listing", "as earlier versions left it"])
def test_a_folder_of_which_all_rows_are_forgotten_can_be_adopted_again(tmp_path: Path, has_listing: bool) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "gone.jpg").write_bytes(picture(2))
    root = Root(tmp_path / "root")
    adopt(root, [str(tmp_path / "pictures")])
    (unit,) = root.units("samples")
    (uid,) = root.read_parquet(f"samples/{unit}.parquet")["uid"].to_pylist()
    done = forget(root, parse_requests(uids=[uid]), reason="asked", date=removal.DATE)
    assert done is not None and done.proof is not None and done.proof.holds
    assert list(find_differences(root)) == []
    if not has_listing:
        with sealing(root, ["listings"]) as recording:
            recording.remove(f"listings/{unit}.parquet")
        drop_entries(root, [f"listings/{unit}.parquet"])
    (tmp_path / "pictures" / "new.jpg").write_bytes(picture(3))
    adopt(Root(tmp_path / "root"), [str(tmp_path / "pictures")])
    (added,) = Root(tmp_path / "root").units("samples")
    names = root.read_parquet(f"samples/{added}.parquet")["source_id"].to_pylist()
    assert names == ["new.jpg"]
