"""psql runs what the page offers "as SQL", and returns the rows of the page and of the API."""

import csv
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode, urljoin
from urllib.request import urlopen

import pytest

from dev.demo import Demo

pytestmark = pytest.mark.without_emulator

Row = dict[str, Any]

NULL = "<null>"


@dataclass
class Offer:
    """The SQL of a list, and the address of the same rows as JSON, if they have one."""

    sql: str = ""
    json: str | None = None


@dataclass
class Page(HTMLParser):
    """A page, with what it offers and the texts that it shows."""

    address: str
    offers: list[Offer] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)
    _in_sql: bool = False

    def __post_init__(self) -> None:
        """Prepare to parse."""
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where an offer begins, and its link."""
        attributes = dict(attrs)
        if tag == "div" and attributes.get("class") == "offer":
            self.offers.append(Offer())
        path = attributes.get("href") or ""
        # A drawing shows a token only as a link.
        self.texts.add(path.rpartition("/")[2])
        in_offer = self.offers and not self.offers[-1].sql
        if in_offer and "v1/" in path and "format=csv" not in path:
            self.offers[-1].json = urljoin(self.address, path)
        self._in_sql |= tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        """Note where SQL ends."""
        self._in_sql &= tag != "pre"

    def handle_data(self, data: str) -> None:
        """Collect SQL and other texts."""
        if self._in_sql and self.offers:
            self.offers[-1].sql += data
        else:
            self.texts.add(data.strip())


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/duplicates?field=ip&period=all&min_users=3",
        "/duplicates?field=device_id&period=28d",
        "/rings",
        "/rings/{ring}",
        "/tokens/{ring}",
        "/tokens/{hub}",
    ],
)
def test_sql_of_page_returns_its_rows(rollups: Demo, analysts_api: str, path: str) -> None:
    hub = _psql(rollups, "SELECT token FROM analytics.duplicates_all ORDER BY users DESC LIMIT 1")
    path = path.format(ring=rollups.rings[3].ring, hub=hub[0]["token"])

    page = _page(analysts_api + path)

    in_api = {offer.sql: list(_json_rows(offer.json)) for offer in page.offers}
    assert any(in_api.values())
    for query, rows in in_api.items():
        assert _columns_of(rows, _psql(rollups, query)) == rows
        shown = [row[name] for row in rows for name in ("token", "ring") if name in row]
        assert set(shown) - {NULL} <= page.texts


def test_sql_of_user_returns_tokens(rollups: Demo, analysts_api: str) -> None:
    user = "<script>'\""
    form = urlencode({"kind": "user_id", "value": user}).encode()

    page = _page(f"{analysts_api}/search", form)

    [offer] = page.offers
    rows = _psql(rollups, offer.sql)
    assert {row["token"] for row in rows} == {"ab" * 32, "cd" * 32}
    assert {row["token"] for row in rows} <= page.texts
    assert user in page.texts


def _page(address: str, form: bytes | None = None) -> Page:
    page = Page(address)
    with urlopen(address, form) as answer:
        page.feed(answer.read().decode())
    return page


def _psql(rollups: Demo, query: str) -> list[Row]:
    """Run a query as a reader who has copied it."""
    shown = subprocess.run(
        ["psql", rollups.url, "--csv", f"--pset=null={NULL}", "--set=ON_ERROR_STOP=1"],
        env={
            "PATH": f"{rollups.postgres.binaries}:{os.environ['PATH']}",
            "PGPASSWORD": rollups.analyst_password,
        },
        input=query,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.stderr == ""
    return list(csv.DictReader(shown.stdout.splitlines()))


def _json_rows(address: str) -> Iterator[Row]:
    """Read the rows from the API, with their values as psql writes them."""
    with urlopen(address) as answer:
        document = json.load(answer)
    for row in document["rows"] if "rows" in document else document["graph"]["edges"]:
        yield {name: NULL if value is None else str(value) for name, value in row.items()}


def _columns_of(rows: list[Row], found: list[Row]) -> list[Row]:
    """Keep the columns that the API returns too: the SQL has some more, for the next page.

    In the rows of a graph, a hub has no user, and is no edge.
    """
    names = rows[0] if rows else {}
    return [{name: each[name] for name in names} for each in found if each.get("user_id") != NULL]
