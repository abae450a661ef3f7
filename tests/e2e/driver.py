"""The test driver: sends messages to the system under test, invokes it, and reads the results."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from dev import logs, stack
from dev.emulator import Feature
from dev.local_system import LocalSystem
from dev.logins import raw_values
from e2e import function

TIMEOUT_S = 60


@dataclass
class Driver:
    """Drives the system under test, and records every raw value that was sent to it."""

    system: LocalSystem
    sent_values: set[str] = field(default_factory=set)
    # The datagrams that X-Ray's daemon received.
    traces: list[str] = field(default_factory=list)
    # Earlier log lines belong to other tests.
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def salt(self) -> str:
        """The salt of the deployed stack."""
        return stack.salt(self.system.emulator, self.system.stack)

    def log_lines(self) -> Iterator[str]:
        """Read the log lines of this test."""
        for line in logs.lines(self.system.emulator, self.system.stack):
            timestamp = logs.fields(line).get("timestamp")
            if timestamp and datetime.fromisoformat(timestamp) >= self.started_at:
                yield line

    def configure(self, **changes: str) -> dict[str, str]:
        """Change the function's settings, which restarts it; return the old settings."""
        return function.configure(self.system.emulator, self.system.stack, **changes)

    def invoke(self, *records: dict[str, Any]) -> dict[str, Any]:
        """Invoke the function with a batch; return its answer."""
        return self.invoke_event({"Records": records})

    def invoke_file(self, file: Path) -> dict[str, Any]:
        """Invoke the function with an event file."""
        return self.invoke_event(json.loads(file.read_text()))

    def invoke_event(self, event: dict[str, Any]) -> dict[str, Any]:
        """Invoke the function with an event; return its answer, or only the type of an error."""
        payload = json.dumps(event)
        self.sent_values |= raw_values(payload)
        answer = self.system.emulator.client("lambda").invoke(
            FunctionName=self.system.stack.function, Payload=payload
        )
        result = json.load(answer["Payload"])
        return {"errorType": result["errorType"]} if "FunctionError" in answer else result

    def send(self, *bodies: str) -> list[str]:
        """Send messages to the queue; return their ids."""
        self.sent_values.update(*map(raw_values, bodies))
        sent = stack.send(self.system.emulator, self.system.stack.queue_url, list(bodies))
        return [message_id for ids in sent for message_id in ids]

    def dead_letters(self) -> list[dict[str, Any]]:
        """Read the dead-letter queue."""
        return stack.peek(self.system.emulator, self.system.stack.dead_letter_queue_url)

    def redrive(self) -> None:
        """Move dead letters back to the queue; on AWS the messages get new ids, too."""
        sqs = self.system.emulator.client("sqs")
        queue_url = self.system.stack.dead_letter_queue_url
        if Feature.REDRIVES in self.system.emulator.kind.features:
            queue = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
            sqs.start_message_move_task(SourceArn=queue["Attributes"]["QueueArn"])
        else:
            self.send(*(letter["Body"] for letter in self.dead_letters()))
            sqs.purge_queue(QueueUrl=queue_url)

    def reason(self, message_id: str) -> str:
        """Return the logged reason why a message failed; the log may arrive late."""

        def reasons() -> dict[str, str]:
            return logs.reasons(self.system.emulator, self.system.stack)

        wait_until(lambda: message_id in reasons(), reasons)
        return reasons()[message_id]

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Query the database as its owner."""
        with self.system.connect() as database:
            return database.execute(sql, values).fetchall()

    def execute(self, sql: str) -> None:
        """Change the database as its owner."""
        with self.system.connect() as database:
            database.execute(sql)

    def rows(self) -> list[tuple[Any, ...]]:
        """Read the table, ordered by user id."""
        return self.query("SELECT * FROM user_logins ORDER BY user_id")

    def users(self) -> list[str]:
        """Read the user ids in the table, in order."""
        return [user for (user, *_) in self.rows()]

    def wait_for(self, rows: int = 0, dead_letters: int = 0) -> None:
        """Wait until the queue is empty, with these numbers of rows and dead letters."""
        emulator, deployed = self.system.emulator, self.system.stack

        def now() -> tuple[int, int, int]:
            waiting = stack.count(emulator, deployed.queue_url)
            dead = stack.count(emulator, deployed.dead_letter_queue_url)
            return len(self.rows()), dead, waiting

        wait_until(lambda: now() == (rows, dead_letters, 0), now)


def wait_until(
    condition: Callable[[], bool], state: Callable[[], object], timeout_s: float = TIMEOUT_S
) -> None:
    """Wait for a condition; a timeout fails the test and shows the state."""
    deadline = monotonic() + timeout_s
    while not condition():
        assert monotonic() < deadline, f"after {timeout_s} s: {state()}"
        sleep(0.2)
