"""How good a trained run is, where it fails and why; several runs side by side."""
