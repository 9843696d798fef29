"""The manifest of a root, as DuckDB views: `Manifest(root).query(sql)`."""

from curation.manifest.manifest import Manifest

__all__ = ["Manifest"]
