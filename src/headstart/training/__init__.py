"""One training run: settings, building, fitting."""
