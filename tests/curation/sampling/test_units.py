"""One unit copied into another root: under another name, without some tables, with pictures that are refused there."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import UserError
from curation.sampling.units import REFUSED_ELSEWHERE, copy_unit
from curation.storage import Root
from tests.support import removal
from tests.support.small_root import BATCH, UNITS, SmallRoot


@pytest.fixture
def made(tmp_path: Path) -> SmallRoot:
    """A sealed root with every stage behind it."""
    return removal.build(tmp_path / "root")


def test_a_unit_gets_another_name_and_lacks_what_is_left_out(made: SmallRoot, tmp_path: Path) -> None:
    target, name = Root(tmp_path / "new"), f"{BATCH[::-1]}-000007"
    number = copy_unit(made.root, target, UNITS[0], lambda uid: True, name=name, without=["scores_caption_length"])
    rows = target.read_parquet(f"downloads/{name}.parquet").to_pylist()
    assert number == len(rows) == 20 and not (tmp_path / "new" / "scores_caption_length").exists()
    for row in (row for row in rows if row["status"] == "ok"):
        assert row["shard"].startswith(f"raw/{name}-")
        assert target.read_bytes(row["shard"], row["offset"], row["size"]) == made.images[row["uid"]]


def test_a_picture_that_is_refused_leaves_its_row_and_nothing_else(made: SmallRoot, tmp_path: Path) -> None:
    target, unit = Root(tmp_path / "new"), UNITS[1]
    refused = next(uid for uid in made.images if made.units[uid] == unit)
    copy_unit(made.root, target, unit, lambda uid: True, shows=lambda uid: uid != refused)
    rows = {row["uid"]: row for row in target.read_parquet(f"downloads/{unit}.parquet").to_pylist()}
    known = {name: value for name, value in rows[refused].items() if value is not None}
    assert known == {"uid": refused, "status": "opted_out", "detail": REFUSED_ELSEWHERE}
    assert refused in target.read_parquet(f"samples/{unit}.parquet")["uid"].to_pylist()
    for rel in (f"scores_caption_length/{unit}.parquet", f"embeddings/metadata/metadata_{unit}.parquet"):
        assert refused not in target.read_parquet(rel)["uid"].to_pylist()
    assert all(made.images[refused] not in path.read_bytes() for path in (tmp_path / "new").rglob("*.tar"))


def test_a_picture_that_rotted_is_not_copied(made: SmallRoot, tmp_path: Path) -> None:
    row = next(row for uid, row in made.downloads.items() if row["status"] == "ok" and made.units[uid] == UNITS[0])
    path = tmp_path / "root" / row["shard"]
    data = bytearray(path.read_bytes())
    data[row["offset"] + row["size"] // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="is damaged: the .* are not those that were stored"):
        copy_unit(made.root, Root(tmp_path / "new"), UNITS[0], lambda uid: True)
