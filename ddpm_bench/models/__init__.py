"""A checkpoint as a model: ours and those of other releases."""
