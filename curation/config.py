"""The recipe: one TOML file that names everything a run needs, as frozen dataclasses.

`load(path, overrides)` reads it; unknown keys are refused. Each stage's section is hashed into what the stage writes.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from curation import __version__
from curation.errors import UserError
from curation.settings import apply_overrides, from_dict, read_toml

SHIPPED = Path(__file__).parent / "recipes"
DEFAULT_USER_AGENT = f"clip-curation/{__version__} (+https://github.com/clip-curation; image-text data set builder)"


def _at_least(name: str, value: float, low: float) -> None:
    if value < low:
        raise ValueError(f"{name} must be at least {low}, not {value}")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One set of metadata files. `where` is SQL on the columns of `samples`, before anything is fetched."""

    name: str
    paths: tuple[str, ...]
    format: str = "auto"
    where: str = ""

    def __post_init__(self) -> None:
        if not self.paths:
            raise ValueError(f"source {self.name!r} names no paths")


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """How pictures are fetched and stored. Sizes in bytes or pixels, times in seconds."""

    engine: Literal["native", "img2dataset"] = "native"
    image_size: int = 224
    resize_mode: Literal["keep_ratio", "keep_ratio_largest", "center_crop", "border", "no"] = "keep_ratio"
    only_if_bigger: bool = False
    encode_format: Literal["jpg", "png", "webp"] = "jpg"
    encode_quality: int = 95
    max_bytes: int = 20_000_000
    max_pixels: int = 100_000_000
    max_frames: int = 1_000
    """Frames of an animated picture; the first one is kept."""
    formats: tuple[str, ...] = ("jpeg", "png", "webp", "gif")
    """Decoders that may run; anything else is `unsupported_format`."""
    timeout_s: float = 30.0
    """Deadline of a whole picture, redirects and retries' own waits excluded."""
    connect_timeout_s: float = 10.0
    first_byte_timeout_s: float = 15.0
    """From the request to the end of the answer's headers."""
    retries: int = 2
    rounds: int = 1
    """How often temporary failures are tried again after the whole plan is through; may be raised on a later day."""
    max_redirects: int = 5
    obey_robots: bool = True
    user_agent: str = DEFAULT_USER_AGENT
    contact: str = ""
    """A URL or mail address appended to the user agent, so that site owners can reach you."""
    allow_addresses: tuple[str, ...] = ()
    """Networks (CIDR) allowed besides the public internet."""
    connect_to: dict[str, str] = field(default_factory=dict)
    """Host pattern → "address:port", as curl's --connect-to; the address is checked like any other."""
    opt_out: tuple[str, ...] = ()
    """Files with one URL, host or sha256 a line that must not be fetched or kept."""
    max_concurrency: int = 128
    """Requests in flight in one task."""
    max_per_host: int = 8
    host_interval_s: float = 0.0
    """Least time between two requests to one host."""
    num_decoders: int = 1
    """Decoding processes of one task."""
    measure: bool = True
    """Perceptual hash, pixel identity, sharpness and entropy of what is stored; without, what stays is not decoded."""
    num_rows_per_unit: int = 10_000

    def __post_init__(self) -> None:
        for name in ("image_size", "max_bytes", "max_pixels", "max_frames", "max_concurrency", "max_per_host"):
            _at_least(name, getattr(self, name), 1)
        for name in ("num_rows_per_unit", "num_decoders"):
            _at_least(name, getattr(self, name), 1)
        for name in ("retries", "rounds"):
            _at_least(name, getattr(self, name), 0)
        if not 1 <= self.encode_quality <= 100:
            raise ValueError(f"encode_quality must lie in 1..100, not {self.encode_quality}")
        for name in ("timeout_s", "connect_timeout_s", "first_byte_timeout_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for network in self.allow_addresses:
            ipaddress.ip_network(network)


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """The embedder: a name in jobs/embedders, an EVA-CLIP checkpoint, an ONNX file or a folder of embeddings."""

    model: str = "efficientnet_lite0"
    batch_size: int = 32


@dataclass(frozen=True, kw_only=True)
class DedupeConfig:
    """Near-duplicate removal. `min_cosine` None means the embedder's own calibrated value."""

    tiers: tuple[Literal["exact", "perceptual", "embedding"], ...] = ("exact", "perceptual", "embedding")
    max_hamming: int = 6
    """Bits in which two perceptual hashes may differ."""
    min_entropy: float = 4.0
    """Perceptual hashes of pictures with less entropy (bits) are ignored: plain pictures share them by accident. Of
    4,700 photographs one lies below 4, of openclipart's drawings nine in ten."""
    min_cosine: float | None = None
    same_caption: bool = False
    """Only pictures with the same caption replace each other, as in COYO's unique (image_phash, text)."""
    against: tuple[str, ...] = ()
    """Evaluation sets whose pictures must not be trained on: folders of pictures, webdatasets, embedding folders."""
    keep: tuple[str, ...] = ("resolution desc", "clip_similarity desc", "aesthetic desc", "uid")
    num_centroids: int | None = None
    """Clusters of the embedding tier; None means one for every 50 rows."""
    num_probes: int = 12
    """Clusters that each vector belongs to: more finds more of the pairs that lie across boundaries. Two vectors are
    compared where one's i-th nearest cluster is the other's j-th and i × j is at most this."""
    num_passes: int = 2
    """Clusterings, each with its own seed, whose pairs are united: what one separates the next one finds."""
    max_training_rows: int = 2_000_000
    """Vectors that the driver trains the clusters on."""
    max_cluster_rows: int = 20_000
    """Rows of a cluster up to which all its pairs are compared."""
    max_neighbours: int = 64
    """Better-ranked neighbours that are remembered of a row in each comparison inside a cluster."""
    max_local_edges: int = 20_000_000
    """Edges up to which the driver finds the components; Spark does above."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("num_probes", "num_passes", "max_cluster_rows", "max_neighbours", "max_training_rows"):
            _at_least(name, getattr(self, name), 1)
        _at_least("num_centroids", self.num_centroids or 1, 1)
        if not 0 <= self.max_hamming <= 16:
            raise ValueError(f"max_hamming must lie in 0..16, not {self.max_hamming}")
        if self.min_cosine is not None and not 0 < self.min_cosine <= 1:
            raise ValueError(f"min_cosine must lie in (0, 1], not {self.min_cosine}")


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Train shards, cut by count, or by bytes where `num_bytes_per_shard` is given."""

    num_samples_per_shard: int = 10_000
    num_bytes_per_shard: int | None = None
    """Bytes of a shard, headers included, met to within one sample."""
    captions: dict[str, float] = field(default_factory=lambda: {"caption": 1.0})
    """Text column → weight with which a sample's caption is taken from it; where it is empty, from the next by name."""
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least("num_samples_per_shard", self.num_samples_per_shard, 1)
        _at_least("num_bytes_per_shard", self.num_bytes_per_shard or 1, 1)
        if not self.captions or not all(math.isfinite(w) and w > 0 for w in self.captions.values()):
            raise ValueError(f"captions must give columns positive weights, not {self.captions}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a run needs. `filters` maps filter names to their options, `rules` names to SQL, in order."""

    sources: tuple[SourceConfig, ...] = ()
    download: DownloadConfig = field(default_factory=DownloadConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    dedupe: DedupeConfig = field(default_factory=DedupeConfig)
    filters: dict[str, dict[str, Any]] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    pack: PackConfig = field(default_factory=PackConfig)
    folder: str = "."
    """Where relative paths start: the recipe's own folder."""

    def __post_init__(self) -> None:
        names = [s.name for s in self.sources]
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise ValueError(f"two sources are called {repeated[0]!r}; each needs its own name")

    def resolve(self, path: str) -> str:
        """`path` from the recipe as a full path or URL."""
        return path if "://" in path else str(Path(self.folder, path))


def find(path: str | Path) -> Path:
    """The recipe file: `path` itself, or a shipped recipe of that name."""
    if Path(path).is_file():
        return Path(path)
    shipped = SHIPPED / f"{Path(path).name.removesuffix('.toml')}.toml"
    if shipped.exists():
        return shipped
    names = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.toml")))
    raise UserError(f"There is no recipe {path}: name a TOML file or a shipped recipe ({names}).")


def load(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe at `path` with `section.key=value` overrides applied. Raises UserError."""
    file = find(path)
    data = apply_overrides(read_toml(file), overrides)
    if isinstance(data.get("sources"), dict):
        raise UserError(f"sources in {file} must be written as [[sources]], one a set.")
    data.setdefault("folder", str(file.parent.resolve()))
    return from_dict(Recipe, data, str(file))
