"""Makes login messages, and computes the rows that they must become, independently of the Rust."""

import base64
import hashlib
import hmac
import ipaddress
import json
import re
from datetime import UTC, date, datetime
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

_numbers = count(1)


class Row(NamedTuple):
    """A row of user_logins: its columns, in the order of the table."""

    user_id: str
    device_type: str | None
    masked_ip: str | None
    masked_device_id: str | None
    locale: str | None
    app_version: int | None
    create_date: date


def login(**changes: object) -> dict[str, Any]:
    """Make the body of a valid login with values of its own; `...` removes a key."""
    number = next(_numbers)
    body = {
        "user_id": f"user-{number}",
        "app_version": "2.3.0",
        "device_type": "android",
        "ip": f"198.51.{number // 250}.{number % 250}",
        "locale": "RU",
        "device_id": f"593-47-{number:04}",
    }
    return {key: value for key, value in (body | changes).items() if value is not ...}


def record(body: object, /, **changes: object) -> dict[str, Any]:
    """Make an SQS record as Lambda delivers it; a body that is not a string is written as JSON."""
    made = {
        "messageId": str(uuid4()),
        "receiptHandle": "handle",
        "body": body if isinstance(body, str) else json.dumps(body),
        "attributes": {"ApproximateReceiveCount": "1", "SentTimestamp": "1773791997120"},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:us-east-1:123456789012:login-queue",
        "awsRegion": "us-east-1",
    }
    return {key: value for key, value in (made | changes).items() if value is not ...}


def failed(*records: dict[str, Any]) -> dict[str, Any]:
    """Make the answer that reports exactly these records."""
    return {"batchItemFailures": [{"itemIdentifier": each["messageId"]} for each in records]}


def row(body: dict[str, Any], salt: str, sent_at: datetime) -> Row:
    """Compute the row of a flat body."""
    return Row(
        user_id=body["user_id"],
        device_type=body.get("device_type"),
        masked_ip=token(salt, "ip", body.get("ip")),
        masked_device_id=token(salt, "device_id", body.get("device_id")),
        locale=body.get("locale"),
        app_version=version(body.get("app_version")),
        create_date=sent_at.astimezone(UTC).date(),
    )


def token(salt: str, field: str, value: str | None) -> str | None:
    """Compute the token of a value; a blank value has none."""
    if value is None or not value.strip():
        return None
    message = f"{field}:{canonical(value) if field == 'ip' else value.strip()}"
    return hmac.new(salt.encode(), message.encode(), hashlib.sha256).hexdigest()


def canonical(ip: str) -> str:
    """Return an address in its standard text; return anything else trimmed."""
    try:
        address = ipaddress.ip_address(ip.strip())
    except ValueError:
        return ip.strip()
    if "%" in ip:
        # Python accepts a zone, which is not a part of an address.
        return ip.strip()
    return str(getattr(address, "ipv4_mapped", None) or address)


def version(text: str | None) -> int | None:
    """Turn `1.2.3` into 1002003."""
    if text is None:
        return None
    major, minor, patch = [*map(int, text.split(".")), 0, 0][:3]
    return major * 1_000_000 + minor * 1_000 + patch


def raw_values(message: str) -> set[str]:
    """Find every device id and address in a message: nested, in an envelope, or in invalid JSON."""
    unescaped = message.replace("\\", "")
    named = re.findall(r'"(?:ip|device_id)"\s*:\s*"([^"]+)"', unescaped)
    shaped = re.findall(r"\b(?:\d{1,3}(?:\.\d{1,3}){3}|\d{3}-\d{2}-\d{4})\b", unescaped)
    values = {*named, *shaped, *map(canonical, named)}
    return {value.strip() for value in values if value.strip()}


def encodings(value: str) -> set[str]:
    """Return a value in each encoding that hides it in a text without protecting it."""
    plain = value.encode()
    forms = {value, value.upper(), value.lower(), quote(value, safe=""), plain.hex()}
    forms |= {plain.hex().upper(), hashlib.sha256(plain).hexdigest()}
    for offset in range(3):
        # The value may start at any of 3 offsets in base64; these characters encode only the value.
        encoded = base64.b64encode(bytes(offset) + plain).decode()
        forms.add(encoded[-(-offset * 8 // 6) : (offset + len(plain)) * 8 // 6])
    return forms
