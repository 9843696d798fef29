"""A small web on loopback with the real web's faults, and LAION, COYO and CommonPool metadata that point into it.

`curate demo` curates it, and tests and benchmarks fetch from it: `with Web() as web`,
`metadata.write_metadata(folder)`.
"""
