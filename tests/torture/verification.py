"""Compares the history with the table, the ledger and the logs."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from dev.logins import encodings
from torture import functions
from torture.messages import DEVICE_ID, IP, USER_ID, Kind, Message, State
from torture.proxied_servers import SECRET, ProxiedServers
from torture.sqs import History, Violation

# Logs are searched in blocks of this many bytes.
BLOCK = 1 << 24
BATCH_DONE = '"message":"batch done"'
LEDGERS = ("processed_messages", "processed_fifo_messages")
MESSAGE_FAILED = '"message":"message failed"'
OUT_OF_TIME = '"reason":"OutOfTime"'
PANICKED = '"message":"panicked"'


@dataclass
class Findings:
    """The violations, and what was searched."""

    lost: list[Violation] = field(default_factory=list)
    duplicated: list[Violation] = field(default_factory=list)
    leaked: list[Violation] = field(default_factory=list)
    other: list[Violation] = field(default_factory=list)
    rows: int = 0
    dead: int = 0
    searched_bytes: int = 0
    # Rows that no function logged as written: the answer to the commit was lost.
    unconfirmed: int = 0

    @property
    def violations(self) -> list[Violation]:
        """All violations."""
        return [*self.lost, *self.duplicated, *self.leaked, *self.other]

    def __str__(self) -> str:
        """Write the numbers of violations in one line."""
        lost, duplicated, leaked = map(len, (self.lost, self.duplicated, self.leaked))
        line = f"{lost} lost, {duplicated} duplicated, {leaked} leaked"
        return f"{line}, {len(self.other)} other violations" if self.other else line


def verify(servers: ProxiedServers, history: History) -> Findings:
    """Compare and search everything, after the last session of a function has ended."""
    findings = Findings(other=list(history.violations))
    _compare(servers, history, findings)
    out_of_time = _read_logs(findings)
    for message in history.messages:
        if message.unexpected_reports > out_of_time[message.id]:
            findings.other.append(Violation("a good message was reported", message))
    _search(servers, findings)
    return findings


def _compare(servers: ProxiedServers, history: History, findings: Findings) -> None:
    """Compare every message with the table and the ledger."""
    rows = defaultdict(list)
    for row in servers.query("SELECT * FROM user_logins"):
        rows[row[0]].append(row)
        findings.rows += 1
    ledger, fifo_ledger = (_ledger(servers, name) for name in LEDGERS)
    for message in history.messages:
        own_rows, own_entries = rows.pop(message.user_id, []), ledger.pop(message.id, 0)
        _compare_message(message, own_rows, own_entries, findings)
        expected = own_entries if message.group is not None else 0
        if fifo_ledger.pop(message.id, 0) != expected:
            findings.other.append(Violation("the ledgers differ", message))
    if rows:
        findings.other.append(Violation(f"{len(rows)} users have rows, but no message"))
    if ledger or fifo_ledger:
        number = len(ledger) + len(fifo_ledger)
        findings.other.append(Violation(f"{number} ledger entries have no message"))
    findings.dead = sum(message.state is State.DEAD for message in history.messages)


def _ledger(servers: ProxiedServers, name: str) -> Counter[str]:
    """Count the entries of each message in a ledger."""
    entries = servers.query(f"SELECT message_id FROM {name}")
    return Counter(str(message_id) for (message_id,) in entries)


def _compare_message(message: Message, rows: list[tuple], entries: int, findings: Findings) -> None:
    """Compare one message with its rows and its entries in the ledger."""
    good = message.kind is Kind.GOOD
    if message.state is State.QUEUED:
        findings.lost.append(Violation("still in the queue", message))
    elif message.state is not (State.DEAD if message.kind.fails else State.DELETED):
        findings.lost.append(Violation(f"{message.kind}, but {message.state}", message))
    elif good and not rows:
        findings.lost.append(Violation("deleted, but has no row", message))
    if len(rows) > 1:
        findings.duplicated.append(Violation(f"has {len(rows)} rows", message))
    if rows and not good:
        findings.other.append(Violation(f"{message.kind}, but has a row", message))
    if good and any(row != message.row for row in rows):
        findings.other.append(Violation("has a row with wrong values", message))
    if entries != (0 if message.kind.fails else 1):
        text = f"{entries} entries in the ledger, {len(rows)} rows"
        findings.other.append(Violation(text, message))


def _read_logs(findings: Findings) -> Counter[str]:
    """Count the rows that functions logged as written, and find panics.

    Return how often the time of each message ran out.
    """
    findings.unconfirmed = findings.rows
    out_of_time: Counter[str] = Counter()
    for log in functions.LOGS.glob("*.log"):
        for line in log.open(errors="replace"):
            if BATCH_DONE in line:
                findings.unconfirmed -= json.loads(line)["written"]
            elif PANICKED in line:
                findings.other.append(Violation(f"a panic in {log}"))
            elif MESSAGE_FAILED in line and OUT_OF_TIME in line:
                out_of_time[json.loads(line)["message_id"]] += 1
    return out_of_time


def _search(servers: ProxiedServers, findings: Findings) -> None:
    """Search logs, answers and the server's files for raw values and secrets."""
    needles = {"a secret": SECRET, "a raw address": IP, "a raw device id": DEVICE_ID}
    # User ids are stored unmasked, so Postgres may log them with its statements.
    _search_file(servers.services.postgres.log, needles, findings)
    # Tables, the write-ahead log, temporary files and core dumps.
    for file in servers.services.postgres.directory.rglob("*"):
        if file.is_file():
            _search_file(file, needles, findings)
    for log in functions.LOGS.iterdir():
        _search_file(log, needles | {"a user id": USER_ID}, findings)


def _search_file(log: Path, needles: dict[str, str], findings: Findings) -> None:
    with log.open("rb") as file:
        while lines := file.readlines(BLOCK):
            findings.searched_bytes += sum(map(len, lines))
            block = b"".join(lines)
            for name, text in needles.items():
                if any(form.encode() in block for form in encodings(text)):
                    findings.leaked.append(Violation(f"{name} in {log}, before byte {file.tell()}"))
