"""A folder on this machine that only this user can write to, for what is read back and believed."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from curation.errors import UserError


def private_folder_path() -> Path:
    """Where the folder is, whether it exists or not: below the machine's folder for temporary files."""
    return Path(tempfile.gettempdir(), f"clip-curation-{os.getuid()}")


def make_private_folder() -> Path:
    """The folder, made with mode 0700 when it does not exist.

    Raises UserError when something else has its name, another user owns it, or others can write to it: everybody can
    make files in the folder above, and the name can be foreseen.
    """
    path = private_folder_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            raise UserError(
                f"{path} is not a folder that you own and that is closed to others (mode 0700), so what lies in it "
                f"cannot be trusted: remove it, or set TMPDIR to a folder of your own."
            ) from None
    return path
