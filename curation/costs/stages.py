"""What each stage of a run would take: the longest of what its CPU, its line and its hosts need, and its price."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from curation.costs import slopes
from curation.costs.amounts import EFFICIENTNET, Amounts
from curation.costs.cluster import Cluster, Gpus
from curation.costs.slopes import Slope
from curation.duplicates.hamming import make_tables
from curation.recipe.config import Recipe

HOUR_S = 3_600.0
GB = 1e9
LARGEST_HOST = "largest host"


@dataclass(frozen=True, kw_only=True)
class StageCost:
    """One stage: hours by what may bound it, what it writes and asks for, and its money in the reader's currency."""

    stage: str
    rows: float
    limits: dict[str, float]
    """Hours that each resource needs; the stage takes the largest."""
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0
    """What is paid for: the GPUs that wait for a stage are paid for too."""
    tables: dict[str, float] = field(default_factory=dict)
    """Bytes that it leaves in the root."""
    scratch_bytes: float = 0.0
    """Bytes that its shuffles and journals hold on the disks of all nodes."""
    puts: float = 0.0
    gets: float = 0.0
    web_requests: float = 0.0
    slopes: tuple[Slope, ...] = ()
    nodes: int | None = None
    """Machines that are paid for; all of them where it is None."""
    money: float = 0.0

    @property
    def hours(self) -> float:
        return max(self.limits.values())

    @property
    def bound_by(self) -> str:
        return max(self.limits, key=lambda name: self.limits[name])

    @property
    def num_bytes(self) -> float:
        return sum(self.tables.values())


