"""Where every table of a root lies, and a fingerprint of what a table holds.

Paths are relative to the root (`curation.storage.Root`). docs/architecture.md shows the whole folder.
"""

from __future__ import annotations

import zlib
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from curation.schema import count_captions, is_further_caption, name_captions
from curation.shards import file_sha256
from curation.storage import Root, fingerprint

PLANS = "plans"
SAMPLES = "samples"
REJECTS = "rejects"
LISTINGS = "listings"
FORGOTTEN = "forgotten"
TOMBSTONES = f"{FORGOTTEN}/tombstones.parquet"
"""What a root was asked to forget, as hashes."""
DOWNLOADS = "downloads"
RAW = "raw"
EMBEDDINGS = "embeddings"
"""The table of embed.model's vectors; those of [embed.models.NAME] lie in embeddings_NAME."""
METADATA = f"{EMBEDDINGS}/metadata"
VECTORS = f"{EMBEDDINGS}/img_emb"
DUPLICATES = "duplicates"
SCORES = "scores_"
"""What the names of score tables begin with."""
SELECTION = "selection"
TRAIN = "train"
TRAIN_INDEX = "train_index"
FOOTER_BYTES = 32_768
BY_CONTENT = "sha256-"
"""Begins a fingerprint of what files hold; those of earlier versions were of names and sizes."""
NUM_READERS = 16


def plan_file(batch: str) -> str:
    """The record of one ingest."""
    return f"{PLANS}/{batch}.json"


def unit_file(table: str, unit: str) -> str:
    """The row file of `unit` in a unit table: samples, rejects, downloads or a table of scores."""
    return f"{table}/{unit}.parquet"


def samples_file(unit: str) -> str:
    """The planned input of `unit`."""
    return unit_file(SAMPLES, unit)


def batch_of(unit: str) -> str:
    """The batch of `unit`, which is BATCH-NNNNNN."""
    return unit.rpartition("-")[0]


def count_captions_by_batch(root: Root, units: Sequence[str]) -> dict[str, int]:
    """Batch → columns of captions in its samples, as the first of its `units` has. Raises UserError for damage."""
    first = {batch_of(unit): unit for unit in reversed(units)}
    return {batch: count_captions(root.read_schema(samples_file(unit)).names) for batch, unit in first.items()}


def count_all_captions(root: Root, planned: Iterable[int] = ()) -> int:
    """The most columns of captions that samples of `root` have, and those to come with `planned` captions each."""
    return max([*count_captions_by_batch(root, root.units(SAMPLES)).values(), *planned], default=1)


def read_keyed_samples(
    root: Root, unit: str, columns: Sequence[str], known: Container[bytes] = ()
) -> tuple[pa.Table, bytes]:
    """The uid and then `columns` of the samples of `unit`, and the bytes in which the file stores its uids.

    A further caption that its batch does not have is null. Without uids if those bytes are among `known`, as
    `Root.read_keyed`.
    """
    lacking = _find_lacking(root, unit, columns)
    table, stored = root.read_keyed(samples_file(unit), [name for name in columns if name not in lacking], known)
    return _append_nulls(table, lacking).select([*(["uid"] if stored not in known else []), *columns]), stored


def _find_lacking(root: Root, unit: str, columns: Iterable[str]) -> list[str]:
    """The further captions among `columns` that the batch of `unit` does not have."""
    lacking = set(filter(is_further_caption, columns))
    if lacking:
        lacking -= set(name_captions(count_captions(root.read_schema(samples_file(unit)).names)))
    return sorted(lacking)


def _append_nulls(table: pa.Table, names: Iterable[str]) -> pa.Table:
    for name in names:
        table = table.append_column(pa.field(name, pa.string()), pa.nulls(len(table), pa.string()))
    return table


def rejects_file(unit: str) -> str:
    """The rows of metadata that would have been in `unit` and became no sample."""
    return unit_file(REJECTS, unit)


def listings_file(unit: str) -> str:
    """The files of an adopted folder that are accounted for in `unit`."""
    return unit_file(LISTINGS, unit)


def downloads_file(unit: str) -> str:
    """How the download of each row of `unit` ended."""
    return unit_file(DOWNLOADS, unit)


def raw_shard(unit: str, sha256: str) -> str:
    """The shard of the unit's pictures; `sha256` is that of the whole shard."""
    return f"{RAW}/{unit}-{sha256[:16]}.tar"


def move_pictures(rows: pa.Table, places: Mapping[str, tuple[str, Mapping[str, int]]]) -> pa.Table:
    """`rows` of downloads, in which pictures of the shards `places` lie in new ones, at the offsets by their uids."""
    shards, offsets = rows["shard"].to_pylist(), rows["offset"].to_pylist()
    for number, (uid, shard) in enumerate(zip(rows["uid"].to_pylist(), shards, strict=True)):
        if shard in places:
            shards[number], offsets[number] = places[shard][0], places[shard][1][uid]
    for name, values in (("shard", shards), ("offset", offsets)):
        field = rows.schema.field(name)
        rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array(values, field.type))
    return rows.combine_chunks()


def embeddings_table(name: str) -> str:
    """The table of the vectors of [embed.models.NAME], or with an empty name of embed.model."""
    return f"{EMBEDDINGS}_{name}" if name else EMBEDDINGS


def is_embeddings(table: str) -> bool:
    """Whether `table` is one of vectors."""
    return f"{table}_".startswith(f"{EMBEDDINGS}_")


