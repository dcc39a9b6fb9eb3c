"""The quality of a trained run, its mistakes and their causes; several runs side by side."""
