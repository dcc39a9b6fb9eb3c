"""Strategies: which layer groups are trained in which epochs."""
