"""Near-duplicates on Spark: the searches, the graph of what they find, decontamination and the preview."""
