"""The Python function: decodes, masks and copies. It has no ledger and checks no message.

It is a bootstrap of its own, so that it is started, invoked and measured like login-etl.
"""

import hmac
import json
import os
from datetime import UTC, datetime
from http.client import HTTPConnection

import boto3
import psycopg

COPY = "COPY user_logins FROM STDIN (FORMAT binary)"
TYPES = ["varchar", "varchar", "varchar", "varchar", "varchar", "int4", "date"]


def connect() -> tuple[bytes, psycopg.Connection]:
    """Fetch the secrets and connect, once per process."""
    secrets = boto3.client("secretsmanager")

    def secret(name: str) -> str:
        return secrets.get_secret_value(SecretId=os.environ[name])["SecretString"]

    salt = secret("SALT_SECRET_ID").encode()
    if url := os.environ.get("DATABASE_URL"):
        return salt, psycopg.connect(url)
    login = json.loads(secret("DATABASE_SECRET_ID"))
    return salt, psycopg.connect(
        host=login["host"],
        port=login["port"],
        dbname=os.environ["DATABASE_NAME"],
        user=login["username"],
        password=login["password"],
        sslmode="verify-full",
        sslrootcert=os.environ["DATABASE_CA_BUNDLE"],
    )


salt, connection = connect()


def handle(event: dict) -> dict:
    """Write the rows of an event."""
    rows = [to_row(record) for record in event["Records"]]
    with connection.cursor() as cursor, cursor.copy(COPY) as copy:
        copy.set_types(TYPES)
        for row in rows:
            copy.write_row(row)
    connection.commit()
    return {"batchItemFailures": []}


def to_row(record: dict) -> tuple:
    """Turn a record into a row."""
    body = json.loads(record["body"])
    major, minor, patch = map(int, body["app_version"].split("."))
    sent_at = datetime.fromtimestamp(int(record["attributes"]["SentTimestamp"]) / 1000, UTC)
    return (
        body["user_id"],
        body["device_type"],
        mask("ip", body["ip"]),
        mask("device_id", body["device_id"]),
        body["locale"],
        major * 1_000_000 + minor * 1_000 + patch,
        sent_at.date(),
    )


def mask(field: str, value: str) -> str:
    """Compute the token of a value with the fastest call of the standard library."""
    return hmac.digest(salt, f"{field}:{value}".encode(), "sha256").hex()


def main() -> None:
    """Poll for events and answer each, until the process is stopped."""
    runtime = HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
    while True:
        runtime.request("GET", "/2018-06-01/runtime/invocation/next")
        response = runtime.getresponse()
        request_id = response.getheader("Lambda-Runtime-Aws-Request-Id")
        answer = handle(json.loads(response.read()))
        path = f"/2018-06-01/runtime/invocation/{request_id}/response"
        runtime.request("POST", path, json.dumps(answer))
        runtime.getresponse().read()


if __name__ == "__main__":
    main()
