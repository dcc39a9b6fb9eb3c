"""A trained run as one file that works without Headstart."""
