"""Planning: units of about the wanted size, a domain in as few units as it fits, lanes that share a host."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from curation.plan import describe_spread, plan_lanes, spread_rows


@given(
    st.dictionaries(st.text("abc", min_size=1, max_size=8), st.integers(50, 40_000), max_size=40),
    st.integers(0, 9_000),
)
def test_units_hold_whole_domains_or_pieces_of_one(counts: dict[str, int], small_rows: int) -> None:
    planned = spread_rows(sum(counts.values()) + small_rows, counts, 1000)
    assert planned.num_shared == max(1, -(-small_rows // 1000))
    assert planned.placed.keys() == counts.keys()
    held: dict[int, list[str]] = {}
    for domain, (first, pieces) in planned.placed.items():
        assert (pieces - 1) * 1000 < counts[domain] <= pieces * 1000
        for unit in range(first, first + pieces):
            held.setdefault(unit, []).append(domain)
    assert sorted(held) == list(range(planned.num_shared, planned.num_units)) or not held
    for domains in held.values():
        assert len(domains) == 1 or sum(counts[domain] for domain in domains) <= 1000
    assert planned.large == {d: place for d, place in planned.placed.items() if counts[d] > 1000}
    # Of two units with whole domains, at most one is less than half full.
    whole = [sum(counts[d] for d in domains) for domains in held.values() if counts[domains[0]] <= 1000]
    assert sum(rows <= 500 for rows in whole) <= 1


@given(st.lists(st.integers(1, 9), max_size=4), st.integers(1, 5), st.integers(1, 20), st.randoms())
def test_lanes_hold_each_missing_unit_once_and_never_ask_a_host_too_much(
    pieces: list[int], num_shared: int, max_per_host: int, random: object
) -> None:
    large, first = {}, num_shared
    for number, count in enumerate(pieces):
        large[f"d{number}"] = {"first_unit": first, "num_units": count}
        first += count
    units = [f"b-{n:06d}" for n in range(first)]
    missing = set(random.sample(units, random.randint(0, len(units))))  # type: ignore[attr-defined]
    plan = {"batch": "b", "units": {u[2:]: 10 for u in units}, "large_domains": large}
    found = plan_lanes(plan, missing, max_per_host)
    assert sorted(unit for lane in found for unit in lane.units) == sorted(missing)
    for place in large.values():
        own = {f"b-{place['first_unit'] + i:06d}" for i in range(place["num_units"])}
        together = [lane for lane in found if own & set(lane.units)]
        assert all(lane.share == len(together) for lane in together)
        assert len(together) * max(1, max_per_host // max(1, len(together))) <= max_per_host


def test_the_spread_is_said_in_words() -> None:
    plan = {
        "batch": "0a1b2c3d",
        "totals": {"samples": 95},
        "units": {"000000": 20, "000001": 35, "000002": 40},
        "hosts": {"num_rows": 100, "num_domains": 7, "largest": {"big.test": 75, "small.test": 9}},
        "large_domains": {"big.test": {"first_unit": 1, "num_units": 2}},
    }
    text = describe_spread(plan)
    assert "95 rows of 7 registered domains in 3 units of 20 to 40 rows (median 35)" in text
    assert "big.test: 75 rows (75.00 %), split over 2 units that share its rate" in text
    assert "small.test: 9 rows (9.00 %), in one unit" in text
    assert "no row is left" in describe_spread(plan | {"units": {}})
