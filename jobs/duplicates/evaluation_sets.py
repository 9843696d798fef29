"""The entries of `dedupe.against`, looked up: which files of pictures, webdatasets and embeddings each of them is.

An entry is a file, a folder, or a pattern with `*`, `?`, `[…]` and webdataset's `{000..012}`, local or any fsspec URL.
Everything that it leads to is used, and what no tier could compare is refused: a set that is left out without a word
is trained on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import fsspec
from braceexpand import braceexpand

from curation.adopt.tar_samples import PICTURES
from curation.errors import UserError
from curation.npy import read_vectors_shape
from curation.storage import Root, fingerprint
from jobs.embedders import find_embedder

Kind = Literal["pictures", "webdataset", "embeddings"]


@dataclass(frozen=True, kw_only=True)
class File:
    """`path` inside the set's base; `version` changes when the file does, where the store says so."""

    path: str
    kind: Kind
    size: int
    version: str


@dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """One entry of `dedupe.against`; `name` is that of `base`, the folder that holds all of its files."""

    name: str
    base: str
    files: tuple[File, ...]

    def paths(self, kind: Kind) -> list[str]:
        return [file.path for file in self.files if file.kind == kind]

    @property
    def has_pictures(self) -> bool:
        return any(file.kind != "embeddings" for file in self.files)

    @property
    def fingerprint(self) -> str:
        return fingerprint([self.name, [[f.path, f.kind, f.size, f.version] for f in self.files]])


def find_evaluation_sets(urls: Sequence[str], tiers: Sequence[str], model: str, dim: int | None) -> list[EvaluationSet]:
    """The sets at `urls`, which `tiers` compare with the root; pictures are embedded with `model`.

    `dim` is the dimension of the root's vectors, None when they are not compared or not known yet. Raises UserError
    for a set that is not there or that no tier can compare, and for two sets of the same name.
    """
    sets = [_look_up(url) for url in urls]
    names = [item.name for item in sets]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"dedupe.against names two sets {name!r}: give their folders different names.")
    for item in sets:
        _check_set(item, tiers, model, dim)
    return sets


def _look_up(url: str) -> EvaluationSet:
    try:
        base, entries = _list_entries(url)
    except UserError:
        raise
    except Exception as error:  # each store, and each that is not installed, raises its own
        reason = " ".join(str(error).split())
        raise UserError(f"dedupe.against: {url} cannot be read ({reason}): check the path and the access.") from error
    files = []
    for path, entry in sorted(entries.items()):
        kind = _kind_of(path)
        if kind is not None:
            versions = (entry.get(key) for key in ("ETag", "etag", "mtime", "LastModified"))
            version = next((str(value) for value in versions if value is not None), "")
            files.append(File(path=path, kind=kind, size=int(entry["size"]), version=version))
    if not files:
        raise UserError(f"dedupe.against: {url} holds no pictures, no .tar and no img_emb/*.npy; check the path.")
    return EvaluationSet(name=PurePosixPath(base).name, base=base, files=tuple(files))


def _list_entries(url: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """The folder of what `url` names, and what its store says of each file by the path inside that folder."""
    is_store = "://" in url
    fs, path = fsspec.core.url_to_fs(url, **({"use_listings_cache": False} if is_store else {}))
    # A local folder that may not be read would be left out without this.
    strictly = {} if is_store else {"on_error": "raise"}
    path = path.rstrip("/")
    if fs.exists(path):
        patterns, folder = [path], path if fs.isdir(path) else str(PurePosixPath(path).parent)
    else:
        patterns, folder = list(braceexpand(path)), re.split(r"[*?\[{]", path)[0].rpartition("/")[0]
    entries: dict[str, dict[str, Any]] = {}
    for pattern in patterns:
        named = {pattern: fs.info(pattern)} if fs.exists(pattern) else fs.glob(pattern, detail=True)
        if not named:
            raise UserError(f"dedupe.against: nothing is at {pattern}; check the path.")
        for name, entry in named.items():
            entries |= fs.find(name, detail=True, **strictly) if entry["type"] == "directory" else {name: entry}
    inside = {name.removeprefix(folder).lstrip("/"): entry for name, entry in entries.items()}
    return fs.unstrip_protocol(folder) if is_store else folder, inside


def _kind_of(path: str) -> Kind | None:
    extension = path.rpartition(".")[2].lower()
    if extension == "npy":
        return "embeddings" if "/img_emb/" in f"/{path}" else None
    if extension == "tar":
        return "webdataset"
    return "pictures" if extension in PICTURES else None


def _check_set(item: EvaluationSet, tiers: Sequence[str], model: str, dim: int | None) -> None:
    """Raise UserError when a kind of `item` can be compared by no tier, or a file of it cannot be read."""
    folder = Root(item.base)
    arrays = item.paths("embeddings")
    if arrays and "embedding" not in tiers:
        raise UserError(
            f"dedupe.against: {item.base} holds embeddings ({arrays[0]}), which only the embedding tier compares: "
            f"add it to dedupe.tiers, or name the pictures alone."
        )
    if item.has_pictures and tuple(tiers) == ("embedding",) and not find_embedder(model).reads_pictures:
        raise UserError(
            f"dedupe.against: {item.base} holds pictures, which {model} cannot embed: add the tiers exact and "
            f"perceptual, or name a folder of the set's embeddings."
        )
    for path in arrays:
        rows, own_dim = read_vectors_shape(folder, path, "make it again, or take it out of dedupe.against")
        if rows and dim is not None and own_dim != dim:
            raise UserError(
                f"dedupe.against: {folder.url(path)} has vectors of {own_dim} dimensions, the root of {dim}: embed the "
                f"evaluation set with the recipe's model."
            )
    for file in item.files:
        if file.kind == "webdataset" and not file.size:
            raise UserError(f"dedupe.against: {folder.url(file.path)} is empty: fetch it again, or delete it.")
