"""Learning rates: of each layer group, and over time."""
