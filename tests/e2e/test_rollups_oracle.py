"""DuckDB answers the API's questions from the rows of user_logins, with SQL of its own.

Its answers and the API's must be equal.
"""

import json
import os
import subprocess
from datetime import date
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import duckdb
import pytest

from dev.demo import Demo
from dev.local_system import DATABASE
from e2e.documented import commands, sql

pytestmark = pytest.mark.without_emulator

Row = dict[str, Any]

PERIODS = {"1d": 1, "7d": 7, "28d": 28, "all": 999_999}
COLUMNS = {
    "user_id": "VARCHAR",
    "device_type": "VARCHAR",
    "masked_ip": "VARCHAR",
    "masked_device_id": "VARCHAR",
    "locale": "VARCHAR",
    "app_version": "INTEGER",
    "create_date": "DATE",
}

# `used` has a row for each token of a login. A value that is not masked is no token.
VIEWS = r"""
CREATE VIEW dated AS
SELECT *, create_date AS day FROM logins
WHERE create_date BETWEEN DATE '0001-01-01' AND DATE '{today}';

CREATE VIEW used AS
SELECT day, field, token, user_id
FROM (
    SELECT day, 'device_id' AS field, masked_device_id AS token, user_id FROM dated
    UNION ALL
    SELECT day, 'ip', masked_ip, user_id FROM dated
)
WHERE regexp_full_match(token, '[0-9a-f]{{64}}') AND user_id IS NOT NULL;

CREATE MACRO through() AS (SELECT max(day) FROM dated);

CREATE VIEW counted AS
SELECT field, period, token, count(DISTINCT user_id) AS users, count(*) AS logins,
    min(day) AS first_day, max(day) AS last_day
FROM used JOIN periods ON day > through() - days
GROUP BY ALL;

-- Devices that connect users, the ring of each, and the users with their logins.
CREATE TABLE connected AS
WITH RECURSIVE link AS (
    SELECT DISTINCT token, user_id FROM used
    WHERE day > through() - 28 AND (field, '28d', token) IN (
        SELECT (field, period, token) FROM counted
        WHERE field = 'device_id' AND users BETWEEN 2 AND 50
    )
),
reached (token, other) AS (
    SELECT token, token FROM link
    UNION
    SELECT reached.token, there.token
    FROM reached
    JOIN link AS here ON here.token = other
    JOIN link AS there USING (user_id)
)
SELECT token, min(other) AS ring FROM reached GROUP BY token;

CREATE VIEW ring_login AS
SELECT ring, token, user_id, day FROM used JOIN connected USING (token) WHERE day > through() - 28;

CREATE VIEW readable AS
SELECT day, user_id, device_type, masked_ip, masked_device_id, locale,
    format('{{}}.{{}}.{{}}', app_version // 1000000, app_version // 1000 % 1000, app_version % 1000)
        AS app_version
FROM dated;

CREATE VIEW grouped AS SELECT *, count(*) AS logins FROM readable GROUP BY ALL;
"""


class Api:
    """The API, and how its pages are read."""

    def __init__(self, address: str) -> None:
        """Remember the address."""
        self.address = address

    def get(self, path: str) -> Row:
        """Return the answer to a request."""
        with urlopen(self.address + path) as answer:
            return json.load(answer)

    def rows(self, path: str, body: Row | None = None) -> list[Row]:
        """Return the rows of all pages."""
        rows, after = [], None
        while True:
            answer = self._page(path, body, after)
            rows += answer["rows"]
            if (after := answer["next"]) is None:
                return rows

    def _page(self, path: str, body: Row | None, after: str | None) -> Row:
        if body is None:
            mark = "&" if "?" in path else "?"
            return self.get(path + (f"{mark}after={after}" if after else ""))
        body = body | ({"after": after} if after else {})
        headers = {"Content-Type": "application/json"}
        request = Request(self.address + path, json.dumps(body).encode(), headers)
        with urlopen(request) as answer:
            return json.load(answer)


class Oracle:
    """DuckDB over the rows of user_logins."""

    def __init__(self, rows: Path, today: date) -> None:
        """Read the rows from a CSV file."""
        self.database = duckdb.connect()
        self.database.execute(
            "CREATE TABLE logins AS SELECT * FROM read_csv($1, header = false, columns = $2)",
            [str(rows), COLUMNS],
        )
        periods = ", ".join(str(each) for each in PERIODS.items())
        self.database.execute("CREATE TABLE periods (period text, days integer)")
        self.database.execute(f"INSERT INTO periods VALUES {periods}")
        self.database.execute(VIEWS.format(today=today))

    def rows(self, query: str, *parameters: object) -> list[Row]:
        """Return the rows of a query as the API writes them."""
        cursor = self.database.execute(query, parameters)
        names = [name for name, *_ in cursor.description]
        return [dict(zip(names, map(_json, row), strict=True)) for row in cursor.fetchall()]


@pytest.fixture
def api(analysts_api: str) -> Api:
    """Return a client."""
    return Api(analysts_api)


