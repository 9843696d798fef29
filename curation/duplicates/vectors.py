"""Pairs of vectors at least τ alike, searched once inside overlapping clusters, on one machine.

jobs/duplicates/vectors.py does the same in Spark, where rows that were cut short are searched again.
"""

from __future__ import annotations

import numpy as np

from curation.duplicates.blocks import NO_PAIRS, Pairs, Search
from curation.duplicates.clustering import num_centroids_for
from curation.duplicates.inside import clusters, inside, trained


def near_pairs(vectors: np.ndarray, search: Search, labels: np.ndarray | None = None) -> Pairs:
    """Pairs of rows of `vectors` (`[n, d]`, any float type, possibly memory-mapped), sorted, each once.

    With `labels` (int64 `[n]`), only pairs of equal labels. Rows without a direction are in no pair. Where pictures
    crowd these are not all pairs: of each comparison a row has its `max_neighbours` best ones, and in a crowd of a huge
    cluster the first of its kind. To remove by them, as `curate dedupe` does not, could leave rows that are alike.
    """
    found = [NO_PAIRS]
    everyone = np.arange(len(vectors))
    num_centroids = search.num_centroids or num_centroids_for(len(vectors))
    for number in range(search.passes(num_centroids) if len(vectors) else 0):
        clustering = trained(vectors, everyone, num_centroids, search.seed + number)
        nearest = clustering.assign(vectors, search.num_probes)
        for members, ranks in clusters(nearest):
            found.extend(pairs for pairs in inside(vectors, members, search, labels, ranks) if len(pairs[0]))
    left, right, cosine = (np.concatenate(column) for column in zip(*found, strict=True))
    apart = left < right
    left, right, cosine = left[apart], right[apart], cosine[apart]
    _, first = np.unique(left * len(vectors) + right, return_index=True)
    return left[first], right[first], cosine[first]
