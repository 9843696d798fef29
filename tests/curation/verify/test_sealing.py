"""`curate seal` makes sums for an old root and mends a torn chain; verify says more or less as it is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from curation.storage import Root
from curation.verify import find_differences, verify
from curation.verify.sealing import seal
from jobs import cli
from tests.support import small_root
from tests.support.small_root import UNITS


@pytest.fixture
def old(root: Root) -> Root:
    """A root as earlier versions made it: whole and without sums."""
    small_root.finish(root)
    assert root.record().format == 2 and verify(root) is None
    return root


@pytest.fixture
def sealed(old: Root) -> Root:
    assert seal(old) is None
    return old


def path(root: Root, rel: str) -> Path:
    return Path(root.full(rel))


def test_an_old_root_can_be_sealed(sealed: Root) -> None:
    assert sealed.record().format == 3 and verify(Root(sealed.base)) is None
    before = {name: sealed.read_bytes(name) for name in ("root.json", *(f"sums/{n}" for n in sealed.list("sums")))}
    assert seal(sealed) is None
    assert before == {name: sealed.read_bytes(name) for name in before}


def test_a_root_that_does_not_add_up_is_not_sealed(old: Root) -> None:
    old.remove(f"downloads/{UNITS[0]}.parquet")
    assert "downloads" in (seal(old) or "")
    assert old.record().format == 2 and not old.exists("sums")


def test_a_damaged_root_json_is_made_again_from_the_ledgers(sealed: Root) -> None:
    whole = sealed.read_bytes("root.json")
    for damaged in (whole[:-20], whole.replace(b'"format": 3', b'"format": 2'), None):
        if damaged is None:
            path(sealed, "root.json").unlink()
        else:
            path(sealed, "root.json").write_bytes(damaged)
        assert seal(Root(sealed.base)) is None
        assert sealed.read_bytes("root.json") == whole


def test_a_lost_ledger_is_made_again(sealed: Root) -> None:
    (lost, *_) = [f"sums/{name}" for name in sealed.list("sums") if name.startswith("selection")]
    whole = sealed.read_bytes(lost)
    sealed.remove(lost)
    assert lost in (verify(Root(sealed.base)) or "")
    assert seal(Root(sealed.base)) is None
    assert sealed.read_bytes(lost) == whole and verify(Root(sealed.base)) is None


def test_a_table_that_was_deleted_whole_is_named_and_can_be_forgotten(sealed: Root) -> None:
    sealed.remove("scores_caption_length")
    assert "run `curate score` again" in (verify(sealed) or "")
    assert seal(sealed) is None and verify(sealed) is None


def test_what_an_interrupted_stage_left_is_named_and_can_be_sealed(sealed: Root) -> None:
    unit = UNITS[0].replace("000000", "000007")
    data = sealed.read_bytes(f"rejects/{UNITS[0]}.parquet")
    sealed.remove(f"rejects/{UNITS[0]}.parquet")
    sealed.publish(f"rejects/{unit}.parquet", data)
    found = list(find_differences(sealed))
    assert any(f"rejects/{unit}.parquet is under no sum: an interrupted stage left it" in said for said in found)
    assert any(f"rejects/{UNITS[0]}.parquet is missing: run `curate ingest` again" in said for said in found)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return int(str(ended.value.code))


def test_verify_says_one_difference_or_all(sealed: Root, capsys: pytest.CaptureFixture[str]) -> None:
    for unit in UNITS:
        sealed.remove(f"scores_caption_length/{unit}.parquet")
    assert call("verify", sealed.base) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert call("verify", "--all", "--quick", sealed.base) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert call("status", sealed.base) == 0
    assert "is missing: run `curate score` again" in capsys.readouterr().out


def test_seal_says_what_it_did(old: Root, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("seal", old.base) == 0
    assert "is sealed" in capsys.readouterr().out
    sealed = Root(old.base)
    sealed.remove(f"plans/{sealed.list('plans')[0]}")
    assert call("seal", old.base) == 1
    assert "plans/" in capsys.readouterr().err
