"""Whatever lies in a folder: each row is read once, or one sentence says which file is wrong."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, event, given, settings

from curation.errors import UserError
from curation.metadata.inputs import find_inputs
from curation.metadata.rows import divide, read_shares
from curation.recipe.config import Recipe, SourceConfig
from curation.schema import RejectReason, uid
from tests.support.metadata_folders import MadeFile, metadata_folders, write_folder


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(metadata_folders())
def test_every_row_is_read_once_or_one_sentence_is_said(
    tmp_path_factory: pytest.TempPathFactory, files: list[MadeFile]
) -> None:
    pattern = write_folder(tmp_path_factory.mktemp("any") / "meta", files)
    whole = {file.name: file.num_rows for file in files if file.num_rows is not None}
    try:
        inputs = find_inputs(Recipe(sources=(SourceConfig(name="m", paths=(pattern,)),)))
        rows = [row for share in divide(inputs, 3) for batch in read_shares(share) for row in batch.to_pylist()]
    except UserError as error:
        event("refused")
        assert "\n" not in str(error) and len(whole) < len(files), error
        return
    event("read")
    assert {item.file for item in inputs} == {file.name for file in files}
    counts = Counter(row["file"] for row in rows)
    assert {name: counts[name] for name in whole} == whole
    assert all(counts[item.file] == item.num_rows for item in inputs if item.num_rows is not None)
    assert sorted({(row["position"], row["row"]) for row in rows}) == sorted((r["position"], r["row"]) for r in rows)
    for row in rows:
        if row["reason"] is None:
            assert row["uid"] == uid(row["url"], row["caption"]) and row["url"].strip()
        else:
            assert row["reason"] in {RejectReason.NO_URL, RejectReason.NOT_TEXT, RejectReason.MALFORMED}
            assert row["file"] not in whole or row["reason"] != RejectReason.MALFORMED
