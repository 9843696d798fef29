"""What one run of dedupe compares and how, decided from the recipe and the root before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curation.download.withdrawn import Lists, describe_lists, resolve_lists
from curation.duplicates.blocks import SearchSettings
from curation.duplicates.keep import order_sql
from curation.errors import UserError
from curation.freshness import VECTORS_INPUT, Fingerprints
from curation.recipe.config import DedupeConfig, DownloadConfig, Recipe
from curation.settings import content_settings
from curation.storage import Root, fingerprint
from curation.tables import DUPLICATES, METADATA, embedded_units
from jobs.duplicates.evaluation_sets import EvaluationSet, find_evaluation_sets
from jobs.embedders import find_embedder, resolve_model

TABLE = DUPLICATES
READS = ("samples", "downloads")
ROWS_PER_FILE = 1_000_000
_OF_DOUBTFUL = ("verify_from", "verify_below", "min_correlation", "max_doubtful")
"""Settings that mean nothing where no pair is in doubt; versions of such runs are called as by earlier releases."""


@dataclass(frozen=True, kw_only=True)
class DedupePlan:
    """Everything that a run needs of the recipe and the root, resolved. `fp` names the version that it writes."""

    config: DedupeConfig
    download: DownloadConfig
    """How the root's pictures were stored; those of evaluation sets are stored so before they are hashed."""
    model: str
    """The embedder's name, or the full path of its file or folder."""
    batch_size: int
    """Pictures that are embedded at once."""
    min_cosine: float | None
    """The cosine from which on two pictures are linked unless they are in doubt; None when embeddings are not compared.
    """
    doubtful: tuple[float, float] | None
    """The range of cosines in which a pair is in doubt: from the first, below the second. None for no such range."""
    dim: int | None
    """Dimension of the root's vectors; None when embeddings are not compared or there are none."""
    units: list[str]
    lists: Lists
    """Opt-out lists and blocklists: pictures that they name by now are not compared."""
    sets: list[EvaluationSet]
    """The entries of `dedupe.against`."""
    inputs: dict[str, Any]
    """Fingerprints of what is compared."""
    fp: str
    is_done: bool
    """Whether the current version was made with the same settings from the same inputs."""

    @property
    def work(self) -> str:
        """Folder of the run's scratch, relative to ROOT."""
        return f"{TABLE}/{self.fp}/work"

    @property
    def search(self) -> SearchSettings:
        """Settings of the embedding tier. Only for a plan with a `min_cosine`."""
        assert self.min_cosine is not None
        names = (
            "num_centroids",
            "num_probes",
            "num_passes",
            "max_cluster_rows",
            "max_neighbours",
            "max_doubtful",
            "seed",
        )
        doubtful_from, min_cosine = self.doubtful or (None, self.min_cosine)
        settings = {name: getattr(self.config, name) for name in names}
        return SearchSettings(min_cosine=min_cosine, doubtful_from=doubtful_from, **settings)

    @property
    def recorded(self) -> dict[str, Any]:
        """The settings that the version records."""
        return describe_config(self.config, self.min_cosine, self.doubtful)


def check_dedupe(recipe: Recipe, root: Root) -> None:
    """Raise UserError for whatever is known to be wrong before the earlier stages have run."""
    config, model, dim = recipe.dedupe, resolve_model(recipe), None
    order_sql(config.keep)
    if "embedding" in config.tiers:
        from jobs.duplicates.checks import find_dim  # pyspark need not be there where no vectors are compared
        from jobs.embed import check_same_model

        units = embedded_units(root)
        if units:
            check_same_model(root, model)
        resolve_doubtful(config, model)
        if config.against:
            dim = find_dim(root, units[:1]) if units else find_embedder(model).check(model)
    sets = find_evaluation_sets(_resolve_sets(recipe), config.tiers, model, dim)
    _check_picture_vectors(sets, config, model, dim)


