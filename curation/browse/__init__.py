"""`curate browse ROOT`: a page on this machine that searches the pictures of a root and says why each is kept or not.

The server listens on 127.0.0.1 alone, reads the root as `curate query` does, and writes nothing into it. The page is
Preact without a build step (`static/`), so that it works without a network.
"""

from curation.browse.answers import TextSearch
from curation.browse.server import Settings, serve

__all__ = ["Settings", "TextSearch", "serve"]
