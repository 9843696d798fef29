"""The one room that knows where the file of a unit lies: by itself, or inside of a packed file.

Readers name `TABLE/UNIT.parquet` and get its bytes; whether `curate compact` has joined it with others changes nothing
for them. Both places may stand for a moment, while units are joined or taken apart: they hold the same bytes then.
"""

from __future__ import annotations

import io
from abc import abstractmethod
from typing import BinaryIO

from curation.blocks import Blocks
from curation.files import Files
from curation.sums.ledger import table_of
from curation.sums.packed import Place, Places, is_packed, packed_folder


class UnitFiles(Files):
    """Files of a folder, among which are files of units that lie inside of packed ones."""

    def _connect(self) -> None:
        super()._connect()
        self._blocks = Blocks()

    def forget_blocks(self) -> None:
        """Read of packed files what they hold now: another process may have replaced them."""
        self._blocks.clear()

    @abstractmethod
    def places(self, table: str) -> Places:
        """Where the units of `table` lie that lie in packed files, as the ledger says that this process knows."""

    @abstractmethod
    def renew_places(self) -> None:
        """Let `places` say what the ledgers say now: another process may have joined units since."""

    def place_of(self, rel: str) -> Place | None:
        """Where the file `rel` lies inside of a packed file that stands; None where it does not."""
        if not _may_be_packed(rel):
            return None
        table = str(table_of(rel))
        place = self.places(table).get(rel)
        if place is not None and super().exists(place.file):
            return place
        self.renew_places()
        place = self.places(table).get(rel)
        return place if place is not None and super().exists(place.file) else None

    def exists(self, rel: str) -> bool:
        return super().exists(rel) or self.place_of(rel) is not None

    def size(self, rel: str) -> int:
        """Size in bytes. Raises FileNotFoundError."""
        try:
            return super().size(rel)
        except FileNotFoundError:
            place = self.place_of(rel)
            if place is None:
                raise
            return place.size

    def own_exists(self, rel: str) -> bool:
        """Whether a file `rel` stands by itself, whatever lies in packed files."""
        return super().exists(rel)

    def own_bytes(self, rel: str) -> bytes:
        """The bytes of the file `rel` that stands by itself. Raises FileNotFoundError."""
        return super().read_bytes(rel)

    def own_sizes(self, rel: str) -> dict[str, int]:
        """As `sizes`, of files that stand by themselves alone."""
        return super().sizes(rel)

    def sizes(self, rel: str) -> dict[str, int]:
        """Bytes of each file directly in folder `rel`, by name, also of the units in packed files that stand."""
        own = super().sizes(rel)
        table = table_of(f"{rel}/file")
        if table is None or rel.endswith(packed_folder("")):
            return own
        self.renew_places()
        mine = {one: place for one, place in self.places(table).items() if one.rpartition("/")[0] == rel}
        if not mine:
            return own
        folder = packed_folder(rel)
        standing = {f"{folder}/{name}" for name in super().sizes(folder)}
        return {name(one): place.size for one, place in mine.items() if place.file in standing} | own

    def open(self, rel: str) -> BinaryIO:
        """A seekable binary reader. Raises UserError for a pipe or device, which would keep its reader waiting."""
        if self.known_place(rel) is not None:
            return io.BytesIO(self.read_bytes(rel))
        try:
            return super().open(rel)
        except FileNotFoundError:
            if self.place_of(rel) is None:
                raise
            return io.BytesIO(self.read_bytes(rel))

    def read_bytes(self, rel: str, offset: int = 0, size: int | None = None) -> bytes:
        """`size` bytes from `offset` (all that follow when None) in one range read; fewer where the file ends."""
        place = self.known_place(rel)
        if place is not None:
            try:
                return self._read_place(place, offset, size)
            except FileNotFoundError:
                self.renew_places()  # another process has taken it apart
        try:
            return super().read_bytes(rel, offset, size)
        except FileNotFoundError:
            place = self.place_of(rel)
            if place is None:
                raise
            return self._read_place(place, offset, size)

    def known_place(self, rel: str) -> Place | None:
        """As `place_of`, by what this process read of the ledgers last."""
        return self.places(str(table_of(rel))).get(rel) if _may_be_packed(rel) else None

    def _read_place(self, place: Place, offset: int, size: int | None) -> bytes:
        left = max(0, place.size - offset)
        wanted = left if size is None else min(left, size)
        if wanted and not self.is_local:
            return self._blocks.read(super().read_bytes, place.file, place.offset + offset, wanted)
        return super().read_bytes(place.file, place.offset + offset, wanted) if wanted else b""


def name(rel: str) -> str:
    """The last part of a path."""
    return rel.rpartition("/")[2]


def _may_be_packed(rel: str) -> bool:
    return rel.endswith(".parquet") and table_of(rel) is not None and not is_packed(rel)
