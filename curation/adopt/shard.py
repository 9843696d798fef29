"""One tar of a folder, and the files beside it."""

from __future__ import annotations

from dataclasses import dataclass

from curation.storage import Root, fingerprint

SUFFIX = ".tar"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Files NAME.tar, NAME.parquet and NAME_stats.json of one folder. `path` is the tar's full path or URL."""

    source: str
    path: str
    num_bytes: tuple[int | None, ...] = ()
    """Sizes of tar, parquet and statistics; None where there is no such file."""
    file: str = ""
    """The tar's path in the folder that is adopted, by which rejects name it; empty when it lies directly in it."""

    @property
    def file_name(self) -> str:
        return self.file or self.path.rpartition("/")[2]

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2][: -len(SUFFIX)]

    @property
    def fingerprint(self) -> str:
        return fingerprint([self.name, list(self.num_bytes)])

    def beside(self, suffix: str) -> str:
        """The path of the file NAME and `suffix` beside the tar."""
        return self.path[: -len(SUFFIX)] + suffix


def is_file(root: Root, path: str) -> bool:
    """Whether `path` is a plain file, or a link to one; a pipe is none, and opening it would wait for ever."""
    fs, inner, is_local = root.at(path)
    local = root.local(path)
    return local.is_file() if is_local and local is not None else bool(fs.isfile(inner))
