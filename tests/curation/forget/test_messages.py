"""What a removal says: files are named, but not in the log where their names say something themselves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from curation.forget import plan
from curation.forget.messages import NUM_NAMED, describe_log, describe_removal, describe_result
from curation.forget.proof import Proof
from curation.forget.requests import parse_requests
from tests.support import removal


def test_what_stands_against_the_proof_is_named_and_its_telling_names_are_not_logged(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    planned = plan(made.root, parse_requests(uids=[min(made.images)]), reason="request", date=removal.DATE)
    assert planned is not None
    proof = Proof(num_files=3, num_bytes=5, found={"a.txt": 2}, unread=("b.gz", "c.gz"), hidden=frozenset({"c.gz"}))
    said = describe_result(planned.pending, proof)
    assert "  a.txt still holds something of them.\n  b.gz cannot be decoded" in said and "c.gz" in said
    logged = describe_log(planned.pending, proof)["proof"]
    assert (logged["holds"], logged["found"], logged["unread"][0]) == (False, {"a.txt": 2}, "b.gz")
    assert "c.gz" not in str(logged) and len(logged["unread"][1]) == 64
    assert "is left." in describe_result(planned.pending, replace(proof, found={}, unread=()))


def test_of_many_names_their_number_is_said(tmp_path: Path) -> None:
    made = removal.build(tmp_path / "root")
    planned = plan(made.root, parse_requests(uids=[min(made.images)]), reason="request", date=removal.DATE)
    assert planned is not None
    said = describe_removal(planned.pending, [f"url {n}" for n in range(NUM_NAMED + 3)], is_done=True)
    assert said.startswith("1 row in 1 unit forgotten;") and said.endswith("  … and 3 more.\n")
