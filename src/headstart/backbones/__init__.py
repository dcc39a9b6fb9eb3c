"""Pretrained networks with one interface: input -> feature vector, and an ordered list of blocks."""
