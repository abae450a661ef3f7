"""Run a query with Spark over a folder of days: `spark_reader.py SPARK_SQL DAYS QUERY`.

It runs in a virtual environment of its own, without this project's modules. The last line that it
prints is the rows as JSON.
"""

import json
import sys
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession

# The folder in the file that stands for the user's own.
DOCUMENTED = "s3://login-etl-lake/user_logins/"


def main() -> None:
    """Create the table as the file does, and run the query."""
    definition, days, query = Path(sys.argv[1]).read_text(), sys.argv[2], sys.argv[3]
    with tempfile.TemporaryDirectory() as warehouse:
        spark = (
            SparkSession.builder.master("local[2]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.warehouse.dir", warehouse)
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .getOrCreate()
        )
        if DOCUMENTED not in definition:
            raise SystemExit(f"{sys.argv[1]} does not contain {DOCUMENTED}")
        for statement in statements(definition.replace(DOCUMENTED, days)):
            spark.sql(statement)
        rows = [tuple(row) for row in spark.sql(query).collect()]
        spark.stop()
    print("\n" + json.dumps(rows, default=str))


def statements(text: str) -> list[str]:
    """Split a file into its statements, without comments."""
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    return [each.strip() for each in "\n".join(lines).split(";") if each.strip()]


if __name__ == "__main__":
    main()
