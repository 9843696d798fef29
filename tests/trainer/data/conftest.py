"""One packed root a session, and a cache folder of the session's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from curation.storage import Root
from tests.support.trainer import damaged, roots

NUM_ROWS = 211


@dataclass(frozen=True)
class Packed:
    """A root, its uids in order of the shards, and the folder for indexes."""

    root: Root
    uids: list[str]
    cache: Path


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    """211 tiny samples in 14 shards; nothing may change it."""
    folder = tmp_path_factory.mktemp("packed")
    root = Root(folder / "root")
    return Packed(root, roots.packed(root, NUM_ROWS), folder / "cache")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    yield


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "root"
    roots.packed(Root(folder), damaged.NUM_ROWS, rows_per_shard=16, pictures=True)
    return folder


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Root:
    """64 pictures in four shards, to be damaged."""
    shutil.copytree(sound, tmp_path / "root")
    return Root(tmp_path / "root")
