"""The recipe: one TOML file that names everything a run needs, as frozen dataclasses.

`load_recipe(path, overrides)` reads it; unknown keys are refused. Each setting says in which range it lies, and whether
it decides content, which is then recorded and hashed into what its stage writes (curation/settings.py).
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from curation.errors import UserError
from curation.recipe.select_config import BlocklistConfig, SelectConfig
from curation.recipe.user_agent import product_token
from curation.schema import SAMPLES
from curation.settings import (
    apply_overrides,
    check_ranges,
    find_config,
    from_dict,
    read_toml,
    required_setting,
    setting,
)
from curation.version import __version__

SHIPPED = Path(__file__).parents[1] / "recipes"
DEFAULT_USER_AGENT = f"clip-curation/{__version__} (+https://github.com/clip-curation; image-text data set builder)"
FORMATS = ("jpeg", "png", "webp", "gif", "bmp", "tiff", "ico", "avif")
"""Formats that a decoder here reads."""
EXTENSIONS = {"jpg": "jpeg", "tif": "tiff"}
"""What formats are also called."""
MAX_COUNT = 2**31 - 1
DAY_S = 86_400.0


def host_port(target: str) -> tuple[str, int]:
    """IP address and port of a `connect_to` target. Raises ValueError."""
    address, separator, port = target.rpartition(":")
    if not separator or not port.isdecimal() or not 1 <= int(port) <= 65_535:
        raise ValueError(f'connect_to: {target!r} is not of the form "address:port"')
    address = address.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(address)
    except ValueError as error:
        raise ValueError(f"connect_to: {address!r} in {target!r} is not an IP address") from error
    return address, int(port)


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One set of metadata files. `where` is SQL on the columns of `samples`, before anything is fetched."""

    name: str = required_setting(content=True)
    paths: tuple[str, ...] = required_setting(content=True)
    format: str = setting("auto", content=True)
    columns: dict[str, str | tuple[str, ...]] = setting({}, content=True)
    """Column of samples → the files' own column, or several of which the first that is not empty counts. Captions after
    the first are also kept, in columns `caption_2`, `caption_3` …"""
    where: str = setting("", content=True)

    def __post_init__(self) -> None:
        if not self.paths:
            raise ValueError(f"source {self.name!r} names no paths")
        unknown = sorted(set(self.columns) - set(SAMPLES.names) | set(self.columns) & {"uid", "source", "domain"})
        if unknown:
            known = [name for name in SAMPLES.names if name not in ("uid", "source", "domain")]
            raise ValueError(f"columns names {unknown[0]!r}, which metadata cannot give; it gives {', '.join(known)}")
        if "url" in self.columns and not self.columns["url"]:
            raise ValueError("columns names nothing for url; no row can do without one")

    @property
    def num_captions(self) -> int:
        """Columns of captions that its rows have."""
        return max(1, len(self.mapping.get("caption", ())))

    @property
    def mapping(self) -> dict[str, tuple[str, ...]]:
        """`columns` with a tuple of names each."""
        return {target: (names,) if isinstance(names, str) else names for target, names in self.columns.items()}


def _known_formats(names: Sequence[str]) -> tuple[str, ...]:
    """`names` as FORMATS spells them. Raises ValueError."""
    known = tuple(dict.fromkeys(EXTENSIONS.get(name.lower(), name.lower()) for name in names))
    unknown = [name for name in known if name not in FORMATS]
    if unknown or not known:
        wrong = f"not {unknown[0]!r}" if unknown else "and not be empty"
        raise ValueError(f"formats must name some of {', '.join(FORMATS)}, {wrong}")
    return known


