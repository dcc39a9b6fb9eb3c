"""What was computed once is not computed again."""
