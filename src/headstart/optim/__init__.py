"""Learning rates of each layer group, at each step."""
