"""Samples, splits, the order of samples, and the data module that serves them."""
