"""Planning: units of about the wanted size, a domain in as few units as it fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from curation.plan import spread


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1001, 50_000), max_size=5),
    st.integers(0, 100_000),
)
def test_units_cover_large_domains_without_overlap(large: dict[str, int], small_rows: int) -> None:
    planned = spread(small_rows + sum(large.values()), large, 1000)
    taken = [first + i for first, pieces in planned.large.values() for i in range(pieces)]
    assert sorted(taken) == list(range(planned.num_shared, planned.num_units))
    assert planned.num_shared == max(1, -(-small_rows // 1000))
    for domain, (_, pieces) in planned.large.items():
        assert (pieces - 1) * 1000 < large[domain] <= pieces * 1000
