"""Caches on disk: activations of frozen layers, and decoded pictures."""
