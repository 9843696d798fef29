"""What `curate pack` says of the shards that it has written."""
