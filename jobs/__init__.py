"""Top floor: the Spark jobs and the command line."""
