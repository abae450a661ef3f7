"""Makes an endless sequence of messages, the same for the same seed, and the row of each."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dev import logins

if TYPE_CHECKING:
    from torture.sqs import Delivery

# Every raw value and user id starts with a text below, and nothing else does: a search finds all.
IP = "198.18."
DEVICE_ID = "593-47-"
USER_ID = "torture-user-"

# What the table's owner may add: each refuses the rows of one locale.
REFUSALS = {
    "XX": "ALTER TABLE user_logins ADD CHECK (locale <> 'XX')",
    "XY": """
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'ZX001'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON user_logins
        FOR EACH ROW WHEN (NEW.locale = 'XY') EXECUTE FUNCTION refuse()""",
    # At the commit. (A policy refuses too, but the vault refuses row security.)
    "XZ": """
        CREATE FUNCTION refuse_late() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'ZX002'; END $$;
        CREATE CONSTRAINT TRIGGER refuse_late AFTER INSERT ON user_logins
        DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.locale = 'XZ') EXECUTE FUNCTION refuse_late()""",
}

# Rows of this locale are accepted, but not inserted.
SUPPRESSED = "XW"
SUPPRESSION = f"""
    CREATE FUNCTION suppress() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER suppress BEFORE INSERT ON user_logins
    FOR EACH ROW WHEN (NEW.locale = '{SUPPRESSED}') EXECUTE FUNCTION suppress()"""

GROUPS = 20
Login = dict[str, Any]


class Kind(StrEnum):
    """Whether a message is valid, and if not, which part refuses it."""

    GOOD = "good"
    BAD = "undecodable"
    REFUSED = "refused by Postgres"
    SUPPRESSED = "suppressed by a trigger"

    @property
    def fails(self) -> bool:
        """Whether the function reports the message as failed."""
        return self in {Kind.BAD, Kind.REFUSED}


class State(StrEnum):
    """The state of a message in SQS."""

    QUEUED = "in the queue"
    DELETED = "deleted"
    DEAD = "in the dead-letter queue"


@dataclass(eq=False)
class Message:
    """A message and its history."""

    id: str
    kind: Kind
    user_id: str
    body: str | None
    sent_at: datetime
    group: str | None
    # The row with the tokens of the first salt.
    row: logins.Row | None
    # The values that are masked, by their fields.
    values: dict[str, str]
    state: State = State.QUEUED
    visible_at: float = 0.0
    deleted_at: float | None = None
    reports: int = 0
    # Reports of a message that must not fail: its time ran out, or the function has a fault.
    unexpected_reports: int = 0
    deliveries: list["Delivery"] = field(default_factory=list)

    @property
    def in_flight(self) -> bool:
        """Whether a function is processing the message."""
        return any(delivery.ended is None for delivery in self.deliveries)

    def record(self) -> Login:
        """Make the record of the current delivery."""
        attributes = {
            "ApproximateReceiveCount": str(len(self.deliveries)),
            "SentTimestamp": str(round(self.sent_at.timestamp() * 1000)),
        }
        changes: dict[str, object] = {"messageId": self.id, "body": self.body}
        if self.group is not None:
            attributes["MessageGroupId"] = self.group
            changes["eventSourceARN"] = "arn:aws:sqs:us-east-1:123456789012:login-queue.fifo"
        return logins.record("", attributes=attributes, **changes)


# Each makes an invalid body of a valid login.
CORRUPTIONS: list[Callable[[Login], object]] = [
    lambda login: json.dumps(login)[:-1],
    lambda login: f"user_id={login['user_id']} ip={login['ip']}",
    lambda _: None,
    lambda login: [login],
    lambda login: login | {"user_id": 7},
    lambda login: login | {"user_id": login["user_id"] * 10},
    lambda login: login | {"ip": [login["ip"]]},
    lambda login: login | {"device_id": {"raw": login["device_id"]}},
    lambda login: login | {"device": {"id": login["device_id"]}},
    lambda login: login | {"app_version": login["ip"]},
    lambda login: login | {"locale": "R\0U"},
    lambda login: login | {"ip": f"{login['ip']}\0"},
    lambda login: login | {"device_type": login["device_id"] * 4},
]


class Messages:
    """Makes messages: some are bad, some belong to FIFO groups."""

    def __init__(self, seed: str, salt: str) -> None:
        """Start the sequence of this seed."""
        self._rng = random.Random(f"{seed} messages")
        self._seed = seed
        self._salt = salt
        self._made = 0

    def make(self, *, fifo: bool) -> Message:
        """Make the next message."""
        rng = self._rng
        self._made += 1
        kind = rng.choices(list(Kind), [92, 3, 3, 2])[0]
        group = f"group-{rng.randrange(GROUPS)}" if fifo else None
        login = self._login()
        if kind is Kind.REFUSED:
            login["locale"] = rng.choice(list(REFUSALS))
        elif kind is Kind.SUPPRESSED:
            login["locale"] = SUPPRESSED
        body = rng.choice(CORRUPTIONS)(login) if kind is Kind.BAD else login
        sent_at = datetime.now(UTC) - timedelta(seconds=rng.choice([0, 0, 0, 86_400, 200_000]))
        # SQS has a resolution of milliseconds.
        sent_at = sent_at.replace(microsecond=sent_at.microsecond // 1000 * 1000)
        return Message(
            id=str(UUID(int=rng.getrandbits(128), version=4)),
            kind=kind,
            user_id=login["user_id"],
            body=body if body is None or isinstance(body, str) else json.dumps(body),
            sent_at=sent_at,
            group=group,
            row=logins.row(login, self._salt, sent_at) if kind is Kind.GOOD else None,
            values={"ip": login["ip"], "device_id": login["device_id"]},
        )

    def _login(self) -> Login:
        rng, number = self._rng, self._made
        # Some users have an address or a device in common.
        ip = number if rng.random() < 0.7 else rng.randint(1, number)
        device = number if rng.random() < 0.9 else rng.randint(1, number)
        return logins.login(
            user_id=f"{USER_ID}{self._seed}-{number}",
            app_version=f"{rng.randrange(10)}.{rng.randrange(10)}.{rng.randrange(10)}",
            device_type=rng.choice(["android", "ios", None]),
            ip=f"{IP}{ip // 250 % 250}.{ip % 250}",
            locale=rng.choice([None, "RU", "ID"]),
            device_id=f"{DEVICE_ID}{device:07}",
        )
