"""One file a model, each with a `CONFIG`; the model's name is the file's with `-` for `_`, so no list is kept."""
