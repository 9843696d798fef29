"""Train shards: which rows lie in which, their bytes, and their index; jobs/spark_pack.py makes them on a cluster."""