@dataclass(frozen=True, kw_only=True)
class _Stages:
    """The stages of one run on one cluster; `tflops` is the peak of one of its GPUs."""

    amounts: Amounts
    recipe: Recipe
    cluster: Cluster
    tflops: float

    def _cpu(self, seconds: float) -> float:
        return seconds / self.cluster.machines.num_cores / HOUR_S

    def _line(self, num_bytes: float) -> float:
        return num_bytes / self.cluster.machines.bytes_per_s / HOUR_S

    def _written(self, *tables: str) -> tuple[dict[str, float], float]:
        sizes, files = self.amounts.table_bytes(), self.amounts.table_files()
        return {name: sizes[name] for name in tables}, sum(files[name] for name in tables)

    def ingest(self) -> StageCost:
        tables, puts = self._written("samples")
        slope = slopes.INGEST_HERE if self.cluster.machines.nodes == 1 else slopes.INGEST
        rows, seconds = self.amounts.rows, self.amounts.rows * slope.value
        return StageCost(
            stage="ingest",
            rows=rows,
            limits={"CPU": self._cpu(seconds), "network": self._line(2 * tables["samples"])},
            cpu_hours=seconds / HOUR_S,
            tables=tables,
            scratch_bytes=tables["samples"],
            puts=puts,
            slopes=(slope,),
        )

    def download(self) -> StageCost:
        amounts, assume, config = self.amounts, self.cluster.assume, self.recipe.download
        machines = self.cluster.machines
        tables, puts = self._written("downloads", "raw")
        slope = slopes.download_slope(config, assume.megapixels, assume.tls_ms)
        in_flight = machines.nodes * machines.cores * config.max_concurrency
        of_largest = amounts.rows * assume.largest_host
        one_host = max(assume.seconds_a_request_of_largest_host / config.max_per_host, config.host_interval_s)
        seconds = amounts.rows * slope.value
        return StageCost(
            stage="download",
            rows=amounts.rows,
            limits={
                "CPU": self._cpu(seconds),
                "network": self._line(amounts.rows * assume.fetched_kb * 1e3 + tables["raw"]),
                "requests in flight": amounts.rows * assume.seconds_a_request / in_flight / HOUR_S,
                LARGEST_HOST: of_largest * one_host / HOUR_S,
            },
            cpu_hours=seconds / HOUR_S,
            tables=tables,
            scratch_bytes=min(1.0, machines.nodes * machines.cores / amounts.units) * tables["raw"],
            puts=puts,
            gets=amounts.units,
            web_requests=amounts.rows * assume.requests_a_row,
            slopes=(slope,),
        )

    def embed(self) -> StageCost:
        amounts, assume, gpus = self.amounts, self.cluster.assume, self.cluster.gpus
        tables, puts = self._written("embeddings")
        read = self._line(amounts.came * amounts.picture_bytes)
        if self.recipe.embed.model != EFFICIENTNET and gpus is not None:
            slope = _gpu_slope(gpus, assume.gflop_a_picture, assume.mfu, self.tflops)
            hours = amounts.came * slope.value / gpus.count / HOUR_S
            limits, cpu, gpu = {"GPUs": hours, "network": read}, 0.0, max(hours, read) * gpus.count
        else:
            slope = slopes.EMBED_CPU
            if self.recipe.embed.model != EFFICIENTNET:
                slope = _model_slope(assume.gflop_a_picture)
            seconds = amounts.came * slope.value
            limits, cpu, gpu = {"CPU": self._cpu(seconds), "network": read}, seconds / HOUR_S, 0.0
        return StageCost(
            stage="embed",
            rows=amounts.came,
            limits=limits,
            cpu_hours=cpu,
            gpu_hours=gpu,
            tables=tables,
            puts=puts,
            gets=amounts.came + amounts.units,
            slopes=(slope,),
        )

    def dedupe(self) -> StageCost:
        amounts, config = self.amounts, self.recipe.dedupe
        tables, puts = self._written("duplicates")
        seconds, moved, used, came = 0.0, 64.0 * amounts.came, list[Slope](), amounts.came
        if "perceptual" in config.tiers:
            num_tables = len(make_tables(max(2, round(came)), config.max_hamming))
            seconds += came * num_tables * slopes.HASH_TABLE.value
            used.append(slopes.HASH_TABLE)
        if "embedding" in config.tiers:
            seconds += slopes.estimate_vector_seconds(came, amounts.dim, config)
            moved += came * config.num_probes * 2 * amounts.dim
            used.append(slopes.VECTORS)
        return StageCost(
            stage="dedupe",
            rows=came,
            limits={"CPU": self._cpu(seconds), "network": self._line(moved)},
            cpu_hours=seconds / HOUR_S,
            tables=tables,
            scratch_bytes=moved,
            puts=puts,
            gets=4 * amounts.units,
            slopes=tuple(used),
        )

    def score(self) -> StageCost:
        amounts, filters = self.amounts, len(self.recipe.filters)
        tables, puts = self._written("scores")
        seconds = amounts.came * slopes.SCORE.value if filters else 0.0
        return StageCost(
            stage="score",
            rows=amounts.came,
            limits={"CPU": self._cpu(seconds), "network": self._line(amounts.came * amounts.picture_bytes)},
            cpu_hours=seconds / HOUR_S,
            tables=tables,
            puts=puts,
            gets=2 * amounts.units + amounts.came / 100,
            slopes=(slopes.SCORE,) if filters else (),
        )

    def select(self) -> StageCost:
        amounts = self.amounts
        tables, puts = self._written("selection")
        is_over_all = any(
            re.search(r"\b(over|quantile)\s*\(", sql, re.IGNORECASE) for sql in self.recipe.rules.values()
        )
        slope = slopes.SELECT_WINDOWS if is_over_all else slopes.SELECT
        seconds = amounts.rows * slope.value
        files = 3 + len(self.recipe.filters) + len(self.recipe.scores)
        return StageCost(
            stage="select",
            rows=amounts.rows,
            limits={"CPU of one node": self._cpu(seconds) * self.cluster.machines.nodes},
            cpu_hours=seconds / HOUR_S,
            tables=tables,
            puts=puts,
            gets=files * amounts.units,
            slopes=(slope,),
            nodes=1,
        )

    def pack(self) -> StageCost:
        amounts = self.amounts
        tables, puts = self._written("train", "train_index")
        seconds = amounts.kept * slopes.PACK.value
        return StageCost(
            stage="pack",
            rows=amounts.kept,
            limits={"CPU": self._cpu(seconds), "network": self._line(2 * tables["train"])},
            cpu_hours=seconds / HOUR_S,
            tables=tables,
            scratch_bytes=2 * tables["train_index"],
            puts=puts,
            gets=amounts.kept + 4 * amounts.units,
            slopes=(slopes.PACK,),
        )


