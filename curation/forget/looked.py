"""What the proof will look for, read before anything of it is taken out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

from curation.errors import UserError
from curation.forget.matches import Match
from curation.forget.pending import Looked
from curation.npy import parse_array
from curation.places import is_elsewhere
from curation.shards import read_member
from curation.storage import Root
from curation.tables import embedding_tables, metadata_file, texts_file, vectors_file

PIECE_BYTES = 32
MIN_DIFFERENT = 16
"""Different bytes that a piece of a picture must have: evenly coloured pictures have the same bytes in common."""
NUM_PIECES = 16


def list_looked(root: Root, units: Mapping[str, Sequence[Match]], uids: Sequence[str]) -> Looked:
    """What the proof will look for."""
    matches = [match for found in units.values() for match in found]
    texts = {match.columns["url"] for match in matches} | {text for match in matches for text in match.captions}
    sums = set[str]().union(
        *(match.sums for match in matches), *({match.columns["claimed_sha256"]} for match in matches)
    )
    return Looked(
        uids=list(uids),
        texts=sorted(text for text in texts if text),
        sums=sorted(one for one in sums if one),
        pictures=sorted({m.columns["stored_sha256"] for m in matches if m.columns["stored_sha256"]}),
        pieces={piece: sorted(match.sums) for match in matches if (piece := _cut_piece(root, match))},
        vectors=sorted({one for unit, found in units.items() for one in _sum_vectors(root, unit, found)}),
    )


def _cut_piece(root: Root, match: Match) -> str | None:
    """A few bytes of the picture by which it can be recognised; None where its file is gone or too plain."""
    c = match.columns
    if not c["shard"]:
        return None
    try:
        data = read_member(root, c["shard"], c["offset"], c["size"])
    except (UserError, OSError):
        if is_elsewhere(c["shard"]):
            return None  # its owner may have deleted it already
        raise
    starts = range(0, max(1, len(data) - PIECE_BYTES), max(1, len(data) // NUM_PIECES))
    best = max((data[start : start + PIECE_BYTES] for start in starts), key=lambda piece: len(set(piece)))
    return best.hex() if len(set(best)) >= MIN_DIFFERENT else None


def _sum_vectors(root: Root, unit: str, matches: Sequence[Match]) -> Iterator[str]:
    """sha256 of the bytes of each vector of a forgotten row that is no NaN."""
    uids = {match.uid for match in matches}
    for table in embedding_tables(root):
        if not root.exists(metadata_file(unit, table)):
            continue
        rows = root.read_parquet(metadata_file(unit, table), ["uid"])["uid"].to_pylist()
        numbers = [number for number, uid in enumerate(rows) if uid in uids]
        for rel in (vectors_file(unit, table), texts_file(unit, table)):
            if numbers and root.exists(rel):
                vectors = parse_array(root.read_whole(rel))
                yield from (
                    hashlib.sha256(vectors[number].tobytes()).hexdigest()
                    for number in numbers
                    if (vectors[number] == vectors[number]).all() and vectors[number].any()
                )
