"""What a filter is: a frozen dataclass that computes columns once. Deciding is left to the recipe's rules.

Its fields are its options; `reads` names manifest columns, `"image"` (the stored bytes), `"image_embedding"` or
`"text_embedding"` (of the caption); `writes` is the schema of the columns that it adds; `score` maps a batch to as many
rows, null where unknown.
"""

from __future__ import annotations

import abc
import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from curation.errors import UserError
from curation.schema import DOWNLOADS, DUPLICATES, SAMPLES, is_further_caption
from curation.settings import to_dict

IMAGE = pa.field("image", pa.binary())
IMAGE_EMBEDDING = pa.field("image_embedding", pa.list_(pa.float32()))
TEXT_EMBEDDING = pa.field("text_embedding", IMAGE_EMBEDDING.type)
READABLE = {field.name: field for schema in (SAMPLES, DOWNLOADS) for field in schema} | {
    field.name: field for field in (IMAGE, IMAGE_EMBEDDING, TEXT_EMBEDDING)
}
"""Every column that a filter may read, as `pa.Field` by name; `caption_2`, `caption_3` … are text, too."""
_TAKEN = {*READABLE, *DUPLICATES.names, "duplicate_of", "kept", "reason"}


@dataclass(frozen=True, kw_only=True)
class Filter(abc.ABC):
    """Base of every filter. A subclass with unreadable `reads` or unusable `writes` is a TypeError when defined.

    A class that several filters share, and that is no filter itself, is defined with `abstract=True`.
    """

    reads: ClassVar[tuple[str, ...]]
    writes: ClassVar[pa.Schema]
    files: ClassVar[tuple[str, ...]] = ()
    """Options that are paths: recipes give them relative to themselves, and their content counts, not their name."""
    version: ClassVar[int] = 1
    """Raised when the same options begin to mean other numbers, so that older scores are not mixed with newer."""

    def __init_subclass__(cls, *, abstract: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if abstract:
            return
        unknown = [name for name in cls.reads if name not in READABLE and not is_further_caption(name)]
        taken = [name for name in cls.writes.names if name in _TAKEN or is_further_caption(name)]
        if not cls.reads or unknown:
            raise TypeError(f"{cls.__name__}.reads must name manifest columns, image or image_embedding, not {unknown}")
        if not cls.writes.names or taken:
            raise TypeError(f"{cls.__name__}.writes must name new columns, but {taken} exist already")

    @abc.abstractmethod
    def score(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The columns of `writes` for each row of `batch`, which has at least the columns of `reads`."""

    def check_ready(self) -> None:  # noqa: B027  # most filters need nothing
        """Load what scoring needs. Raises UserError for a missing package or a bad file, before any job starts."""

    def result(self, *columns: pa.Array | list[Any]) -> pa.RecordBatch:
        """`columns` in the order of `writes`, cast to its types, NaN made null."""
        arrays = [_as_array(values, field.type) for values, field in zip(columns, self.writes, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self.writes)

    def apply(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`score`, checked. Raises TypeError when the filter breaks its own contract."""
        scored = self.score(batch)
        if scored.num_rows != batch.num_rows or not scored.schema.equals(self.writes):
            raise TypeError(f"{type(self).__name__}.score gave {scored.num_rows} rows of {scored.schema.names}")
        return scored

    def config(self) -> dict[str, Any]:
        """What the scores depend on: options, file contents and version. Raises UserError for a missing file."""
        options = to_dict(self)
        for name in self.files:
            if options[name] is not None:
                options[name] = f"sha256:{_sha256(options[name])}"
        return {"options": options, "writes": {f.name: str(f.type) for f in self.writes}, "version": self.version}


def within(column: pa.Array, low: float, high: float) -> pa.Array:
    """`column` with null for everything outside [low, high], NaN and infinities included."""
    inside = pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
    return pc.if_else(inside, column, pa.scalar(None, column.type))


def _as_array(values: pa.Array | list[Any], dtype: pa.DataType) -> pa.Array:
    array = values.cast(dtype) if isinstance(values, pa.Array) else pa.array(values, dtype)
    if not pa.types.is_floating(dtype):
        return array
    return pc.if_else(pc.is_nan(array), pa.scalar(None, dtype), array)


def _sha256(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"The filter file {path} cannot be read ({error.strerror}): name an existing file.") from error