def plan_dedupe(recipe: Recipe, root: Root) -> DedupePlan:
    """Check that everything the recipe compares is there. Raises UserError before anything is written.

    Each unit's vectors are checked by `jobs.duplicates.checks.check_vectors_by_tasks`, if there is work to do.
    """
    config, model, units = recipe.dedupe, resolve_model(recipe), root.units("downloads")
    order_sql(config.keep)
    missing = root.missing_units("downloads")
    if not units or missing:
        raise UserError(f"{root.base} has {len(missing)} units left to download: run `curate download` first.")
    tables, inputs, known = ["samples", "downloads"], dict[str, Any](), Fingerprints(root)
    min_cosine, doubtful, dim = None, None, None
    if "embedding" in config.tiers:
        from jobs.duplicates.checks import find_dim
        from jobs.embed import check_same_model

        check_embedded(root, units)
        made = check_same_model(root, model)
        min_cosine, doubtful = resolve_min_cosine(config, model), resolve_doubtful(config, model)
        dim = find_dim(root, units)
        inputs[VECTORS_INPUT] = known.of_vectors(made)
        tables.append(METADATA)
    inputs |= {table: known.of(table) for table in tables}
    lists = resolve_lists(recipe)
    inputs |= describe_lists(lists, root)
    sets = find_evaluation_sets(_resolve_sets(recipe), config.tiers, model, dim)
    _check_picture_vectors(sets, config, model, dim)
    inputs["against"] = [item.fingerprint for item in sets]
    recorded = describe_config(config, min_cosine, doubtful)
    return DedupePlan(
        config=config,
        download=recipe.download,
        model=model,
        batch_size=recipe.embed.batch_size,
        min_cosine=min_cosine,
        doubtful=doubtful,
        dim=dim,
        units=units,
        lists=lists,
        sets=sets,
        inputs=inputs,
        is_done=known.is_current(TABLE, recorded, inputs),
        fp=_name_version(config, min_cosine, doubtful, inputs),
    )


def describe_config(
    config: DedupeConfig, min_cosine: float | None, doubtful: tuple[float, float] | None
) -> dict[str, Any]:
    """The settings that a version records. Those of pairs in doubt are left out where none is in doubt."""
    settings = {**_settings_that_count(config, doubtful), "min_cosine": min_cosine}
    return settings if doubtful is None else {**settings, "verify_from": doubtful[0], "verify_below": doubtful[1]}


def _settings_that_count(config: DedupeConfig, doubtful: tuple[float, float] | None) -> dict[str, Any]:
    settings = content_settings(config)
    return {name: settings[name] for name in settings if doubtful is not None or name not in _OF_DOUBTFUL}


def _name_version(
    config: DedupeConfig, min_cosine: float | None, doubtful: tuple[float, float] | None, inputs: dict[str, Any]
) -> str:
    settings = {"config": _settings_that_count(config, doubtful), "min_cosine": min_cosine, "inputs": inputs}
    return fingerprint(settings if doubtful is None else {**settings, "doubtful": list(doubtful)})


def check_embedded(root: Root, units: Sequence[str]) -> None:
    """Raise UserError when one of `units` has no vectors."""
    missing = set(units) - set(embedded_units(root))
    if missing:
        raise UserError(f"The embedding tier lacks {len(missing)} units: run `curate embed` first, or leave it out.")


def resolve_min_cosine(config: DedupeConfig, model: str) -> float:
    """The recipe's cosine, else the calibrated one of `model`. Raises UserError when neither is known."""
    if config.min_cosine is not None:
        return config.min_cosine
    calibrated = find_embedder(model).min_cosine
    if calibrated is None:
        raise UserError(
            f"No calibrated cosine is known for {model}: look at `curate dedupe --preview` and set dedupe.min_cosine."
        )
    return calibrated


def resolve_doubtful(config: DedupeConfig, model: str) -> tuple[float, float] | None:
    """The range of cosines in which a pair is in doubt, None for none. Raises UserError for an empty range.

    That of `model` counts where the recipe gives no cosine at all. Raises UserError as `resolve_min_cosine`, too.
    """
    min_cosine = resolve_min_cosine(config, model)
    own = None if config.min_cosine is not None else find_embedder(model).doubtful_cosines
    start = config.verify_from if config.verify_from is not None else own and own[0]
    end = config.verify_below if config.verify_below is not None else own and own[1]
    if start is None:
        if config.verify_below is not None:
            raise UserError("dedupe.verify_below says where doubt ends: say in dedupe.verify_from where it begins.")
        return None
    end = min_cosine if end is None else end
    if start >= end:
        raise UserError(
            f"dedupe.verify_from must be smaller than {end}, from which on no pair is in doubt, not {start}."
        )
    return start, end


def _resolve_sets(recipe: Recipe) -> list[str]:
    """The entries of `dedupe.against` as full paths and URLs."""
    if not all(entry.strip() for entry in recipe.dedupe.against):
        raise UserError("dedupe.against holds an empty path: name a folder, a file or a pattern.")
    return [recipe.resolve(entry) for entry in recipe.dedupe.against]


def _check_picture_vectors(sets: Sequence[EvaluationSet], config: DedupeConfig, model: str, dim: int | None) -> None:
    """Raise UserError when `model` cannot embed the pictures of `sets` into vectors of the root's dimension `dim`."""
    with_pictures = next((item for item in sets if item.has_pictures), None)
    if with_pictures is None or "embedding" not in config.tiers or not find_embedder(model).reads_pictures:
        return
    own_dim = find_embedder(model).check(model)
    if dim is not None and own_dim != dim:
        raise UserError(
            f"dedupe.against: {model} gives {with_pictures.base} vectors of {own_dim} dimensions, the root has those "
            f"of {dim}: name the model that the root was embedded with."
        )
