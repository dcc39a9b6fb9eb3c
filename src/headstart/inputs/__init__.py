"""Kinds of input: how a raw sample becomes what a network takes."""
