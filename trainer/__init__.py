"""Train, distil and evaluate EVA-CLIP models on curated shards; importing the package itself needs no torch."""
