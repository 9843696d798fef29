"""`curate seal`: sums for every file of a root that has none, and a chain of sums mended where it is torn."""

from __future__ import annotations

from curation.compaction.compact import restore_packed
from curation.errors import UserError
from curation.schema import PACKED_FORMAT, SEALED_FORMAT
from curation.storage import Root
from curation.sums.cover import UNIT_TABLES, list_packable, list_standing, summed_tables
from curation.sums.ledger import SUMS, ledger_file, sum_bytes
from curation.sums.packed import packed_folder
from curation.sums.record import RootRecord
from curation.sums.seal import is_sealed, seal_root, seal_tables
from curation.verify import find_differences, list_row_checks
from curation.verify.each import catch_errors
from curation.version import __version__


def seal(root: Root) -> str | None:
    """Seal `root` and return None; or return the first difference when its files do not add up.

    Of a root without sums nothing is sealed then. A sealed root gets sums for what an interrupted stage left, forgets
    tables that were deleted whole, and has root.json and lost ledgers made again. Raises UserError for what is no root.
    """
    if root.exists(SUMS) and not _chain_holds(root):
        _restore_record(root)
    root.check_format()
    if is_sealed(root):
        restore_packed(root)
        _forget_deleted_tables(root)
        seal_tables(root, summed_tables(root), {})
        return next(find_differences(root), None)
    for check in list_row_checks(root):
        difference = next(catch_errors(check), None)
        if difference:
            return difference
    seal_root(root, summed_tables(root))
    return None


def _chain_holds(root: Root) -> bool:
    """Whether root.json and all ledgers that it names are whole, as they lie there."""
    try:
        sums = root.record().sums or {}
        return all(sum_bytes(root.read_bytes(ledger_file(t, s))).sha256 == s for t, s in sums.items())
    except (UserError, FileNotFoundError):
        return False


def _restore_record(root: Root) -> None:
    """Publish root.json with the ledgers that are whole, by their names; other tables are summed anew."""
    found: dict[str, list[str]] = {}
    for name in root.list(SUMS, ".parquet"):
        table, sha256 = name.rpartition("-")[0], sum_bytes(root.read_bytes(f"{SUMS}/{name}")).sha256 or ""
        if ledger_file(table, sha256) == f"{SUMS}/{name}":
            found.setdefault(table, []).append(sha256)
    sums = {table: several[0] for table, several in found.items() if len(several) == 1}
    is_packed = any(root.list(packed_folder(folder), ".parquet") for folder in list_packable(root))
    number = PACKED_FORMAT if is_packed else SEALED_FORMAT
    root.publish_record(RootRecord(format=number, version=__version__, sums=sums))


def _forget_deleted_tables(root: Root) -> None:
    """Drop the ledgers of tables that stages make from others and of which nothing is left."""
    record, source = root.record(), ("plans", *UNIT_TABLES)
    named = (record.sums or {}).items()
    kept = {table: sha256 for table, sha256 in named if table in source or list_standing(root, table)}
    root.publish_record(RootRecord(format=record.format, version=record.version, sums=kept))
