"""Exports a trained run as one file that works without Headstart."""
