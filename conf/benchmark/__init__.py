"""The configuration of `scripts/benchmark.py`."""
