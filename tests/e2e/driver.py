"""What a test does with the running system: invoke, send, read, and remember what it showed it."""

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

PATIENCE_S = 60


@dataclass
class Driver:
    """The system under test, and every raw value that it was ever shown."""

    system: LocalSystem
    shown: set[str] = field(default_factory=set)
    # What X-Ray was told.
    traces: list[str] = field(default_factory=list)
    # What was logged before is of other tests.
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def salt(self) -> str:
        """The salt of the deployed stack."""
        return stack.salt(self.system.emulator, self.system.stack)

    def logged(self) -> Iterator[str]:
        """Read the lines that the test's own batches logged."""
        for line in logs.lines(self.system.emulator, self.system.stack):
            timestamp = logs.fields(line).get("timestamp")
            if timestamp and datetime.fromisoformat(timestamp) >= self.began:
                yield line

    def configure(self, **changes: str) -> dict[str, str]:
        """Have the function start anew, with settings that may be others; return the old ones."""
        return function.configure(self.system.emulator, self.system.stack, **changes)

    def invoke(self, *records: dict[str, Any]) -> dict[str, Any]:
        """Invoke the function with a batch, and return its whole answer."""
        return self.invoke_with({"Records": records})

    def invoke_file(self, file: Path) -> dict[str, Any]:
        """Invoke the function with an event file."""
        return self.invoke_with(json.loads(file.read_text()))

    def invoke_with(self, event: dict[str, Any]) -> dict[str, Any]:
        """Invoke the function with any event; of an error, return no more than its stable type."""
        payload = json.dumps(event)
        self.shown |= raw_values(payload)
        answer = self.system.emulator.client("lambda").invoke(
            FunctionName=self.system.stack.function, Payload=payload
        )
        result = json.load(answer["Payload"])
        return {"errorType": result["errorType"]} if "FunctionError" in answer else result

    def send(self, *bodies: str) -> list[str]:
        """Send messages to the queue, and return their ids."""
        self.shown.update(*map(raw_values, bodies))
        sent = stack.send(self.system.emulator, self.system.stack.queue_url, list(bodies))
        return [message_id for ids in sent for message_id in ids]

    def dead_letters(self) -> list[dict[str, Any]]:
        """Read the dead-letter queue."""
        return stack.peek(self.system.emulator, self.system.stack.dead_letter_queue_url)

    def redrive(self) -> None:
        """Move dead letters back, as an operator does on AWS; there the messages get new ids."""
        sqs = self.system.emulator.client("sqs")
        queue_url = self.system.stack.dead_letter_queue_url
        if Feature.REDRIVES in self.system.emulator.kind.features:
            queue = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])
            sqs.start_message_move_task(SourceArn=queue["Attributes"]["QueueArn"])
        else:
            self.send(*(letter["Body"] for letter in self.dead_letters()))
            sqs.purge_queue(QueueUrl=queue_url)

    def reason(self, message_id: str) -> str:
        """Tell why a message failed, as logged; a log may come a little late."""

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
        """Read the whole table, in the order of the users."""
        return self.query("SELECT * FROM user_logins ORDER BY user_id")

    def users(self) -> list[str]:
        """Read whose logins were stored, in their order."""
        return [user for (user, *_) in self.rows()]

    def wait_for(self, rows: int = 0, dead_letters: int = 0) -> None:
        """Wait until so many rows and dead letters are there, and nothing is on its way."""
        emulator, deployed = self.system.emulator, self.system.stack

        def now() -> tuple[int, int, int]:
            waiting = stack.count(emulator, deployed.queue_url)
            dead = stack.count(emulator, deployed.dead_letter_queue_url)
            return len(self.rows()), dead, waiting

        wait_until(lambda: now() == (rows, dead_letters, 0), now)


def wait_until(
    condition: Callable[[], bool], state: Callable[[], object], patience_s: float = PATIENCE_S
) -> None:
    """Wait for something that is bound to happen; if it does not, say what happened instead."""
    deadline = monotonic() + patience_s
    while not condition():
        assert monotonic() < deadline, f"after {patience_s} s: {state()}"
        sleep(0.2)