@dataclass(frozen=True, kw_only=True)
class DownloadConfig:
    """How pictures are fetched and stored. Sizes in bytes or pixels, times in seconds."""

    engine: Literal["native", "img2dataset"] = setting("native", content=True)
    image_size: int = setting(224, content=True, between=(1, 65_500))
    resize_mode: Literal["keep_ratio", "keep_ratio_largest", "center_crop", "border", "no"] = setting(
        "keep_ratio", content=True
    )
    only_if_bigger: bool = setting(False, content=True)
    encode_format: Literal["jpg", "png", "webp"] = setting("jpg", content=True)
    encode_quality: int = setting(95, content=True, between=(1, 100))
    max_bytes: int = setting(20_000_000, content=True, between=(1, MAX_COUNT))
    max_pixels: int = setting(100_000_000, content=True, between=(1, 2**30))  # OpenCV's own limit
    max_frames: int = setting(1_000, content=True, between=(1, MAX_COUNT))
    """Frames of an animated picture; the first one is kept."""
    formats: tuple[str, ...] = setting(("jpeg", "png", "webp", "gif"), content=True)
    """Decoders that may run; anything else is `unsupported_format`."""
    timeout_s: float = setting(30.0, content=False, between=(0.001, DAY_S))
    """Deadline of a whole picture, redirects and retries' own waits excluded."""
    connect_timeout_s: float = setting(10.0, content=False, between=(0.001, DAY_S))
    first_byte_timeout_s: float = setting(15.0, content=False, between=(0.001, DAY_S))
    """From the request to the end of the answer's headers."""
    retries: int = setting(2, content=False, between=(0, 100))
    rounds: int = setting(1, content=False, between=(0, 1_000))
    """How often temporary failures are tried again after the whole plan is through; may be raised on a later day."""
    max_redirects: int = setting(5, content=False, between=(0, 100))
    obey_robots: bool = setting(True, content=True)
    user_agent: str = setting(DEFAULT_USER_AGENT, content=False)
    contact: str = setting("", content=False)
    """A URL or mail address appended to the user agent, so that site owners can reach you."""
    allow_addresses: tuple[str, ...] = setting((), content=False)
    """Networks (CIDR) allowed besides the public internet."""
    connect_to: dict[str, str] = setting({}, content=False)
    """Host pattern → "address:port", as curl's --connect-to; the address is checked like any other."""
    opt_out: tuple[str, ...] = setting((), content=False)
    """Files with one URL, host or sha256 a line that must not be fetched or kept."""
    max_concurrency: int = setting(128, content=False, between=(1, 65_536))  # each takes a descriptor
    """Requests in flight in one task."""
    max_per_host: int = setting(8, content=False, between=(1, MAX_COUNT))
    host_interval_s: float = setting(0.0, content=False, between=(0.0, MAX_COUNT))
    """Least time between two requests to one host; units that share a host multiply it."""
    num_decoders: int = setting(1, content=False, between=(1, 1_000))
    """Decoding processes of one task."""
    measure: bool = setting(True, content=True)
    """Perceptual hash, pixel identity, sharpness and entropy of what is stored; without, what stays is not decoded."""
    num_rows_per_unit: int = setting(10_000, content=False, between=(1, MAX_COUNT))

    @property
    def agent(self) -> str:
        """What a request says of who asks."""
        return f"{self.user_agent} {self.contact}".strip()

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.resize_mode != "no" and self.image_size**2 > self.max_pixels:
            raise ValueError(
                f"image_size² may be max_pixels at most: {self.image_size}² is more than {self.max_pixels}"
            )
        object.__setattr__(self, "formats", _known_formats(self.formats))
        for name in ("user_agent", "contact"):
            if not all(" " <= c <= "~" for c in getattr(self, name)):
                raise ValueError(f"{name} must be printable ASCII, as HTTP wants it, not {getattr(self, name)!r}")
        if not product_token(self.user_agent):
            raise ValueError(
                f"user_agent must begin with a name that robots.txt can give rules, not {self.user_agent!r}"
            )
        for network in self.allow_addresses:
            ipaddress.ip_network(network)
        for target in self.connect_to.values():
            host_port(target)


@dataclass(frozen=True, kw_only=True)
class NamedModelConfig:
    """A further model, whose vectors are scored: its table is embeddings_NAME."""

    model: str = required_setting(content=True)


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """The embedder: a name in jobs/embedders, a CLIP checkpoint, an ONNX file or a folder of embeddings.

    Near-duplicates are found by the vectors of `model`; filters read those of it or of one of `models`.
    """

    model: str = setting("efficientnet_lite0", content=True)
    models: dict[str, NamedModelConfig] = setting({}, content=True)
    batch_size: int = setting(32, content=False, between=(1, MAX_COUNT))
    num_decoders: int = setting(2, content=False, between=(1, 1_000))
    """Threads of one task that read and decode pictures while the model computes."""

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in self.models:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"a model's name has small letters, digits and _ only, and {name!r} has others")


