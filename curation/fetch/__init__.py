"""Fetching from the open web: politely, within limits, and only from addresses that are allowed."""
