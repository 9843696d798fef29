"""Which embedder a name or path means, and what it has vectors of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curation.errors import UserError
from jobs.embedders import find_text_side, load_text_embedder
from jobs.embedders.folder import Folder
from tests.support.embedding_folder import write_vectors_folder


def test_what_a_model_knows_of_texts_is_said_before_it_is_loaded(tmp_path: Path) -> None:
    assert find_text_side("efficientnet-lite0") == "none"
    write_vectors_folder(tmp_path / "laion")
    assert find_text_side(str(tmp_path / "laion")) == "captions"
    with pytest.raises(UserError, match="pictures alone"):
        load_text_embedder("efficientnet-lite0")
    np.save(tmp_path / "laion" / "text_emb" / "text_emb_0.npy", np.ones((2, 8), np.float16))
    with pytest.raises(UserError, match="text_emb_0.npy has not the shape"):
        Folder.check(str(tmp_path / "laion"))
    (tmp_path / "laion" / "text_emb" / "text_emb_0.npy").rename(tmp_path / "laion" / "text_emb" / "text_emb_7.npy")
    with pytest.raises(UserError, match="text_emb_0.npy is missing"):
        find_text_side(str(tmp_path / "laion"))
