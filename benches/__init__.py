"""Measures the function beside a bare COPY and a Python function: `python -m benches --help`."""

from dev import TARGET

RESULTS = TARGET / "bench"
