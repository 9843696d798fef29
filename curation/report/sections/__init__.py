"""One part of the page in each module: `SECTION` says its heading, its place, and what renders it."""
