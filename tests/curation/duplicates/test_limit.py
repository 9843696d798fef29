import numpy as np

from curation.duplicates.limit import find_nearest, take_best


def test_the_first_wanted_pairs_of_a_row_are_taken_and_who_had_more_is_told() -> None:
    later = np.array([0, 1, 0, 0, 1, 2])
    wanted = np.array([True, True, False, True, True, False])
    remaining = np.array([1, 2, 0])
    assert take_best(later, wanted, remaining).tolist() == [True, True, False, False, True, False]
    assert remaining.tolist() == [-1, 0, 0]
    assert not take_best(later, wanted, remaining).any()
    assert remaining.tolist() == [-3, -2, 0]


def test_the_nearest_pairs_of_each_row_are_found_and_each_pair_counts_once() -> None:
    left = np.array([0, 1, 2, 1, 0, 3])
    right = np.array([5, 5, 5, 5, 4, 5])
    similarity = np.array([0.7, 0.9, 0.8, 0.9, 0.1, 0.7])
    found = find_nearest(left, right, similarity, 3)
    assert [(int(left[i]), int(right[i])) for i in found] == [(0, 4), (1, 5), (2, 5), (0, 5)]
