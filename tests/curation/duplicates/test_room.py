import numpy as np

from curation.duplicates.room import take


def test_the_first_wanted_pairs_of_a_row_are_taken_and_who_had_more_is_told() -> None:
    later = np.array([0, 1, 0, 0, 1, 2])
    wanted = np.array([True, True, False, True, True, False])
    room = np.array([1, 2, 0])
    assert take(later, wanted, room).tolist() == [True, True, False, False, True, False]
    assert room.tolist() == [-1, 0, 0]
    assert not take(later, wanted, room).any()
    assert room.tolist() == [-3, -2, 0]
