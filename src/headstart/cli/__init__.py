"""The command line: settings, checks and messages of the entry points. Nothing here imports torch."""
