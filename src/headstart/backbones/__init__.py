"""Pretrained networks behind one contract: input -> feature vector, and an ordered list of blocks."""
