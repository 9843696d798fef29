"""Zero-shot evaluation: what is measured (sources), how it is encoded on all ranks (encoder), scored and tabled."""
