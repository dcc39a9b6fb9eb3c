"""One page about a trained run, and a model card."""
