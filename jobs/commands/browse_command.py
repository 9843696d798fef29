"""`curate browse`: the page, and the CLIP that embeds what is searched for by meaning."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from curation.errors import UserError
from curation.records import STAGE_CONFIG
from curation.storage import CONFIG, Root
from curation.tables import embedded_units, embedding_tables, metadata_folder
from curation.terminal import write_out
from jobs.commands.root_commands import open_root
from jobs.embedders import TextEmbedder, find_embedder, find_text_side, is_same_model, load_text_embedder


@dataclass
class ModelTexts:
    """Texts embedded by `model`, which embedded the pictures of `table`; it is loaded when the first text comes."""

    table: str
    model: str

    @cached_property
    def _embedder(self) -> TextEmbedder:
        return load_text_embedder(self.model)

    def embed(self, text: str) -> np.ndarray:
        """float32 `[d]`. Raises UserError for a text without a vector."""
        vector: np.ndarray = self._embedder.embed_texts([""], [text])[0]
        if not np.isfinite(vector).all():
            raise UserError("This text has no vector: write some words.")
        return vector


def browse_root(arguments: argparse.Namespace) -> None:
    """Serve the page until Ctrl-C."""
    from curation.browse import Settings, serve  # aiohttp takes a third of a second

    settings = Settings(
        port=arguments.port, seconds=arguments.seconds, marks=Path(arguments.marks) if arguments.marks else None
    )
    root = open_root(arguments.root)
    texts = find_texts(root, arguments.model) if arguments.model else None
    serve(root, settings, _tell_address, texts)


def find_texts(root: Root, model: str) -> ModelTexts:
    """`model` and the table of `root` that it made. Raises UserError for a model that made none, or knows no texts."""
    find_embedder(model, "--model")
    if find_text_side(model) != "any":
        raise UserError(f"--model {model} has no text tower: name the CLIP that embedded the root.")
    for table in embedding_tables(root):
        rel = f"{metadata_folder(table)}/{CONFIG}"
        if root.exists(rel) and embedded_units(root, table):
            recorded = str(root.read_record(rel, STAGE_CONFIG)["config"].get("model"))
            if is_same_model(recorded, model):
                return ModelTexts(table, model)
    raise UserError(
        f"--model {model} did not embed {root.base}: name the file that did, or embed the pictures by it, as "
        f"[embed.models.NAME] in the recipe."
    )


def _tell_address(address: str) -> None:
    write_out(f"{address}\n\nOpen this address in a browser of this machine. Ctrl-C ends the page.\n")
    sys.stdout.flush()
