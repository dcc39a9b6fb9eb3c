"""Data sets, splits, decoding and the one data module that serves them."""
