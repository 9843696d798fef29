"""Where the files that a root's tables name may lie: in the root, or in a folder that `curate adopt` recorded.

A root may come from somebody else. A table of it must not send readers to other files, to other stores, or to servers
inside of the reader's network.
"""

from __future__ import annotations

import errno
import functools
import re
import socket
from collections.abc import Container, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from curation.errors import UserError
from curation.fetch.addresses import AddressPolicy

if TYPE_CHECKING:
    import aiohttp

WEB = ("http", "https")
SCHEMES = (*WEB, "file", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hdfs", "webhdfs")
"""What a folder that is adopted may begin with, besides the scheme of the root itself. The other file systems of fsspec
run commands (git), open what another one names (simplecache, zip, reference), or are of no use for shards."""
LITERAL = ("s3", "s3a")
"""Stores on which a root may have the characters * ? [ in its name."""
PICTURE_FOLDER = "pictures"
"""The format of an input that is a folder whose files are pictures, as plans of adoption record it."""
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
POLICY = AddressPolicy()
"""Downloads connect to the same addresses, save those that a recipe allows besides."""


class ForeignPlaceError(UserError):
    """A table of a root names a file that lies neither in the root nor in a folder that was adopted."""


def is_elsewhere(rel: str) -> bool:
    """Whether `rel` is a full path or URL and no path relative to ROOT."""
    return rel.startswith("/") or "://" in rel


def check_name(base: str) -> None:
    """Raise UserError for the name of a root that its sentences or its store cannot bear."""
    if CONTROLS.search(base):
        raise UserError(f"The root {base!r} has control characters in its name: choose a name without them.")
    if "://" in base and base.partition("://")[0] not in LITERAL and set(base) & set("*?["):
        # Some clients cut a name at ?, and others take these for patterns; this was tried on S3 alone.
        raise UserError(f"The root {base} has one of the characters * ? [ in its name: choose a name without them.")


def folder_of(path: str) -> str:
    """The folder of a full path or URL."""
    return path.rpartition("/")[0]


def recorded_folder(item: Mapping[str, Any]) -> str:
    """The folder that the record of an adopted input lets be read, with the folders below it."""
    path = str(item["path"])
    return path if item.get("format") == PICTURE_FOLDER else folder_of(path)


def is_web(path: str) -> bool:
    """Whether `path` is a URL of the web."""
    return path.partition("://")[0] in WEB and "://" in path


def lies_in(folder: str, folders: Container[str]) -> bool:
    """Whether `folder` is one of `folders` or below one of them."""
    while folder:
        if folder in folders:
            return True
        folder = folder_of(folder)
    return False


def check_inside(rel: str, base: str) -> None:
    """Raise ForeignPlaceError when the relative path `rel` leaves the root `base`."""
    if ".." in rel and ".." in rel.split("/"):
        raise ForeignPlaceError(f"{base} names the file {rel!r}, which lies outside of it: delete the table that does.")


def check_outside(path: str, base: str, is_recorded: bool) -> None:
    """Raise ForeignPlaceError unless `path` may be read as a file of an adopted folder; nothing is connected to.

    The root `base` has recorded its folder (`is_recorded`), its scheme is one of SCHEMES or that of `base`, and its
    host, on the web, has public addresses only.
    """
    if not is_recorded or ".." in path.split("/"):
        raise ForeignPlaceError(
            f"{base} names the file {path!r}, which lies outside of it in a folder that no plan of it has adopted: "
            f"adopt that folder (`curate adopt`), or delete the table that names it."
        )
    check_scheme(path, base)


def check_scheme(path: str, base: str) -> None:
    """Raise ForeignPlaceError when the full path or URL `path` has a scheme or a host that no shard is read from."""
    scheme, found, _ = path.partition("://")
    if not found:
        return
    if "::" in path or scheme not in (*SCHEMES, base.partition("://")[0]):
        raise ForeignPlaceError(f"Shards are not read from {path!r}: copy that folder to a file system or a store.")
    if scheme in WEB:
        _check_host(path)


def _check_host(url: str) -> None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 0
    except ValueError as error:
        raise ForeignPlaceError(f"Shards are not read from {url!r}: {error}.") from error
    if not is_public_host(host, port):
        raise ForeignPlaceError(
            f"Shards are not read from {url!r}, because its host has no public address: copy that folder to a file "
            f"system or a store."
        )


@functools.lru_cache(1024)
def is_public_host(host: str, port: int) -> bool:
    """Whether every address of `host` is one that downloads may connect to; also for a host that has none."""
    try:
        found = socket.getaddrinfo(host, port or None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return True  # to which nothing connects
    return all(POLICY.allows(str(address[0])) for *_, address in found)


def web_options() -> dict[str, Any]:
    """Options of fsspec's file system of the web: it connects to public addresses only, also after a redirect."""
    return {"get_client": _make_guarded_client}


async def _make_guarded_client(**kwargs: Any) -> aiohttp.ClientSession:
    import aiohttp  # it takes a third of a second, and few roots lie beside shards on the web

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=_open_public_socket), **kwargs)


def _open_public_socket(info: Any) -> socket.socket:
    """A socket for one address that a name was resolved to, just before it connects. Raises PermissionError."""
    family, kind, protocol, _, address = info
    if not POLICY.allows(str(address[0])):
        raise PermissionError(errno.EACCES, "Shards are not read from an address that is not public", str(address[0]))
    return socket.socket(family, kind, protocol)
