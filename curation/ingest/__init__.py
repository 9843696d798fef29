"""Rows of metadata into units of samples and rejects: what an ingest does whichever engine holds the rows."""
