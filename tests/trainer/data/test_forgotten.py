"""The loader after `curate forget`: no forgotten row, the other rows as they were, and no index of the rows before."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.errors import UserError
from curation.forget import forget
from curation.forget.requests import parse_requests
from curation.storage import Root
from tests.support import removal
from tests.support.small_root import SmallRoot
from trainer.data import Loader


def read_all(root: Root, **options: object) -> dict[str, bytes]:
    """Every picture that the loader gives, by its uid."""
    loader = Loader(root, batch_size=4, transform=None, tokenizer=None, verify=True, **options)  # type: ignore[arg-type]
    return {uid: data for batch in loader for uid, data in zip(batch["uid"], batch["pixels"], strict=True)}


@pytest.mark.parametrize("table", ["train_index", "manifest"])
def test_an_index_of_the_rows_before_is_not_taken_again(tmp_path: Path, table: str) -> None:
    made: SmallRoot = removal.build(tmp_path / "root")
    before = read_all(made.root, table=table)
    gone = sorted(before)[2:9:3]
    assert forget(made.root, parse_requests(uids=gone), reason="request", date=removal.DATE) is not None
    after = read_all(Root(made.root.base), table=table)
    assert after == {uid: data for uid, data in before.items() if uid not in gone} and len(before) > 12


def test_a_run_cannot_go_on_as_if_nothing_had_gone(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    options = {"batch_size": 4, "transform": None, "tokenizer": None}
    loader = Loader(made.root, **options)  # type: ignore[arg-type]
    uid = next(iter(loader))["uid"][0]
    state = loader.state_dict()
    assert forget(made.root, parse_requests(uids=[uid]), reason="request", date=removal.DATE) is not None
    with pytest.raises(UserError, match="another order of samples"):
        Loader(Root(made.root.base), **options).load_state_dict(state)  # type: ignore[arg-type]
