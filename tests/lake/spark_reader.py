"""Run SQL with Spark: `spark_reader.py DEFINITIONS QUERY`.

It runs in a virtual environment of its own, without this project's modules. The last line that it
prints is the rows of the query as JSON.
"""

import json
import sys
import tempfile

from pyspark.sql import SparkSession


def main() -> None:
    """Run the definitions, then the query."""
    definitions, query = sys.argv[1:]
    with tempfile.TemporaryDirectory() as warehouse:
        spark = (
            SparkSession.builder.master("local[2]")
            .config("spark.sql.warehouse.dir", warehouse)
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.ui.enabled", "false")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .getOrCreate()
        )
        for statement in statements(definitions):
            spark.sql(statement)
        rows = [tuple(row) for row in spark.sql(query).collect()]
        spark.stop()
    print("\n" + json.dumps(rows, default=str))


def statements(text: str) -> list[str]:
    """Split a text into its statements, without comments."""
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return [each.strip() for each in "\n".join(lines).split(";") if each.strip()]


if __name__ == "__main__":
    main()
