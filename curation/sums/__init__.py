"""Sums of the files of a root: what each file held when it was published, and a chain to them from root.json."""
