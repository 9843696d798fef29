"""Download engines besides our own."""
