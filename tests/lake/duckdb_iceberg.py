"""Run a query with DuckDB and its Iceberg extension: `duckdb_iceberg.py QUERY`.

It runs in a virtual environment of its own, without this project's modules, and prints the rows as
JSON.
"""

import json
import sys
from importlib import import_module
from pathlib import Path

import duckdb


def main() -> None:
    """Run the query."""
    for name in ("avro", "iceberg"):
        folder = Path(import_module(f"duckdb_extension_{name}").__file__).parent
        [extension] = folder.rglob("*.duckdb_extension")
        duckdb.execute(f"LOAD '{extension}'")
    print(json.dumps(duckdb.execute(sys.argv[1]).fetchall(), default=str))


if __name__ == "__main__":
    main()
