"""What `curate` does besides running stages."""
