"""What the function costs beside the least that Postgres can do: see `python -m bench --help`."""

from e2e import TARGET

RESULTS = TARGET / "bench"
