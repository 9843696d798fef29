"""One unit of the download: what is due, what is fetched, what is remembered of it while it runs."""