def _gpu_slope(gpus: Gpus, gflop: float, mfu: float, tflops: float) -> Slope:
    return Slope(
        name="embed",
        value=gflop / (tflops * 1e3 * mfu),
        source=f"{gflop:g} GFLOP a picture at {mfu:.0%} of the {tflops:g} TFLOP/s of a {gpus.kind}'s data sheet",
        unit="GPU s a row",
    )


def _model_slope(gflop: float) -> Slope:
    return Slope(
        name=slopes.CPU_GFLOPS.name,
        value=gflop / slopes.CPU_GFLOPS.value,
        source=f"{gflop:g} GFLOP a picture at {slopes.CPU_GFLOPS.value:g} GFLOP/s a core; {slopes.CPU_GFLOPS.source}",
    )


def estimate_stages(rows: float, recipe: Recipe, cluster: Cluster, tflops: float = 0.0) -> list[StageCost]:
    """The seven stages in the order of a run, without money; `tflops` is the peak of a GPU where `cluster` has some."""
    amounts = Amounts(rows=rows, recipe=recipe, assume=cluster.assume)
    stages = _Stages(amounts=amounts, recipe=recipe, cluster=cluster, tflops=tflops)
    order = (stages.ingest, stages.download, stages.embed, stages.dedupe, stages.score, stages.select, stages.pack)
    return [estimate() for estimate in order]


def price_stage(cost: StageCost, cluster: Cluster) -> float:
    """Money of a stage: machines or GPUs for its hours, requests to the store, and its tables for their months."""
    machines, gpus, storage = cluster.machines, cluster.gpus, cluster.storage
    if cost.gpu_hours and gpus is not None:
        hours = cost.gpu_hours * gpus.price_per_hour
    else:
        hours = cost.hours * (cost.nodes or machines.nodes) * machines.price_per_hour
    requests = (cost.puts * storage.price_per_million_puts + cost.gets * storage.price_per_million_gets) / 1e6
    return hours + requests + cost.num_bytes / GB * storage.price_per_gb_month * storage.months


def find_warnings(costs: list[StageCost], recipe: Recipe, cluster: Cluster) -> list[str]:
    """A sentence for each stage that needs more disk than there is, waits for one host, or grows as nobody measured."""
    return [*_find_shortages(costs, cluster), *_find_waits(costs), *_find_large_clusters(costs, recipe)]


def _find_shortages(costs: list[StageCost], cluster: Cluster) -> Iterator[str]:
    there = cluster.machines.nodes * cluster.machines.disk_gb * GB
    for cost in (cost for cost in costs if cost.scratch_bytes > there):
        needed = f"{cost.stage} needs {cost.scratch_bytes / GB:,.0f} GB"
        yield f"{needed} on the disks of the nodes, which have {there / GB:,.0f}."


def _find_waits(costs: list[StageCost]) -> Iterator[str]:
    for cost in (cost for cost in costs if cost.bound_by == LARGEST_HOST):
        others = max(hours for name, hours in cost.limits.items() if name != LARGEST_HOST)
        yield (
            f"{cost.stage} waits for one host: all others take {others / 24:,.2f} days. Fewer machines would do, or "
            "leave out a part of that host's rows by `where`; download.max_per_host is what it is asked to bear."
        )


def _find_large_clusters(costs: list[StageCost], recipe: Recipe) -> Iterator[str]:
    limit = recipe.dedupe.max_training_rows
    for cost in (cost for cost in costs if slopes.VECTORS in cost.slopes):
        clusters = slopes.count_clusters(cost.rows, recipe.dedupe)
        if (per_cluster := cost.rows / clusters) > 2 * slopes.ROWS_PER_CENTROID:
            yield (
                f"{cost.stage} clusters {cost.rows:,.0f} vectors into {clusters:,.0f} clusters, as many as "
                f"dedupe.max_training_rows = {limit:,} trains: {per_cluster:,.0f} rows each where "
                f"{slopes.ROWS_PER_CENTROID} were measured. Its time is an upper bound, what it finds unknown; "
                "more training rows take 512 bytes each on the driver."
            )
