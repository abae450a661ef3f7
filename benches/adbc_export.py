"""Read all logins with ADBC, and write them with pyarrow: `adbc_export.py URL FILE`.

It prints the seconds that this takes, without the start of Python.
"""

import json
import sys
import time

import pyarrow.parquet
from adbc_driver_postgresql import dbapi

QUERY = """
SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
FROM user_logins
"""
ROW_GROUP = 131_072


def main() -> None:
    """Read and write."""
    url, file = sys.argv[1:]
    started = time.perf_counter()
    with dbapi.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(QUERY)
        logins = cursor.fetch_arrow_table()
    pyarrow.parquet.write_table(logins, file, compression="zstd", row_group_size=ROW_GROUP)
    print(json.dumps({"seconds": time.perf_counter() - started}))


if __name__ == "__main__":
    main()
