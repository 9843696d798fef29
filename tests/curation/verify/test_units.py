"""One unit in all its tables."""

from __future__ import annotations

import io

import numpy as np

from curation.storage import Root
from curation.tables import texts_file
from curation.verify import verify
from tests.support import small_root


def test_vectors_of_captions_are_as_many_as_the_rows_of_metadata(root: Root) -> None:
    small_root.finish(root)
    sink = io.BytesIO()
    np.save(sink, np.ones((1, 4), np.float16))
    root.publish(texts_file(small_root.UNITS[0]), sink.getvalue())
    assert f"{texts_file(small_root.UNITS[0])} has 1 rows, its metadata" in (verify(root) or "")
