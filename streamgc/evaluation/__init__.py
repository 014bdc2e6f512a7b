"""Metrics, baselines and the measurements in docs/results."""
