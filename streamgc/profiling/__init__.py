"""Spans, percentiles, traces and reports of latency."""
