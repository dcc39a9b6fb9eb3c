"""One training run: settle the config, build the parts, train."""
