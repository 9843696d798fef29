"""A small web on loopback with the real web's faults, and LAION, COYO and CommonPool metadata that point into it.

It is what `curate demo` curates, and what tests and benchmarks fetch from:
`with Web() as web`, `metadata.write_metadata(folder)`.
"""
