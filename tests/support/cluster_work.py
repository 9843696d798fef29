"""What the cluster suite works on: a recipe over a small web, and the root that one machine makes of it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from curation.storage import Root
from tests.support import demo_run

NUM_ROWS = 160
ROWS_PER_UNIT = 10
DOWNLOADED = ("plans/", "samples/", "rejects/", "downloads/", "raw/")


@dataclass
class Work:
    """The recipe, the root that one machine makes of it, and the same root after its ingest."""

    recipe: Path
    local: Path
    ingested: Path
    answer_s: float = 0.0
    """How long the web takes for a picture."""

    def arguments(self, root: Path, *settings: str) -> list[str]:
        flags = [word for setting in settings for word in ("--set", setting)]
        return ["--recipe", str(self.recipe), "--root", str(root), *flags]

    def copy(self, root: Path) -> Path:
        return shutil.copytree(self.ingested, root)


def curate(*arguments: str) -> None:
    done = subprocess.run(
        demo_run.curate(*arguments), env=demo_run.environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4_000:]


def downloaded(folder: Path) -> dict[str, bytes]:
    """What ingest and download have made; a shard that no row names does not exist, by contract."""
    root = Root(folder)
    named = {
        shard
        for unit in root.units("downloads")
        for shard in root.read_parquet(f"downloads/{unit}.parquet", ["shard"])["shard"].to_pylist()
    }
    return {
        name: path.read_bytes()
        for name, path in demo_run.files(folder).items()
        if name.startswith(DOWNLOADED) and (not name.startswith("raw/") or name in named)
    }
