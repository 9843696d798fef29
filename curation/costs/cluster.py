"""The file of `curate plan --cluster`: machines, GPUs and storage with their prices, and what is known of the data.

Prices are the reader's: nothing here knows one, and an estimate has their currency.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curation.settings import check_ranges, from_dict, read_toml, setting

MANY = 1e12


def _given(low: float, high: float = MANY) -> Any:
    """A field that the file must give, within a range."""
    return dataclasses.field(metadata={"content": False, "between": (low, high)})


def _known(default: float, low: float, high: float, source: str) -> Any:
    """A field that the file may give; `source` says where the default comes from."""
    return dataclasses.field(default=default, metadata={"content": False, "between": (low, high), "source": source})


@dataclass(frozen=True, kw_only=True)
class Machines:
    """The machines that run Spark; one task has one core."""

    nodes: int = _given(1)
    cores: int = _given(1)
    """Of one node."""
    disk_gb: float = _given(0.001)
    """Of one node, for journals and shuffles."""
    network_gbit: float = _given(0.001)
    """Gigabits a second of one node."""
    price_per_hour: float = _given(0.0)
    """Of one node."""
    speed: float = setting(1.0, content=False, between=(0.01, 100.0))
    """Of one core, of what one core of the measuring machine did."""

    def __post_init__(self) -> None:
        check_ranges(self)

    @property
    def num_cores(self) -> float:
        """All cores, in cores of the measuring machine."""
        return self.nodes * self.cores * self.speed

    @property
    def bytes_per_s(self) -> float:
        """All lines together."""
        return self.nodes * self.network_gbit * 1e9 / 8


@dataclass(frozen=True, kw_only=True)
class Gpus:
    """The GPUs that embed and train."""

    count: int = _given(1)
    kind: str = "H100"
    price_per_hour: float = _given(0.0)
    """Of one GPU, with its share of the machine around it."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class Storage:
    """Where ROOT lies. Requests cost nothing on a file system of one's own."""

    price_per_gb_month: float = _given(0.0)
    price_per_million_puts: float = _given(0.0)
    price_per_million_gets: float = _given(0.0)
    months: float = _given(0.0)
    """How long the root is kept."""

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class Training:
    """Which training follows; none without a configuration."""

    config: str = ""
    """A TOML file of the trainer, or a shipped one's name."""
    set: tuple[str, ...] = ()
    """Values over it, each section.key=value."""


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What nobody can measure before the run. Each default has its source; give what you know better."""

    came: float = _known(0.75, 0.0, 1.0, "assumed; LAION's links rot by some per cent a year")
    """Share of the rows whose picture comes."""
    kept: float = _known(0.5, 0.0, 1.0, "assumed; the recipe's rules decide, and --what-if counts them")
    """Share of the pictures that came which the rules keep."""
    megapixels: float = _known(0.5, 0.001, 100.0, "assumed: the mean of a picture as it is fetched")
    fetched_kb: float = _known(130.0, 0.1, 1e5, "published by img2dataset: 1,000 pictures a second are 130 MB/s")
    """Of one row, in 1,000 bytes."""
    stored_kb_at_256: float = _known(
        25.0, 0.1, 1e4, "published by img2dataset: LAION-400M at 256 pixels is 10 TB; other sizes go by their square"
    )
    seconds_a_request: float = _known(
        1.57,
        0.001,
        1e3,
        "published by img2dataset: LAION-400M at 1,300 rows a second with 2,048 in flight, dead hosts among them",
    )
    seconds_a_request_of_largest_host: float = _known(0.1, 0.0001, 1e3, "assumed: a host that is up answers sooner")
    largest_host: float = _known(
        0.067, 0.0, 1.0, "benchmarks/results/plan.md: shopify.com's share of real rows; `curate ingest` says yours"
    )
    """Share of the rows that one host has."""
    requests_a_row: float = _known(1.2, 1.0, 100.0, "assumed: retries, redirects and robots.txt")
    tls_ms: float = _known(2.0, 0.0, 1e3, "assumed: CPU for TLS and DNS, which the measurements on loopback lack")
    gflop_a_picture: float = _known(
        175.0, 0.001, 1e6, "a ViT-L/14 at 224 pixels with its captions; efficientnet_lite0 has a measured slope"
    )
    dim: int = _known(768, 1, 65_536, "of a ViT-L/14")
    """Numbers of a vector."""
    mfu: float = _known(0.3, 0.001, 1.0, "assumed: share of a GPU's peak that embedding reaches")

    def __post_init__(self) -> None:
        check_ranges(self)

    def sources(self) -> dict[str, tuple[float, str]]:
        """Value and source of each; the source of a value that the file gave is the file."""
        return {
            f.name: (value, f.metadata["source"] if value == f.default else "given")
            for f in dataclasses.fields(self)
            for value in [getattr(self, f.name)]
        }


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The whole file. Without [gpus] the machines' cores embed, and nothing is trained."""

    machines: Machines
    storage: Storage
    gpus: Gpus | None = None
    training: Training = field(default_factory=Training)
    assume: Assumptions = field(default_factory=Assumptions)

    def __post_init__(self) -> None:
        if self.training.config and self.gpus is None:
            raise ValueError("[training] needs [gpus]: count, kind and price_per_hour")


def load_cluster(path: str | Path) -> Cluster:
    """The file at `path`. Raises UserError for one that is not there and for a key or value that is wrong."""
    return from_dict(Cluster, read_toml(path), str(path))
