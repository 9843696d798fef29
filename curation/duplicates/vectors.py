"""Pairs of vectors whose cosine is at least τ, searched once inside overlapping clusters, on one machine.

jobs/duplicates/vectors.py does the same in Spark, where rows that were cut short are searched again.
"""

from __future__ import annotations

import numpy as np

from curation.duplicates.blocks import NO_PAIRS, Pairs, SearchSettings
from curation.duplicates.clustering import num_centroids_for
from curation.duplicates.inside import search_cluster, split_by_cluster, train_on_sample


def find_near_pairs(vectors: np.ndarray, search: SearchSettings, labels: np.ndarray | None = None) -> Pairs:
    """Pairs of rows of `vectors` (`[n, d]`, any float type, possibly memory-mapped), sorted, each once.

    With `labels` (int64 `[n]`), only pairs of equal labels. Rows without a direction are in no pair. Where pictures
    crowd these are not all pairs: a row has its `max_neighbours` best ones of each comparison, and in a crowd of a huge
    cluster only its leaders. Rows that are alike could both be kept if these pairs alone decided.
    """
    batches = [NO_PAIRS]
    everyone = np.arange(len(vectors))
    num_centroids = search.num_centroids or num_centroids_for(len(vectors))
    for number in range(search.passes(num_centroids) if len(vectors) else 0):
        clustering = train_on_sample(vectors, everyone, num_centroids, search.seed + number)
        nearest = clustering.assign(vectors, search.num_probes)
        for members, ranks in split_by_cluster(nearest):
            batches.extend(pairs for pairs in search_cluster(vectors, members, search, labels, ranks) if len(pairs[0]))
    left, right, cosine = (np.concatenate(column) for column in zip(*batches, strict=True))
    apart = left < right
    left, right, cosine = left[apart], right[apart], cosine[apart]
    _, first = np.unique(left * len(vectors) + right, return_index=True)
    return left[first], right[first], cosine[first]
