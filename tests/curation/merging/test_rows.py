"""Which row of each uid is taken, by hand and for any rows: each has one fate, and no uid is lost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curation.merging.rows import Fate, Keys, Rank, choose_rows


def make_keys(units: Sequence[dict[int, Rank]]) -> list[Keys]:
    """Units whose uids are small numbers, in both halves."""
    uids = [np.array([[uid % 3, uid // 3] for uid in unit], np.uint64).reshape(-1, 2) for unit in units]
    return [Keys(uids=u, ranks=np.array([*unit.values()], np.uint8)) for u, unit in zip(uids, units, strict=True)]


def test_each_reason_by_hand() -> None:
    first = {1: Rank.CAME, 2: Rank.ENDED, 3: Rank.WAITING, 4: Rank.CAME, 5: Rank.CAME, 6: Rank.ENDED}
    second = {1: Rank.CAME, 2: Rank.CAME, 3: Rank.ENDED, 4: Rank.REFUSED, 5: Rank.FORGOTTEN, 7: Rank.WAITING}
    fates = choose_rows(make_keys([first, second]))
    named = [[Fate(fate).name for fate in found] for found in fates]
    assert named[0] == ["TAKEN", "HAS_PICTURE", "WAS_TRIED", "REFUSED", "FORGOTTEN", "TAKEN"]
    assert named[1] == ["NAMED_EARLIER", "TAKEN", "TAKEN", "TAKEN", "FORGOTTEN", "TAKEN"]
    assert choose_rows([]) == []


@given(st.lists(st.dictionaries(st.integers(0, 9), st.sampled_from(Rank), max_size=6), min_size=1, max_size=4))
def test_of_each_uid_one_best_row_is_taken_in_any_order_or_none_where_one_is_forgotten(
    units: list[dict[int, Rank]],
) -> None:
    best = {uid: min(unit[uid] for unit in units if uid in unit) for uid in set().union(*units)}
    wanted = {uid: rank for uid, rank in best.items() if rank is not Rank.FORGOTTEN}
    for order in itertools.permutations(units):
        fates = choose_rows(make_keys(order))
        assert [len(found) for found in fates] == [len(unit) for unit in order]
        taken = [
            (uid, rank)
            for unit, found in zip(order, fates, strict=True)
            for (uid, rank), fate in zip(unit.items(), found, strict=True)
            if fate == Fate.TAKEN
        ]
        assert sorted(taken) == sorted(wanted.items())
