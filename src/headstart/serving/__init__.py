"""A local page and a JSON endpoint for one trained run."""
