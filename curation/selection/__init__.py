"""What a selection is made of, and the one that DuckDB makes on this machine; jobs/selection.py has Spark's."""
