"""Strategies: which layer groups learn at which epoch."""
