"""`spark-submit --py-files clip-curation.zip`: what executors import works out of a zip, in child processes too."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import filters
from curation import sources
from tests.support.demo_run import REPOSITORY
from tests.support.small_root import picture

_ASK = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
sys.path.append(sys.argv[2])
import curation, filters, jobs.download, jobs.engines.img2dataset_engine
from curation import sources
from curation.adopt.pictures import AS_IT_IS
from curation.images.decoder import Decoder

async def width():
    decoder = Decoder(AS_IT_IS)
    try:
        return (await decoder.decode(bytes.fromhex(sys.argv[3]))).width
    finally:
        await decoder.close()

print(json.dumps([curation.__file__, filters.names(), sources.list_formats(), asyncio.run(width())]))
"""


def test_a_zip_of_the_packages_is_enough_for_an_executor(tmp_path: Path) -> None:
    shipped = tmp_path / "clip-curation.zip"
    with zipfile.ZipFile(shipped, "w") as archive:
        for package in ("curation", "filters", "jobs"):
            for path in (REPOSITORY / package).rglob("*.py"):
                archive.write(path, path.relative_to(REPOSITORY))
    # -S leaves out the .pth files, and with them the checkout that is installed for development.
    command = [sys.executable, "-S", "-c", _ASK, str(shipped), sysconfig.get_path("purelib"), picture(3, 50, 40).hex()]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    place, names, formats, width = json.loads(done.stdout)
    assert place.startswith(str(shipped)) and width == 50
    assert names == filters.names() and formats == sources.list_formats()