@pytest.fixture(scope="module")
def oracle(rollups: Demo, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """Give the rows of user_logins to DuckDB."""
    file = tmp_path_factory.mktemp("oracle") / "logins.csv"
    with rollups.connect() as analyst, analyst.cursor() as cursor, file.open("wb") as rows:
        columns = ", ".join(COLUMNS)
        with cursor.copy(
            f"COPY (SELECT {columns} FROM user_logins) TO STDOUT (FORMAT csv)"
        ) as copy:
            rows.writelines(copy)
        # The day may end while the tests run.
        [today] = cursor.execute(
            "SELECT (rolled_up_at AT TIME ZONE 'UTC')::date FROM analytics.freshness"
        ).fetchone()
    return Oracle(file, today)


def test_freshness_is_equal(api: Api, oracle: Oracle) -> None:
    answer = api.get("/v1/freshness")

    [expected] = oracle.rows(
        "SELECT through() AS through, "
        "(SELECT count(*) FROM logins) - count(*) AS logins_without_day FROM dated"
    )
    assert {name: answer[name] for name in expected} == expected
    assert answer["days_left"] == 0


@pytest.mark.parametrize("field", ["device_id", "ip"])
@pytest.mark.parametrize("period", PERIODS)
def test_duplicates_are_equal(api: Api, oracle: Oracle, field: str, period: str) -> None:
    found = api.rows(f"/v1/duplicates?field={field}&period={period}&limit=200")

    assert found
    assert found == oracle.rows(
        "SELECT token, users, logins, first_day, last_day FROM counted "
        "WHERE field = $1 AND period = $2 AND users >= 2 ORDER BY users DESC, token",
        field,
        period,
    )


def test_rings_are_equal(api: Api, oracle: Oracle) -> None:
    found = api.rows("/v1/rings?limit=200")

    assert found == oracle.rows(
        "SELECT ring, count(DISTINCT user_id) AS users, count(DISTINCT token) AS devices, "
        "count(*) AS logins, min(day) AS first_day, max(day) AS last_day "
        "FROM ring_login GROUP BY ring ORDER BY users DESC, ring"
    )


def test_planted_rings_are_found(api: Api, rollups: Demo) -> None:
    found = {ring["ring"]: (ring["users"], ring["devices"]) for ring in api.rows("/v1/rings")}

    for planted in rollups.rings:
        assert found[planted.ring] == (planted.users, planted.devices), planted.shape


def test_members_and_devices_of_rings_are_equal(api: Api, oracle: Oracle, rollups: Demo) -> None:
    for planted in rollups.rings:
        members = api.rows(f"/v1/rings/{planted.ring}/members?limit=7")
        devices = api.rows(f"/v1/rings/{planted.ring}/devices?limit=7")

        assert _sorted(members) == oracle.rows(
            "SELECT user_id, count(DISTINCT token) AS devices, count(*) AS logins, "
            "min(day) AS first_day, max(day) AS last_day "
            "FROM ring_login WHERE ring = $1 GROUP BY user_id ORDER BY user_id",
            planted.ring,
        )
        assert devices == oracle.rows(
            "SELECT token, count(DISTINCT user_id) AS users, count(*) AS logins, "
            "min(day) AS first_day, max(day) AS last_day "
            "FROM ring_login WHERE ring = $1 GROUP BY token ORDER BY users DESC, token",
            planted.ring,
        )


def test_tokens_are_equal(api: Api, oracle: Oracle) -> None:
    for token in _tokens(oracle):
        found = api.rows(f"/v1/tokens/{token}")

        assert _sorted(found, "period") == oracle.rows(
            "SELECT field, period, users, logins, first_day, last_day, ring "
            "FROM counted LEFT JOIN connected USING (token) WHERE token = $1 ORDER BY period",
            token,
        )


def test_users_of_tokens_are_equal(api: Api, oracle: Oracle) -> None:
    for token in _tokens(oracle):
        found = api.rows(f"/v1/tokens/{token}/users?limit=60")

        assert _sorted(found) == oracle.rows(
            "SELECT user_id, count(*) AS logins, min(day) AS first_day, max(day) AS last_day "
            "FROM used WHERE token = $1 GROUP BY user_id ORDER BY user_id",
            token,
        )


def test_days_of_tokens_are_equal(api: Api, oracle: Oracle) -> None:
    for token in _tokens(oracle):
        assert api.rows(f"/v1/tokens/{token}/daily") == oracle.rows(
            "SELECT day, count(*) AS logins, count(DISTINCT user_id) AS users "
            "FROM used WHERE token = $1 AND day > through() - 28 GROUP BY day ORDER BY day DESC",
            token,
        )


def test_logins_of_tokens_are_equal(api: Api, oracle: Oracle) -> None:
    for token in _tokens(oracle):
        found = api.rows(f"/v1/tokens/{token}/logins?days=31&limit=50")

        assert _multiset(found) == _multiset(
            oracle.rows(
                "FROM grouped WHERE $1 IN (masked_device_id, masked_ip) AND day > through() - 31",
                token,
            )
        )


@pytest.mark.parametrize("by", ["device_type", "locale", "app_version"])
def test_values_of_days_are_equal(api: Api, oracle: Oracle, by: str) -> None:
    found = api.rows(f"/v1/daily?days=366&limit=100&by={by}")

    for row in found:
        del row["rank"]
    assert _multiset(found) == _multiset(
        oracle.rows(
            f"SELECT day, {by} AS value, count(*) AS logins, count(DISTINCT user_id) AS users "
            "FROM readable WHERE day > through() - 366 GROUP BY ALL"
        )
    )


def test_days_are_equal(api: Api, oracle: Oracle) -> None:
    assert api.rows("/v1/daily?days=366&limit=10") == oracle.rows(
        "SELECT day, 1 AS rank, NULL AS value, count(*) AS logins, "
        "count(DISTINCT user_id) AS users FROM dated "
        "WHERE day > through() - 366 GROUP BY day ORDER BY day DESC"
    )


def test_searches_for_users_are_equal(api: Api, oracle: Oracle) -> None:
    for user in _users(oracle):
        tokens = api.rows("/v1/users/search", {"user_id": user, "limit": 3})
        logins = api.rows("/v1/logins/search", {"user_id": user, "days": 31, "limit": 3})

        assert tokens == oracle.rows(
            "SELECT field, token, counted.users, count(*) AS logins, "
            "min(day) AS first_day, max(day) AS last_day "
            "FROM used JOIN counted USING (field, token) "
            "WHERE user_id = $1 AND period = 'all' GROUP BY ALL ORDER BY users DESC, token",
            user,
        )
        assert _multiset(logins) == _multiset(
            oracle.rows("FROM grouped WHERE user_id = $1 AND day > through() - 31", user)
        )


def test_neighbours_are_equal(api: Api, oracle: Oracle, rollups: Demo) -> None:
    for planted in rollups.rings:
        graph = api.get(f"/v1/tokens/{planted.ring}/neighbours?depth=3")["graph"]

        assert not graph["truncated"], planted.shape
        assert _multiset(graph["edges"]) == _multiset(oracle.rows(EDGES, planted.ring))


def test_documented_role_reads_the_views_in_psql(rollups: Demo, tmp_path: Path) -> None:
    server = rollups.postgres
    [_token, psql] = commands("psql", "analysts.md")
    local = {
        "host=db.example.com port=5432": f"host=localhost port={server.port}",
        "global-bundle.pem": str(server.certificate_authority),
    }
    for documented, here in local.items():
        assert documented in psql
        psql = psql.replace(documented, here)
    with server.connect(DATABASE) as admin:
        # RDS has this role, through which it accepts a token of IAM in place of a password.
        admin.execute("CREATE ROLE rds_iam")
        admin.execute(sql("A role for each analyst", "analysts.md"))
        admin.execute("ALTER ROLE anna PASSWORD 'of anna'")

    shown = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", psql],
        input="\\dv+ analytics.*\nSELECT users FROM analytics.duplicates_28d LIMIT 1;\n",
        env={
            "PATH": f"{server.binaries}:{os.environ['PATH']}",
            "TOKEN": "of anna",
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=True,
    )

    assert "at least 2 users" in shown.stdout
    assert "(1 row)" in shown.stdout
    assert shown.stderr == ""


# The token's users, their tokens, and the users of those that at most 50 users share.
EDGES = """
WITH near AS (SELECT DISTINCT user_id FROM used WHERE token = $1),
their AS (SELECT DISTINCT token FROM used JOIN near USING (user_id)),
edge AS (
    SELECT token, user_id, count(*) AS logins, min(day) AS first_day, max(day) AS last_day
    FROM used JOIN their USING (token) GROUP BY ALL
)
SELECT edge.* FROM edge JOIN counted USING (token)
WHERE period = 'all' AND (users <= 50 OR user_id IN (FROM near))
"""


def _tokens(oracle: Oracle) -> list[str]:
    """Choose tokens of all kinds: the most shared, those of one user, and some between."""
    rows = oracle.rows(
        "FROM (SELECT token, row_number() OVER (PARTITION BY field ORDER BY users DESC, token) "
        "AS place FROM counted WHERE period = 'all') WHERE place < 6 OR place % 97 = 0"
    )
    return [row["token"] for row in rows]


def _users(oracle: Oracle) -> list[str]:
    """Choose users, those with odd ids among them."""
    rows = oracle.rows(
        "FROM (SELECT user_id, row_number() OVER (ORDER BY user_id) AS place "
        "FROM dated WHERE user_id IS NOT NULL GROUP BY user_id) WHERE place < 6 OR place % 97 = 0"
    )
    return [row["user_id"] for row in rows]


def _json(value: object) -> object:
    return value.isoformat() if isinstance(value, date) else value


def _sorted(rows: list[Row], name: str = "user_id") -> list[Row]:
    return sorted(rows, key=lambda row: row[name])


def _multiset(rows: list[Row]) -> list[str]:
    return sorted(json.dumps(row, sort_keys=True) for row in rows)
