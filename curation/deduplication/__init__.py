"""Duplicates found by metadata alone on this machine, without Spark: the same files that jobs/spark_dedupe.py makes."""
