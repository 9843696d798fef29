"""Near-duplicates: hashes, vectors, components and the rule for which copy is kept."""
