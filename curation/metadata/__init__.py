"""Files of metadata: which ones a recipe names, what is in them, and their rows in the columns of samples."""
