"""Files of units joined into packed files, which a cluster can live with, and taken apart again."""
