"""Ground floor of the toolkit: schemas, storage, safe pictures, fetching, duplicates, the manifest.

Imports neither Spark nor torch, so that a query needs nothing but DuckDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from curation.version import __version__

if TYPE_CHECKING:
    from curation.sheet.manifest import Manifest

__all__ = ["Manifest", "__version__"]


def __getattr__(name: str) -> Any:
    """Resolve `curation.Manifest` on first use, so that `import curation` stays free of DuckDB."""
    if name == "Manifest":
        from curation.sheet.manifest import Manifest

        return Manifest
    raise AttributeError(f"module 'curation' has no attribute {name!r}")