def embedding_tables(root: Root) -> list[str]:
    """The tables of vectors that `root` has."""
    return [name for name in root.folders() if is_embeddings(name)]


def metadata_folder(table: str) -> str:
    """Where the uids of the vectors of `table` lie, and beside them the record of the model that made them."""
    return f"{table}/metadata"


def vectors_folder(table: str) -> str:
    """Where the vectors of pictures lie."""
    return f"{table}/img_emb"


def texts_folder(table: str) -> str:
    """Where the vectors of captions lie."""
    return f"{table}/text_emb"


def metadata_file(unit: str, table: str = EMBEDDINGS) -> str:
    """The uids of the unit's vectors, row by row."""
    return f"{metadata_folder(table)}/metadata_{unit}.parquet"


def vectors_file(unit: str, table: str = EMBEDDINGS) -> str:
    """The vectors of the unit's pictures, as clip-retrieval names them."""
    return f"{vectors_folder(table)}/img_emb_{unit}.npy"


def texts_file(unit: str, table: str = EMBEDDINGS) -> str:
    """The vectors of the unit's captions, as clip-retrieval names them; models without a text tower have none."""
    return f"{texts_folder(table)}/text_emb_{unit}.npy"


def embedded_units(root: Root, table: str = EMBEDDINGS) -> list[str]:
    """Sorted names of the units that have vectors."""
    named = set(root.list(vectors_folder(table), ".npy"))
    units = (name.removeprefix("metadata_") for name in root.units(metadata_folder(table)))
    return [unit for unit in units if vectors_file(unit, table).rpartition("/")[2] in named]


def scores_table(filter_name: str) -> str:
    """The table of one filter's scores."""
    return f"{SCORES}{filter_name}"


def score_tables(root: Root) -> list[str]:
    """The tables of scores that `root` has."""
    return [name for name in root.folders() if name.startswith(SCORES)]


def duplicates_file(fp: str, number: int) -> str:
    """One file of version `fp` of the duplicates."""
    return f"{DUPLICATES}/{fp}/part-{number:05d}.parquet"


def selection_file(fp: str, unit: str) -> str:
    """The decisions on one unit in version `fp` of the selection."""
    return f"{SELECTION}/{fp}/{unit}.parquet"


def train_shard(fp: str, number: int) -> str:
    """One train shard of version `fp`."""
    return f"{TRAIN}/{fp}/{fp}-{number:06d}.tar"


def train_index_file(fp: str, number: int) -> str:
    """The index of that train shard."""
    return f"{TRAIN_INDEX}/{fp}/{fp}-{number:06d}.parquet"


def train_sizes_file(fp: str) -> str:
    """Samples of each train shard of version `fp`, as webdataset readers look for it."""
    return f"{TRAIN}/{fp}/sizes.json"


def train_summary_file(fp: str) -> str:
    """Samples, bytes and sha256 of each train shard of version `fp`."""
    return f"{TRAIN}/{fp}/summary.json"


def file_sizes(root: Root, table: str) -> dict[str, int]:
    """Bytes of each parquet file of a unit table, by name and sorted by it, from one listing."""
    return {name: size for name, size in sorted(root.sizes(table).items()) if name.endswith(".parquet")}


def fingerprint_table(root: Root, table: str) -> str:
    """Fingerprint of what `table` holds: of a versioned table its current version, else what its files hold."""
    if table in (DUPLICATES, SELECTION, TRAIN_INDEX):
        return str((root.current(table) or {})["fingerprint"])
    names = root.list(table, ".npy") if table == VECTORS else [f"{unit}.parquet" for unit in root.units(table)]
    if root.exists("root.json"):
        root.record()  # a stage that has just ended named other ledgers in it
    sums = _find_sums(root, table, names)
    return f"{BY_CONTENT}{fingerprint([[name, sums[name]] for name in names])}"


def _find_sums(root: Root, table: str, names: Iterable[str]) -> dict[str, str]:
    """The sha256 of each file of `table`, from its ledger where that has an entry of the file as large as it is."""
    sizes, ledger, known = root.sizes(table), root.ledger(table.partition("/")[0]), dict[str, str]()
    unknown = []
    for name in names:
        entry = ledger.get(f"{table}/{name}")
        if entry is not None and entry.sha256 is not None and entry.size == sizes[name]:
            known[name] = entry.sha256
        else:
            unknown.append(name)
    with ThreadPoolExecutor(NUM_READERS) as pool:
        sums = pool.map(lambda name: file_sha256(root, f"{table}/{name}"), unknown)
        return known | dict(zip(unknown, sums, strict=True))


def vector_sizes(root: Root) -> dict[str, int]:
    """Bytes of the vectors of each unit that has any."""
    return {unit: root.size(vectors_file(unit)) for unit in embedded_units(root)}


def fingerprint_sizes(root: Root, table: str) -> str:
    """What earlier versions recorded of a unit table: names and sizes of its files, of downloads their ends too."""
    sizes = file_sizes(root, table)
    if table != DOWNLOADS:
        return fingerprint([[name, size] for name, size in sizes.items()])

    def checksum_end(name: str) -> list[str | int]:
        end = root.read_bytes(f"{table}/{name}", max(0, sizes[name] - FOOTER_BYTES))
        return [name, sizes[name], zlib.crc32(end)]

    with ThreadPoolExecutor(NUM_READERS) as pool:
        return fingerprint(list(pool.map(checksum_end, sizes)))
