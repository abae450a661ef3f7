"""Write the days that the export made into an Iceberg table.

Run it after each export, for example once an hour:

    pip install 'pyiceberg[glue,pyarrow]' boto3
    python deploy/lake/iceberg.py --source s3://BUCKET/user_logins/ --table lake.user_logins

pyiceberg reads the catalog's address from ~/.pyiceberg.yaml or from variables such as
PYICEBERG_CATALOG__LAKE__TYPE: https://py.iceberg.apache.org/configuration/. boto3 reads the objects
with the usual AWS credentials.

A day is replaced in one commit, if its objects have changed since the last run: a reader sees the
day before or after it, never a part and never a row twice. A run that is killed loses nothing: the
next run replaces the days that are left. Two runs at once end with the same table as one.
"""

import argparse
import io
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from datetime import date
from urllib.parse import urlsplit

import boto3
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from botocore.client import BaseClient
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import CommitFailedException, ValidationException
from pyiceberg.expressions import EqualTo
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType, IntegerType, NestedField, StringType

SCHEMA = Schema(
    NestedField(1, "user_id", StringType()),
    NestedField(2, "device_type", StringType()),
    NestedField(3, "masked_ip", StringType()),
    NestedField(4, "masked_device_id", StringType()),
    NestedField(5, "locale", StringType()),
    NestedField(6, "app_version", IntegerType()),
    NestedField(7, "create_date", DateType()),
)
BY_DAY = PartitionSpec(PartitionField(7, 1000, IdentityTransform(), "create_date"))
# The property of the table that has the ETags of a day's objects begins so, and ends with the day.
ETAGS = "login-etl.etags."
# Another writer, such as the compaction of S3 Tables, may commit first.
ATTEMPTS = 10

Objects = list[tuple[str, str]]  # the key and the ETag of each object of a day


def main() -> int:
    """Replace the days whose objects have changed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", required=True, help="s3://BUCKET/user_logins/")
    parser.add_argument("--table", required=True, help="namespace and name of the Iceberg table")
    parser.add_argument("--catalog", default="lake", help="name of the catalog in the settings")
    arguments = parser.parse_args()
    source, s3 = urlsplit(arguments.source), boto3.client("s3")
    table = open_table(load_catalog(arguments.catalog), arguments.table)
    replaced = 0
    for day, objects in days(s3, source.netloc, source.path.strip("/") + "/"):
        if table.properties.get(ETAGS + day) != _etags(objects):
            replace(table, s3, source.netloc, day, objects)
            replaced += 1
            print(f"replaced {day}")
    print(f"{replaced} days replaced in {arguments.table}")
    return 0


def open_table(catalog: Catalog, name: str) -> Table:
    """Return the table; create it if it does not exist."""
    catalog.create_namespace_if_not_exists(name.rpartition(".")[0])
    return catalog.create_table_if_not_exists(name, SCHEMA, partition_spec=BY_DAY)


def days(s3: BaseClient, bucket: str, prefix: str) -> Iterator[tuple[str, Objects]]:
    """Return each day with its objects, the oldest day first."""
    found: dict[str, Objects] = defaultdict(list)
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for each in page.get("Contents", []):
            folder, _, file = each["Key"].removeprefix(prefix).partition("/")
            if folder.startswith("dt=") and file.endswith(".parquet"):
                found[folder.removeprefix("dt=")].append((each["Key"], each["ETag"]))
    yield from sorted(found.items())


def replace(table: Table, s3: BaseClient, bucket: str, day: str, objects: Objects) -> None:
    """Replace a day in one commit."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with table.transaction() as change:
                with warnings.catch_warnings():
                    # pyiceberg warns if the table does not have the day yet.
                    warnings.filterwarnings("ignore", "Delete operation did not match")
                    change.delete(EqualTo("create_date", date.fromisoformat(day)))
                for key, etag in objects:
                    rows = read(s3, bucket, key, etag, day)
                    if rows.num_rows:
                        change.append(rows)
                change.set_properties({ETAGS + day: _etags(objects)})
        except (CommitFailedException, ValidationException):
            if attempt == ATTEMPTS:
                raise
            table.refresh()
        else:
            return


def read(s3: BaseClient, bucket: str, key: str, etag: str, day: str) -> pyarrow.Table:
    """Read an object; it is an error if it was replaced since it was listed, or has another day."""
    body = s3.get_object(Bucket=bucket, Key=key, IfMatch=etag)["Body"].read()
    rows = pyarrow.parquet.read_table(io.BytesIO(body))
    if set(map(str, rows["create_date"].unique().to_pylist())) - {day}:
        raise SystemExit(f"s3://{bucket}/{key} has logins of another day")
    return rows


def _etags(objects: Objects) -> str:
    return " ".join(etag.strip('"') for _, etag in sorted(objects))


if __name__ == "__main__":
    sys.exit(main())
