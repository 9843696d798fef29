"""Where rows are placed: as a loop over them says it, whatever the domains and uids."""

from __future__ import annotations

import hashlib

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from curation.ingest.placing import place_rows
from curation.plan import Spread

SPREAD = Spread(num_shared=7, placed={"medium.example": (7, 1), "large.example": (8, 5), "ü.example": (13, 2)})
DOMAINS = st.one_of(st.sampled_from(["", *SPREAD.placed]), st.text(st.characters(codec="utf-8"), max_size=5))
UIDS = st.one_of(st.none(), st.integers(0, 2**128 - 1).map("{:032x}".format))


def place_one(domain: str, uid: str | None) -> int:
    """The oracle."""
    if domain in SPREAD.placed and uid is not None:
        first, pieces = SPREAD.placed[domain]
        return first + int(uid[:8], 16) % pieces
    return int(hashlib.md5(domain.encode()).hexdigest()[:8], 16) % SPREAD.num_shared


@given(st.lists(st.tuples(DOMAINS, UIDS), max_size=30))
def test_rows_are_placed_as_a_loop_places_them(rows: list[tuple[str, str | None]]) -> None:
    domains, uids = pa.array([d for d, _ in rows], pa.string()), pa.array([u for _, u in rows], pa.string())
    assert place_rows(domains, uids, SPREAD).tolist() == [place_one(*row) for row in rows]
