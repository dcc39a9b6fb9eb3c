"""Predictions of a trained run: for files, and on a local web page."""
