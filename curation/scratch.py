"""Names in the scratch folder: of what is written there, by which stage and for which root.

A local root has a scratch folder of its own; all roots on object stores share one on each machine. What a killed stage
left there holds rows and pictures, so its name says whose it is: the stage deletes it when it runs again, and
`curate forget` deletes all that is of its root.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from curation.storage import Root, fingerprint

UNPUBLISHED = re.compile(r"[0-9a-f]{32}")
"""Names of files that `Files.put` has written and not yet moved."""
LEFT_AFTER_S = 86_400.0


def name_scratch(root: Root, stage: str) -> str:
    """What the names of files and folders begin with that `stage`, a word without a hyphen, writes for `root`."""
    return f"{stage}-{fingerprint(root.url())}-"


def is_scratch_of(root: Root, name: str) -> bool:
    """Whether `name` begins with what `name_scratch` gives for `root` and any stage."""
    _, _, rest = name.partition("-")
    return rest.startswith(f"{fingerprint(root.url())}-")


@contextlib.contextmanager
def open_folder(root: Root, stage: str) -> Iterator[Path]:
    """A folder in the scratch of `root`, deleted at the end, as are the folders above that were made for it.

    What a killed run of the same stage left is deleted first, so one run of `stage` at a time may use this.
    """
    scratch, prefix = root.scratch_path, name_scratch(root, stage)
    absent = [folder for folder in (scratch, scratch.parent) if root.is_local and not folder.exists()]
    root.scratch()
    for left in scratch.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, dir=scratch) as folder:
            yield Path(folder)
    finally:
        for made in absent:
            with contextlib.suppress(OSError):
                made.rmdir()


def delete_left(root: Root) -> None:
    """Delete what processes left in the scratch of a local root that were killed between writing and publishing a file.

    Tasks on other machines may be publishing into the same folder, so age decides: a file is moved within seconds. The
    time of the last change of the inode counts, since a file that is moved here keeps the time of its contents.
    """
    if not root.is_local:
        return
    with contextlib.suppress(OSError):  # there is none, or this account may not look into it
        for path in [path for path in root.scratch_path.iterdir() if UNPUBLISHED.fullmatch(path.name)]:
            with contextlib.suppress(OSError):  # another process has moved it, or this account may not delete it
                if time.time() - path.lstat().st_ctime > LEFT_AFTER_S:
                    path.unlink()
