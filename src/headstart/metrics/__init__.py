"""Metrics of predictions, their intervals, and calibration."""
