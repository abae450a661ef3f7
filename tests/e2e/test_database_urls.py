"""DATABASE_URL is read as libpq reads it."""

import json
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dev import ROOT

pytestmark = pytest.mark.without_emulator

URLS = json.loads((ROOT / "tests/it/database_urls.json").read_text())
PARTS = ("user", "password", "host", "port", "dbname", "sslmode")


@pytest.mark.parametrize("case", [case for case in URLS if "error" not in case])
def test_expected_parts_equal_those_of_libpq(case: dict[str, Any]) -> None:
    parsed = conninfo_to_dict(case["url"])

    expected = {part: case[part] for part in PARTS if part in case}
    assert {part: parsed[part] for part in PARTS if part in parsed} == expected


@pytest.mark.parametrize("case", [case for case in URLS if case.get("libpq_refuses")])
def test_libpq_refuses_the_url_too(case: dict[str, Any]) -> None:
    with pytest.raises(psycopg.ProgrammingError):
        conninfo_to_dict(case["url"])
