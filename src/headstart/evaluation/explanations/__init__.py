"""Which parts of an input led to a prediction; one file per kind of input."""
