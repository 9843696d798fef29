"""What the clients of object stores leave to their user: uploads whose answer was lost, and deleting by names."""

from __future__ import annotations

import contextlib
import errno
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from curation.failures import is_of_store

ATTEMPTS = 5
WAIT_S = 0.2
"""Before the second attempt; it doubles with each one."""
NUM_DELETERS = 16
GLOB = re.compile(r"([*?\[])")
"""What fsspec takes for a pattern where it deletes, and DuckDB where it reads."""


def put_object(fs: Any, path: str, data: bytes | Path) -> None:
    """Put `data` (bytes, or a local file) at `path` of the store `fs`. Raises OSError, or what its client raises."""
    for attempt in range(ATTEMPTS):
        try:
            if isinstance(data, bytes):
                fs.pipe_file(path, data)
            else:
                fs.put_file(str(data), path)
            return
        except FileNotFoundError:
            # The store completed an upload in parts and its answer was lost, so the client asked once more and was told
            # that there is no such upload. What stands there now may also be an older file, so all is sent again.
            if attempt + 1 == ATTEMPTS:
                raise


def delete_objects(fs: Any, path: str) -> None:
    """Delete the object at `path`, or all objects below it; no error when there is none.

    `path` stands for itself, whatever its characters. Raises OSError where the store has not deleted all of them.
    """
    for attempt in range(ATTEMPTS):
        time.sleep(WAIT_S * 2**attempt if attempt else 0)
        names = fs.find(path)
        if not names:
            return
        with contextlib.suppress(FileNotFoundError):  # another process has deleted it
            _delete_once(fs, path, names)
            if names == [path]:
                return
    raise OSError(errno.EBUSY, "The object store does not delete it", fs.unstrip_protocol(path))


def delete_each(fs: Any, paths: Sequence[str]) -> None:
    """Delete the objects at `paths`, as they are named; no error for one that is not there."""

    def delete(path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(path)

    with ThreadPoolExecutor(NUM_DELETERS) as pool:
        list(pool.map(delete, paths))


def _delete_once(fs: Any, path: str, names: Sequence[str]) -> None:
    """Ask for `names`, all that lies at or below `path`, to be deleted; the store may leave some without saying so."""
    if names == [path]:
        fs.rm_file(path)
    elif GLOB.search(path):  # `rm` would delete what the pattern matches
        with ThreadPoolExecutor(NUM_DELETERS) as pool:
            list(pool.map(fs.rm_file, names))
    else:
        fs.rm(path, recursive=True)


def take_names_literally(fs: Any) -> Any:
    """A client of the store of `fs` for DuckDB: the pattern of one file, as `escape_glob` writes it, is that file.

    fsspec would list everything beside a name with such characters, once for each file.
    """
    client = type(fs)(*fs.storage_args, **{**fs.storage_options, "skip_instance_cache": True})
    client.glob = lambda pattern, **_: [re.sub(r"\[([*?\[])\]", r"\1", client._strip_protocol(pattern))]
    return client


@contextlib.contextmanager
def tolerate_failures() -> Iterator[None]:
    """Go on behind the block when the store, or the disk, failed in it."""
    try:
        yield
    except Exception as error:  # clients of stores raise classes of their own, which only is_of_store knows
        if not isinstance(error, OSError) and not is_of_store(error):
            raise
