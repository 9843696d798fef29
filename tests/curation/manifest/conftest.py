"""A cache folder for each test, and a root with every table."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from curation.storage import Root
from tests.support.small_root import SmallRoot
from tests.support.whole_root import build_whole_root


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    gc.collect()  # connections of failed queries end here, and not in the thread of an S3 client that others wait for


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SmallRoot:
    root = Root(tmp_path_factory.mktemp("whole") / "root")
    root.create()
    return build_whole_root(root)
