import numpy as np

from curation.duplicates.limit import take_best


def test_the_first_wanted_pairs_of_a_row_are_taken_and_who_had_more_is_told() -> None:
    later = np.array([0, 1, 0, 0, 1, 2])
    wanted = np.array([True, True, False, True, True, False])
    remaining = np.array([1, 2, 0])
    assert take_best(later, wanted, remaining).tolist() == [True, True, False, False, True, False]
    assert remaining.tolist() == [-1, 0, 0]
    assert not take_best(later, wanted, remaining).any()
    assert remaining.tolist() == [-3, -2, 0]
