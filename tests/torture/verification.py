"""Compares the history with the table, the ledger, the vault and the logs."""

import base64
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from dev.logins import encodings
from torture import cores, functions, migrate, vault
from torture.erasures import Erasure
from torture.messages import DEVICE_ID, IP, USER_ID, Kind, Message, State
from torture.proxied_servers import SECRET, ProxiedServers
from torture.sqs import History, Violation
from torture.vault import Contents
from torture.vault_verification import COLUMNS, Knowledge, VaultFindings

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
    mixed: list[Violation] = field(default_factory=list)
    other: list[Violation] = field(default_factory=list)
    vault: VaultFindings = field(default_factory=VaultFindings)
    rows: int = 0
    dead: int = 0
    searched_bytes: int = 0
    # Rows that no function logged as written: the answer to the commit was lost.
    unconfirmed: int = 0

    @property
    def violations(self) -> list[Violation]:
        """All violations."""
        return [*self.lost, *self.duplicated, *self.leaked, *self.mixed, *self.other]

    def __str__(self) -> str:
        """Write the numbers of violations in one line."""
        lost, duplicated, leaked = map(len, (self.lost, self.duplicated, self.leaked))
        line = f"{lost} lost, {duplicated} duplicated, {leaked} leaked, {len(self.mixed)} mixed"
        return f"{line}, {len(self.other)} other violations" if self.other else line


def verify(
    servers: ProxiedServers, history: History, erasures: list[Erasure], before: Contents
) -> Findings:
    """Compare and search everything, after the last session of a function has ended.

    `before` is what the vault had before the last fold.
    """
    findings = Findings(other=list(history.violations))
    knowledge = Knowledge(servers, history, erasures)
    tokens_of_rows = _compare(servers, history, knowledge, findings)
    _compare_vault(servers, knowledge, before, tokens_of_rows)
    findings.vault = knowledge.findings
    for name in ("lost", "leaked", "mixed", "other"):
        getattr(findings, name).extend(getattr(knowledge.findings, name))
    out_of_time = _read_logs(findings)
    for message in history.messages:
        if message.unexpected_reports > out_of_time[message.id]:
            findings.other.append(Violation("a good message was reported", message))
    _search(servers, findings)
    return findings


def _compare(
    servers: ProxiedServers, history: History, knowledge: Knowledge, findings: Findings
) -> set[str]:
    """Compare every message with the table and the ledger; return the tokens of the table."""
    rows = defaultdict(list)
    for row in servers.query("SELECT * FROM user_logins"):
        rows[row[0]].append(row)
        findings.rows += 1
    ledger, fifo_ledger = (_ledger(servers, name) for name in LEDGERS)
    for message in history.messages:
        own_rows, own_entries = rows.pop(message.user_id, []), ledger.pop(message.id, 0)
        _compare_message(message, own_rows, own_entries, findings)
        if message.kind is Kind.GOOD:
            for row in own_rows:
                knowledge.check_row(message, row)
        expected = own_entries if message.group is not None else 0
        if fifo_ledger.pop(message.id, 0) != expected:
            findings.other.append(Violation("the ledgers differ", message))
    if rows:
        findings.other.append(Violation(f"{len(rows)} users have rows, but no message"))
    if ledger or fifo_ledger:
        number = len(ledger) + len(fifo_ledger)
        findings.other.append(Violation(f"{number} ledger entries have no message"))
    findings.dead = sum(message.state is State.DEAD for message in history.messages)
    unnest = f"SELECT DISTINCT unnest(ARRAY[{', '.join(COLUMNS)}]) FROM user_logins"
    return {token for (token,) in servers.query(unnest) if token is not None}


def _compare_vault(
    servers: ProxiedServers, knowledge: Knowledge, before: Contents, tokens_of_rows: set[str]
) -> None:
    """Compare the vault, before and after the last fold."""
    findings = knowledge.findings
    with servers.connect() as owner:
        witness = vault.read_witness(owner)
        written = vault.read_written(owner)
        after = vault.read(owner)
    knowledge.check_witness(witness, written)
    knowledge.check_erased(after)
    knowledge.check_contents(servers.vault, before, witness, tokens_of_rows)
    findings.in_inbox, findings.sealed_again = len(before.inbox), 0
    knowledge.check_contents(servers.vault, after, witness, tokens_of_rows)
    findings.sealed = len(after.sealed)
    if after.inbox:
        findings.other.append(Violation("the last fold left values in the inbox"))


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
    texts = {"a secret": SECRET, "a raw address": IP, "a raw device id": DEVICE_ID}
    needles = {name: [form.encode() for form in encodings(text)] for name, text in texts.items()}
    private = servers.vault.private_bytes
    needles["the private key"] = [private, private.hex().encode(), base64.b64encode(private)[:40]]
    user_id = {"a user id": [form.encode() for form in encodings(USER_ID)]}
    # User ids are stored unmasked, so Postgres may log them with its statements.
    _search_file(servers.services.postgres.log, needles, findings)
    # Otherwise only the write-ahead log may have the newest rows.
    servers.execute("CHECKPOINT")
    # Tables, the write-ahead log, temporary files and core dumps.
    in_clear = False
    for file in servers.services.postgres.directory.rglob("*"):
        if file.is_file():
            in_clear |= _search_file(file, needles, findings, expected=USER_ID.encode())
    if not in_clear:
        text = "no file of Postgres has a user id, which is not masked: the search finds nothing"
        findings.other.append(Violation(text))
    _search_tables(servers, needles | user_id, findings)
    for file in cores.files():
        findings.leaked.append(Violation(f"a core file: {file}"))
    for directory in (functions.LOGS, migrate.LOGS, cores.WORKING):
        for file in directory.iterdir():
            _search_file(file, needles | user_id, findings)


def _search_tables(
    servers: ProxiedServers, needles: dict[str, list[bytes]], findings: Findings
) -> None:
    """Search the tables of the vault, which do not have user ids either."""
    tables = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE 'vault\\_%'"
    with servers.connect() as owner:
        for (table,) in owner.execute(tables).fetchall():
            with owner.cursor().copy(f"COPY {table} TO STDOUT (FORMAT binary)") as copy:
                content = b"".join(copy)
            _search_block(content, f"the table {table}", needles, findings)


def _search_file(
    file: Path, needles: dict[str, list[bytes]], findings: Findings, expected: bytes = b""
) -> bool:
    """Search a file; return whether it has the expected bytes."""
    found = False
    with file.open("rb") as opened:
        while lines := opened.readlines(BLOCK):
            block = b"".join(lines)
            _search_block(block, f"{file}, before byte {opened.tell()}", needles, findings)
            found = found or expected in block
    return found


def _search_block(
    block: bytes, place: str, needles: dict[str, list[bytes]], findings: Findings
) -> None:
    findings.searched_bytes += len(block)
    for name, forms in needles.items():
        if any(form in block for form in forms):
            findings.leaked.append(Violation(f"{name} in {place}"))
