"""Trials of damage: a sealed root, one change drawn from a seed in each trial, and whether verify names its file."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from curation.errors import UserError
from curation.storage import Root
from curation.sums.cover import summed_tables
from curation.sums.recorder import sealing
from curation.sums.seal import seal_root
from curation.verify import find_differences
from tests.support import rot, small_root


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One change, the file that it damaged (relative to the root), and what verify said."""

    number: int
    change: str
    file: str
    said: list[str]

    @property
    def is_named(self) -> bool:
        """Whether a sentence names the file."""
        return any(self.file in sentence for sentence in self.said)

    @property
    def kind(self) -> str:
        """The table and the kind of the damaged file."""
        path = Path(self.file)
        return path.parts[0] if len(path.parts) == 1 else f"{path.parts[0]}/*{path.suffix}"


def build_roots(folder: Path, earlier: Path) -> None:
    """A sealed root in `folder`, and in `earlier` what it was before its second selection and other bytes of tables."""
    root = Root(folder)
    root.create(sealed=True)
    small_root.finish(root)
    tables = summed_tables(root)
    seal_root(root, tables)
    shutil.copytree(folder, earlier)
    selection = root.current("selection")
    if selection is None:
        raise AssertionError("the small root has a selection")
    with sealing(root, tables) as recording:
        for table in ("samples", "downloads", "scores_caption_length"):
            for unit in small_root.UNITS:
                _compress_otherwise(recording, f"{table}/{unit}.parquet")
        recording.publish_current("selection", small_root.VERSION, selection["files"], {"anew": 1}, {})


def _compress_otherwise(root: Root, rel: str) -> None:
    """Publish the same rows in other bytes."""
    sink = io.BytesIO()
    pq.write_table(root.read_parquet(rel), sink, compression="snappy", write_page_checksum=True)
    root.publish(rel, sink.getvalue())


def run_trials(folder: Path, earlier: Path, numbers: Iterable[int]) -> Iterator[Trial]:
    """One change of a fresh copy of `folder` for each of `numbers`, which are the seeds."""
    damaged = folder.with_name("damaged")
    for number in numbers:
        shutil.copytree(folder, damaged)
        draw = random.Random(number)
        change = draw.choice(rot.CHANGES)
        path = change(draw, damaged, earlier)
        yield Trial(number=number, change=change.__name__, file=str(path.relative_to(damaged)), said=_verify(damaged))
        shutil.rmtree(damaged)


def _verify(folder: Path) -> list[str]:
    try:
        return list(find_differences(Root(folder)))
    except UserError as error:
        return [str(error)]
