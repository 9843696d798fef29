"""How much there is: rows, bytes and files of each table of a root, before it is filled."""

from __future__ import annotations

from dataclasses import dataclass

from curation.costs.cluster import Assumptions
from curation.recipe.config import Recipe

BLOCK = 512
MEMBERS_OF_A_SAMPLE = 3
"""The picture, its caption and its JSON; each has a header and half a block of padding on average."""
TEXT_BYTES = 900
"""Caption and JSON of a packed sample."""
ROW_BYTES = {"samples": 79, "downloads": 83, "scores": 17, "selection": 40, "duplicates": 40, "train_index": 250}
"""Measured of a table's files (samples: real captions and hosts), but selection, duplicates and index: assumed."""
EFFICIENTNET, EFFICIENTNET_DIM = "efficientnet_lite0", 1280


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Rows, bytes and files that `rows` rows of metadata become under `recipe`."""

    rows: float
    recipe: Recipe
    assume: Assumptions

    @property
    def came(self) -> float:
        """Pictures that are stored."""
        return self.rows * self.assume.came

    @property
    def kept(self) -> float:
        """Pictures that are packed."""
        return self.came * self.assume.kept

    @property
    def units(self) -> float:
        return max(1.0, self.rows / self.recipe.download.num_rows_per_unit)

    @property
    def shards(self) -> float:
        pack = self.recipe.pack
        if pack.num_bytes_per_shard:
            return max(1.0, self.kept * self.packed_bytes / pack.num_bytes_per_shard)
        return max(1.0, self.kept / pack.num_samples_per_shard)

    @property
    def dim(self) -> int:
        return EFFICIENTNET_DIM if self.recipe.embed.model == EFFICIENTNET else self.assume.dim

    @property
    def vector_bytes(self) -> int:
        """Of one row of embeddings, in half precision: its picture's, and where the model is a CLIP its caption's."""
        return 2 * self.dim * (1 if self.recipe.embed.model == EFFICIENTNET else 2)

    @property
    def picture_bytes(self) -> float:
        """Of one stored picture."""
        download = self.recipe.download
        fetched = self.assume.fetched_kb * 1e3
        if download.resize_mode == "no":
            return fetched
        stored = self.assume.stored_kb_at_256 * 1e3 * (download.image_size / 256) ** 2
        return min(stored, fetched) if download.only_if_bigger else stored

    @property
    def packed_bytes(self) -> float:
        """Of one sample of a train shard."""
        return self.picture_bytes + TEXT_BYTES + MEMBERS_OF_A_SAMPLE * 1.5 * BLOCK

    def table_bytes(self) -> dict[str, float]:
        """Bytes of each table when the run is over."""
        filters = len(self.recipe.filters) + len(self.recipe.scores)
        return {
            "samples": self.rows * ROW_BYTES["samples"],
            "downloads": self.rows * ROW_BYTES["downloads"],
            "raw": self.came * (self.picture_bytes + 1.5 * BLOCK),
            "embeddings": self.came * self.vector_bytes,
            "duplicates": self.came * 0.1 * ROW_BYTES["duplicates"],
            "scores": self.came * filters * ROW_BYTES["scores"],
            "selection": self.rows * ROW_BYTES["selection"],
            "train": self.kept * self.packed_bytes,
            "train_index": self.kept * ROW_BYTES["train_index"],
        }

    def table_files(self) -> dict[str, float]:
        """Files of each table, each of which is one PUT."""
        download, filters = self.recipe.download, len(self.recipe.filters) + len(self.recipe.scores)
        vectors = self.vector_bytes // (2 * self.dim) + 1
        return {
            "samples": self.units,
            "downloads": self.units,
            "raw": self.units * (1 + download.rounds),
            "embeddings": self.units * vectors,
            "duplicates": 1.0,
            "scores": self.units * filters,
            "selection": self.units,
            "train": self.shards,
            "train_index": self.shards,
        }
