"""Headstart from Python. Nothing here imports torch, Lightning or Hydra before a function is called."""
