"""What the entry points share; nothing here loads torch."""
