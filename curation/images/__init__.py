"""Pictures from strangers: looked at before they are decoded, decoded where a crash costs one picture."""
