"""Heads: feature vector -> logits."""
