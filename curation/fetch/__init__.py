"""Fetching from the open web: polite, bounded, and only from addresses that may be asked."""
