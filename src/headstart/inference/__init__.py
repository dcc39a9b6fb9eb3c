"""A trained run in use: predictions for files, a local web page."""
