"""One shard of a folder, and the files beside it."""

from __future__ import annotations

from dataclasses import dataclass

from curation.storage import Root, fingerprint


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Files NAME.tar, NAME.parquet and NAME_stats.json of one folder. `path` is the tar's full path or URL."""

    source: str
    path: str
    num_bytes: tuple[int | None, ...] = ()
    """Sizes of tar, parquet and statistics; None where there is no such file."""

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2].removesuffix(".tar")

    @property
    def fingerprint(self) -> str:
        return fingerprint([self.name, list(self.num_bytes)])

    def file(self, suffix: str) -> str:
        return self.path.removesuffix(".tar") + suffix


def is_file(root: Root, path: str) -> bool:
    """Whether `path` is a plain file, or a link to one; a pipe is none, and opening it would wait for ever."""
    fs, inner, is_local = root.at(path)
    local = root.local(path)
    return local.is_file() if is_local and local is not None else bool(fs.isfile(inner))