@dataclass(frozen=True, kw_only=True)
class DedupeConfig:
    """Near-duplicate removal. `min_cosine` None means the embedder's own calibrated value."""

    tiers: tuple[Literal["exact", "perceptual", "embedding"], ...] = setting(
        ("exact", "perceptual", "embedding"), content=True
    )
    max_hamming: int = setting(6, content=True, between=(0, 12))
    """Bits in which two perceptual hashes may differ; above 12 their search would take longer than all pairs."""
    min_entropy: float = setting(4.0, content=True, between=(0.0, 8.0))
    """Perceptual hashes of pictures with less entropy (bits) are ignored: plain pictures share them by accident. Of
    4,700 photographs one lies below 4, of openclipart's drawings nine in ten."""
    min_cosine: float | None = setting(None, content=True)
    verify_from: float | None = setting(None, content=True)
    """Cosine from which on a pair is in doubt: it is linked when its pictures agree. None means the embedder's own
    value where min_cosine is the embedder's too; otherwise no pair is in doubt."""
    verify_below: float | None = setting(None, content=True)
    """Cosine below which a pair is in doubt. None means the embedder's own value, or min_cosine."""
    min_correlation: float = setting(0.73, content=True, between=(0.0, 1.0))
    """Correlation of their pixels from which on the pictures of a pair in doubt agree."""
    max_doubtful: int = setting(4, content=True, between=(1, 1_000))
    """Pairs in doubt that are looked at of each row in one round, the nearest ones."""
    same_caption: bool = setting(False, content=True)
    """Only pictures with the same caption replace each other, as in COYO's unique (image_phash, text)."""
    against: tuple[str, ...] = setting((), content=True)
    """Evaluation sets whose pictures must not be trained on: folders of pictures, webdatasets, embedding folders."""
    keep: tuple[str, ...] = setting(("resolution desc", "clip_similarity desc", "aesthetic desc", "uid"), content=True)
    num_centroids: int | None = setting(None, content=True, between=(1, MAX_COUNT))
    """Clusters of the embedding tier; None means one for every 50 rows."""
    num_probes: int = setting(12, content=True, between=(1, MAX_COUNT))
    """Clusters that each vector belongs to: more finds more of the pairs that lie across boundaries. Two vectors are
    compared where one's i-th nearest cluster is the other's j-th and i × j is at most this."""
    num_passes: int = setting(2, content=True, between=(1, MAX_COUNT))
    """Clusterings, each with its own seed, whose pairs are united: what one separates the next one finds."""
    max_training_rows: int = setting(2_000_000, content=True, between=(1, MAX_COUNT))
    """Vectors that the driver trains the clusters on."""
    max_cluster_rows: int = setting(20_000, content=True, between=(1, MAX_COUNT))
    """Rows of a cluster up to which all its pairs are compared."""
    max_neighbours: int = setting(64, content=True, between=(1, MAX_COUNT))
    """Better-ranked neighbours that are remembered of a row in each comparison inside a cluster."""
    max_local_edges: int = setting(20_000_000, content=True, between=(0, MAX_COUNT))
    """Edges up to which the driver finds the components; Spark does above."""
    seed: int = setting(0, content=True, between=(0, MAX_COUNT))

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in ("min_cosine", "verify_from", "verify_below"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1:
                raise ValueError(f"{name} must lie in (0, 1], not {value}")


@dataclass(frozen=True, kw_only=True)
class ScoresConfig:
    """Scores of one's own: parquet files with `uid` or `url` and further columns, joined with pictures that came."""

    paths: tuple[str, ...] = required_setting(content=True)
    columns: tuple[str, ...] = setting((), content=True)
    """The columns that are taken; all but uid and url where none is named."""
    min_coverage: float = setting(1.0, content=False, between=(0.0, 1.0))
    """Share of the pictures that must be scored; the others' scores are unknown."""

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.paths:
            raise ValueError("scores name no paths")


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Train shards, cut by count, or by bytes where `num_bytes_per_shard` is given."""

    num_samples_per_shard: int = setting(10_000, content=True, between=(1, MAX_COUNT))
    num_bytes_per_shard: int | None = setting(None, content=True, between=(1, math.inf))
    """Bytes of a shard, headers included, met to within one sample."""
    captions: dict[str, float] = setting({"caption": 1.0}, content=True)
    """Text column → weight with which a sample's caption is taken from it; where it is empty, from the next by name."""
    seed: int = setting(0, content=True)

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.captions or not all(math.isfinite(w) and w > 0 for w in self.captions.values()):
            raise ValueError(f"captions must give columns positive weights, not {self.captions}")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a run needs. `filters` maps filter names to their options, `rules` names to SQL, in order."""

    sources: tuple[SourceConfig, ...] = ()
    download: DownloadConfig = field(default_factory=DownloadConfig)
    embed: EmbedConfig = field(default_factory=EmbedConfig)
    dedupe: DedupeConfig = field(default_factory=DedupeConfig)
    filters: dict[str, dict[str, Any]] = setting({}, content=True)
    scores: dict[str, ScoresConfig] = setting({}, content=True)
    blocklists: dict[str, BlocklistConfig] = setting({}, content=True)
    """Name → lists; what they name is not kept, for the reason `blocklist:NAME`."""
    rules: dict[str, str] = setting({}, content=True)
    select: SelectConfig = field(default_factory=SelectConfig)
    pack: PackConfig = field(default_factory=PackConfig)
    folder: str = setting(".", content=False)
    """Where relative paths start: the recipe's own folder."""

    def __post_init__(self) -> None:
        names = [s.name for s in self.sources]
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise ValueError(f"two sources are called {repeated[0]!r}; each needs its own name")
        weighted = self.select.mix.weights if self.select.mix else None
        unweighted = sorted(set(names) - set(weighted)) if weighted is not None else []
        if unweighted:
            raise ValueError(f"select.mix has no weight for source {unweighted[0]!r}: give it one, 0 to leave it out")
        for name in self.blocklists:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
                raise ValueError(f"a blocklist's name has small letters, digits and _ only, and {name!r} has others")

    def resolve(self, path: str) -> str:
        """`path` from the recipe as a full path or URL."""
        return path if "://" in path else str(Path(self.folder, path))


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe at `path`, a file or the name of a shipped recipe, with `section.key=value` overrides applied.

    Raises UserError for a file that is not there and for a key or value that is wrong.
    """
    file = find_config(path, SHIPPED, "recipe")
    data = apply_overrides(read_toml(file), overrides)
    if isinstance(data.get("sources"), dict):
        raise UserError(f"sources in {file} must be written as [[sources]], one a set.")
    data.setdefault("folder", str(file.parent.resolve()))
    return from_dict(Recipe, data, str(file))
