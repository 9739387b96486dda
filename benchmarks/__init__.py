"""Measurements beside the tools people use today; `tools/benchmark.py` runs them."""
