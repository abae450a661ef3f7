"""An API over the same rollups with FastAPI, uvicorn and psycopg_pool, to compare with.

It does less for each request: no ETag, no CSV, no problem documents, no page after the first.
"""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, Query
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel

CONNECTIONS = 4

Limit = Annotated[int, Query(ge=1, le=200)]
Rows = list[dict[str, Any]]

pool = AsyncConnectionPool(
    os.environ["DATABASE_URL"],
    min_size=CONNECTIONS,
    max_size=CONNECTIONS,
    kwargs={"row_factory": dict_row, "autocommit": True},
    open=False,
)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Keep the pool open while the server runs."""
    async with pool:
        yield


app = FastAPI(lifespan=lifespan)


class Search(BaseModel):
    """The body of a search."""

    user_id: str
    days: int = 28
    limit: int = 100


async def fetch(query: str, *parameters: object) -> Rows:
    """Return the rows of a query."""
    async with pool.connection() as connection:
        return await (await connection.execute(query, parameters)).fetchall()


async def through() -> date:
    """Return the latest day that has logins."""
    [row] = await fetch("SELECT through FROM analytics.freshness")
    return row["through"]


@app.get("/v1/freshness")
async def freshness() -> Rows:
    """Return how fresh the rollups are."""
    return await fetch("SELECT * FROM analytics.freshness")


@app.get("/v1/duplicates")
async def duplicates(
    field: Literal["device_id", "ip"] = "device_id",
    period: Literal["1d", "7d", "28d", "all"] = "28d",
    min_users: int = 2,
    limit: Limit = 100,
) -> Rows:
    """List the tokens with most users."""
    return await fetch(
        "SELECT token, users, logins, first_day, last_day FROM analytics.token_period "
        "WHERE field = %s AND period = %s AND users >= %s ORDER BY users DESC, token LIMIT %s",
        field,
        period,
        min_users,
        limit,
    )


@app.get("/v1/rings")
async def rings(limit: Limit = 100) -> Rows:
    """List the largest rings."""
    return await fetch("SELECT * FROM analytics.rings ORDER BY users DESC, ring LIMIT %s", limit)


@app.get("/v1/tokens/{token}")
async def token_periods(token: str) -> Rows:
    """Count the users of a token in each period."""
    return await fetch("SELECT * FROM analytics.token_period WHERE token = %s", token)


@app.get("/v1/tokens/{token}/users")
async def token_users(token: str, limit: Limit = 100) -> Rows:
    """List the users of a token."""
    return await fetch(
        "SELECT user_id, logins, first_day, last_day FROM analytics.token_user "
        "WHERE token = %s ORDER BY user_id LIMIT %s",
        token,
        limit,
    )


@app.get("/v1/tokens/{token}/logins")
async def token_logins(token: str, days: int = 1, limit: Limit = 100) -> Rows:
    """List the logins with a token in the last days."""
    return await fetch(
        "SELECT create_date, user_id, device_type, locale, app_version, count(*) AS logins "
        "FROM user_logins "
        "WHERE create_date > %s AND %s IN (masked_device_id, masked_ip) "
        "GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5 LIMIT %s",
        await through() - timedelta(days),
        token,
        limit,
    )


@app.get("/v1/daily")
async def daily(
    days: int = 28, by: Literal["all", "device_type", "locale", "app_version"] = "all"
) -> Rows:
    """Count logins and users by day."""
    return await fetch(
        "SELECT day, value, logins, users FROM analytics.daily "
        "WHERE dimension = %s AND day > %s ORDER BY day, value",
        by,
        await through() - timedelta(days),
    )


@app.post("/v1/users/search")
async def user_tokens(body: Search) -> Rows:
    """List the tokens that a user logged in with."""
    return await fetch(
        "SELECT field, token, logins, first_day, last_day FROM analytics.token_user "
        "WHERE user_id = %s ORDER BY token LIMIT %s",
        body.user_id,
        body.limit,
    )


@app.post("/v1/logins/search")
async def user_logins(body: Search) -> Rows:
    """List the logins of a user in the last days."""
    return await fetch(
        "SELECT create_date, device_type, masked_ip, masked_device_id, locale, app_version, "
        "count(*) AS logins FROM user_logins WHERE create_date > %s AND user_id = %s "
        "GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6 LIMIT %s",
        await through() - timedelta(body.days),
        body.user_id,
        body.limit,
    )


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
