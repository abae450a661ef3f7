"""Erases values at random, with the functions of the database that the broker calls."""

import asyncio
import hashlib
import hmac
import random
from dataclasses import dataclass, field

import psycopg
from psycopg import errors

from torture.messages import Kind, Message, State
from torture.proxied_servers import ProxiedServers
from torture.sqs import History, Violation

# Which earlier messages an erasure chooses from.
RECENT = 2_000
ASK = "SELECT vault_ask('torture', %s, %s, %s, %s, 'test', 'SEC-1')"
ERASE = "SELECT erased, rows FROM vault_erase(%s, %s, %s)"
ERASE_USER = "SELECT erased, shared, rows FROM vault_erase_user(%s, %s, %s, %s)"
# The classes of SQLSTATEs that a fault may cause. 25 is a read-only server.
EXPECTED = ("08", "25006", "40", "53", "55P03", "57", "58")


@dataclass(eq=False)
class Erasure:
    """An erasure of a value or of a user, and what the client knows of it."""

    message: Message
    # None: all values of the user.
    field: str | None
    never_again: bool
    with_rows: bool
    began: float
    pid: int | None = None
    entry: int | None = None
    answered: bool = False
    # The tokens that the answer names.
    tokens: list[str] = field(default_factory=list)
    rows: int = 0

    @property
    def values(self) -> list[tuple[str, str]]:
        """The fields and values that this erasure may have erased."""
        values = self.message.values
        return [(name, values[name]) for name in values if self.field in {None, name}]


class Erasures:
    """All erasures of a run."""

    def __init__(self, servers: ProxiedServers, history: History) -> None:
        """Begin with none."""
        self._servers = servers
        self._history = history
        self.all: list[Erasure] = []

    async def erase(self, rng: random.Random, kill_after_s: float | None = None) -> bool:
        """Erase a value or a user, by choice killed; return whether it was answered."""
        erasure = self._choose(rng)
        if erasure is None:
            return False
        self.all.append(erasure)
        erasing = asyncio.create_task(asyncio.to_thread(self._run, erasure))
        if kill_after_s is not None:
            while erasure.pid is None and not erasing.done():
                await asyncio.sleep(0.002)
            await asyncio.sleep(kill_after_s)
            await asyncio.to_thread(self._kill, erasure)
        await erasing
        return erasure.answered

    def _choose(self, rng: random.Random) -> Erasure | None:
        recent = [each for each in self._history.messages[-RECENT:] if each.kind is Kind.GOOD]
        written = [each for each in recent if each.state is State.DELETED]
        chosen = written if rng.random() < 0.7 else recent
        if not chosen:
            return None
        message = rng.choice(chosen)
        name = rng.choice(["ip", "device_id", None])
        return Erasure(
            message,
            name,
            never_again=rng.random() < 0.4,
            with_rows=rng.random() < 0.5,
            began=self._history.now(),
        )

    def _run(self, erasure: Erasure) -> None:
        try:
            with self._servers.connect_broker() as broker:
                erasure.pid = broker.info.backend_pid
                self._erase(broker, erasure)
        except psycopg.Error as error:
            sqlstate = error.sqlstate
            if sqlstate is not None and not sqlstate.startswith(EXPECTED):
                self._history.violations.append(Violation(f"an erasure failed with {sqlstate}"))
            elif sqlstate is None and not isinstance(error, psycopg.OperationalError):
                name = type(error).__name__
                self._history.violations.append(Violation(f"an erasure failed with {name}"))

    def _erase(self, broker: psycopg.Connection, erasure: Erasure) -> None:
        choice = (erasure.never_again, erasure.with_rows)
        if erasure.field is None:
            user = erasure.message.user_id
            key = self._servers.generations.first.encode()
            subject = hmac.digest(key, f"user_id:{user}".encode(), hashlib.sha256)
            asked = ("erase-user", None, None, subject)
            [erasure.entry] = broker.execute(ASK, asked).fetchone()
            erased, _shared, rows = broker.execute(
                ERASE_USER, (erasure.entry, user, *choice)
            ).fetchone()
            erasure.tokens, erasure.rows = erased, rows
        else:
            token = self._token(broker, erasure)
            asked = ("erase", erasure.field, bytes.fromhex(token), None)
            [erasure.entry] = broker.execute(ASK, asked).fetchone()
            _erased, erasure.rows = broker.execute(ERASE, (erasure.entry, *choice)).fetchone()
            erasure.tokens = [token]
        erasure.answered = True

    def _token(self, broker: psycopg.Connection, erasure: Erasure) -> str:
        """Return the token of the value by the accepted salt."""
        generations = self._servers.generations
        [accepted] = broker.execute("SELECT vault_salt()").fetchone()
        tokens = generations.tokens(erasure.field, erasure.message.values[erasure.field])
        return tokens[generations.fingerprints().index(accepted)]

    def _kill(self, erasure: Erasure) -> None:
        if erasure.pid is None:
            return
        try:
            self._servers.execute(f"SELECT pg_terminate_backend({erasure.pid})")
        except (psycopg.OperationalError, errors.InsufficientResources):
            return
