"""The verdict: compares the books with the table, the ledger and the logs."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from dev.logins import disguises
from torture import functions
from torture.messages import DEVICE_ID, IP, USER_ID, Kind, Message, State
from torture.proxied_servers import SECRET, ProxiedServers
from torture.sqs import Books, Violation

# As much of a log is searched at a time.
BLOCK = 1 << 24
BATCH_DONE = '"message":"batch done"'
PANICKED = '"message":"panicked"'


@dataclass
class Verdict:
    """What was found in the end."""

    lost: list[Violation] = field(default_factory=list)
    doubled: list[Violation] = field(default_factory=list)
    leaked: list[Violation] = field(default_factory=list)
    other: list[Violation] = field(default_factory=list)
    rows: int = 0
    dead: int = 0
    searched_bytes: int = 0
    # Rows that no function knows to have written: the answer to their commit was lost.
    unknown: int = 0

    @property
    def violations(self) -> list[Violation]:
        """All that must not be."""
        return [*self.lost, *self.doubled, *self.leaked, *self.other]

    def __str__(self) -> str:
        """Write it in one line."""
        line = f"{len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.leaked)} leaked"
        return f"{line}, {len(self.other)} otherwise wrong" if self.other else line


def reach(servers: ProxiedServers, books: Books) -> Verdict:
    """Compare everything, when nothing moves any more."""
    servers.wait_for_writers()
    verdict = Verdict(other=list(books.violations))
    _compare(servers, books, verdict)
    _read_logs(verdict)
    _search(servers, verdict)
    return verdict


def _compare(servers: ProxiedServers, books: Books, verdict: Verdict) -> None:
    """Compare every message with the table and the ledger."""
    rows = defaultdict(list)
    for row in servers.query("SELECT * FROM user_logins"):
        rows[row[0]].append(row)
        verdict.rows += 1
    entries = servers.query("SELECT message_id FROM processed_messages")
    ledger = Counter(str(message_id) for (message_id,) in entries)
    for message in books.messages:
        _judge(message, rows.pop(message.user_id, []), ledger.pop(message.id, 0), verdict)
    if rows:
        verdict.other.append(Violation(f"{len(rows)} users have rows that nobody sent"))
    if ledger:
        verdict.other.append(Violation(f"the ledger has {len(ledger)} entries that nobody sent"))
    verdict.dead = sum(message.state is State.DEAD for message in books.messages)


def _judge(message: Message, rows: list[tuple], entries: int, verdict: Verdict) -> None:
    """Compare one message with its rows and its entries in the ledger."""
    good = message.kind is Kind.GOOD
    if message.state is State.QUEUED:
        verdict.lost.append(Violation("still in the queue", message))
    elif message.state is not (State.DELETED if good else State.DEAD):
        verdict.lost.append(Violation(f"{message.kind}, and yet {message.state}", message))
    elif good and not rows:
        verdict.lost.append(Violation("deleted, and has no row", message))
    if len(rows) > 1:
        verdict.doubled.append(Violation(f"has {len(rows)} rows", message))
    if rows and not good:
        verdict.other.append(Violation(f"{message.kind}, and has a row", message))
    if good and any(row != message.row for row in rows):
        verdict.other.append(Violation("has a row that is not its own", message))
    if entries != len(rows):
        what = f"{entries} entries in the ledger, {len(rows)} rows"
        verdict.other.append(Violation(what, message))


def _read_logs(verdict: Verdict) -> None:
    """Read what the functions know to have written, and whether they panicked."""
    verdict.unknown = verdict.rows
    for log in functions.LOGS.glob("*.log"):
        for line in log.open(errors="replace"):
            if BATCH_DONE in line:
                verdict.unknown -= json.loads(line)["written"]
            elif PANICKED in line:
                verdict.other.append(Violation(f"a panic in {log}"))


def _search(servers: ProxiedServers, verdict: Verdict) -> None:
    """Search all that was logged, answered or left in a file for raw values and secrets."""
    needles = {"a secret": SECRET, "a raw address": IP, "a raw device id": DEVICE_ID}
    # A user's id is stored as it is, so Postgres may say it where it logs statements.
    _search_file(servers.services.postgres.log, needles, verdict)
    # Tables, its own log of changes, temporary files, and cores if it left any.
    for file in servers.services.postgres.directory.rglob("*"):
        if file.is_file():
            _search_file(file, needles, verdict)
    for log in functions.LOGS.iterdir():
        _search_file(log, needles | {"a user id": USER_ID}, verdict)


def _search_file(log: Path, needles: dict[str, str], verdict: Verdict) -> None:
    with log.open("rb") as file:
        while lines := file.readlines(BLOCK):
            verdict.searched_bytes += sum(map(len, lines))
            block = b"".join(lines)
            for what, text in needles.items():
                if any(form.encode() in block for form in disguises(text)):
                    verdict.leaked.append(Violation(f"{what} in {log}, before byte {file.tell()}"))
