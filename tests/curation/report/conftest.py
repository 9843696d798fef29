"""A root with every table of a finished run."""

from __future__ import annotations

import pytest

from curation.storage import Root
from tests.support import small_root
from tests.support.small_root import SmallRoot


@pytest.fixture
def made(root: Root) -> SmallRoot:
    made = small_root.build(root)
    ok = [uid for uid, row in made.downloads.items() if row["status"] == "ok"]
    small_root.duplicates(made, {ok[0]: ok[1]})
    small_root.pack(made, small_root.select(made))
    return made
