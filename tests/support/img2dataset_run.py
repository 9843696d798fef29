"""img2dataset itself, run over a small web on loopback, and its folders damaged as they are found in the wild."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# Its processes are forks here: begun anew, each of the two of a run would take three seconds to import it again.
_RUN = """
import json, multiprocessing, multiprocessing.context, multiprocessing.pool, sys
fork = multiprocessing.get_context("fork")
multiprocessing.get_context = lambda method=None: fork
multiprocessing.context.SpawnProcess = fork.Process
from img2dataset import download
for settings in json.loads(sys.argv[1]):
    download(**settings)
"""
SETTINGS: dict[str, Any] = {
    "input_format": "parquet",
    "url_col": "url",
    "caption_col": "caption",
    "output_format": "webdataset",
    "image_size": 32,
    "resize_mode": "keep_ratio",
    "thread_count": 8,
    "timeout": 60,
    "number_sample_per_shard": 20,
}


def img2dataset(folder: Path, tables: Mapping[str, pa.Table]) -> dict[str, Path]:
    """Run img2dataset over each of `tables` (url, caption, columns to be saved); the output folder of each."""
    settings = []
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
        saved = [column for column in table.column_names if column not in ("url", "caption")]
        places = {"url_list": str(folder / f"{name}.parquet"), "output_folder": str(folder / name)}
        settings.append(SETTINGS | places | {"save_additional_columns": saved})
    environment = os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1"}
    command = [sys.executable, "-c", _RUN, json.dumps(settings)]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=800)
    return {name: folder / name for name in tables}


def cut(path: Path, share: float) -> None:
    """Leave the first `share` of a file, as a killed writer does."""
    os.truncate(path, int(path.stat().st_size * share))


def write_tar(path: Path, members: Mapping[str, bytes]) -> None:
    """A tar of `members` in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
