"""What the function costs beside the least that Postgres can do: see `python -m benches --help`."""

from dev import TARGET

RESULTS = TARGET / "bench"
