"""A model of SQS and its event-source mapping, which records the history of every message.

It does what SQS may do: it redelivers a message whose visibility timeout has passed, even while the
first delivery is being processed; it regroups redelivered messages; it puts a message into a batch
twice; it sometimes ignores a receipt handle that is not the newest.

It differs from SQS in one point. It moves a message to the dead-letter queue after a number of
failure reports, not of deliveries. So an outage moves no good message there, and a good message
that is there shows a defect of the function. So does a good message that was reported, unless the
function logged that its time ran out: `verification` compares the two.
"""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torture.messages import Message, Messages, State

MAX_REPORTS = 3
# At this number of messages in a queue, no more are sent.
MAX_QUEUED = 1_000
MAX_QUEUED_FIFO = 100

# A well-formed batch may fail with error types that start with these.
EXPECTED_ERRORS = ("Database", "Secrets", "SaltChanged")
# Outcomes of invocations without an answer.
TIMED_OUT = "no answer in time"
ENDED = "process ended"


@dataclass(frozen=True)
class Answer:
    """A function's answer: the type of an error, or the ids of failed messages."""

    error_type: str | None = None
    failed_ids: tuple[str, ...] = ()


@dataclass(eq=False)
class Delivery:
    """A batch that was delivered to a function."""

    number: int
    function: str
    messages: list[Message]
    started: float
    active_faults: tuple[str, ...]
    outcome: str = "in progress"
    ended: float | None = None

    def event(self) -> dict[str, Any]:
        """Make the event that Lambda sends."""
        return {"Records": [message.record() for message in self.messages]}


@dataclass
class Violation:
    """Something that must not happen."""

    text: str
    message: Message | None = None


@dataclass
class History:
    """What happened to the messages of all queues."""

    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    messages: list[Message] = field(default_factory=list)
    batches: int = 0
    deliveries: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    irregularities: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    def now(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.started


class Queue:
    """A queue, standard or FIFO."""

    def __init__(
        self, source: Messages, history: History, rng: random.Random, *, fifo: bool
    ) -> None:
        """Start empty; `receive` sends new messages first, until the queue is closed."""
        self._source = source
        self._history = history
        self._rng = rng
        self._fifo = fifo
        self._queued: list[Message] = []
        self._in_flight: list[Delivery] = []
        self._max_queued = MAX_QUEUED_FIFO if fifo else MAX_QUEUED
        self.closed = False

    @property
    def empty(self) -> bool:
        """Whether every message is deleted or in the dead-letter queue."""
        self._queued = [message for message in self._queued if message.state is State.QUEUED]
        return not self._queued

    def receive(
        self, function: str, deadline_s: float, active_faults: tuple[str, ...]
    ) -> Delivery | None:
        """Receive a batch of visible messages, which become invisible for a time."""
        rng, now = self._rng, self._history.now()
        # A FIFO batch has at most 10 messages.
        large = not self._fifo and rng.random() < 0.02
        size = rng.randint(250, 600) if large else rng.randint(1, 10)
        duplicate = not self._fifo and rng.random() < 0.1
        if self._in_flight and rng.random() < 0.2:
            # Redelivers these while a function is still processing them.
            for message in rng.choice(self._in_flight).messages:
                message.visible_at = now
        if not self.closed and len(self._queued) < self._max_queued:
            self._send(size)
        batch = self._visible(now)[:size]
        if not batch:
            return None
        for message in batch:
            if message.in_flight:
                self._history.irregularities["delivered while another function processed it"] += 1
            elif message.deliveries:
                self._history.irregularities["delivered again"] += 1
            message.visible_at = now + deadline_s + 1
        if duplicate:
            batch.insert(rng.randrange(len(batch)), rng.choice(batch))
            self._history.irregularities["twice in one batch"] += 1
        self._history.batches += 1
        self._history.deliveries += len(batch)
        delivery = Delivery(self._history.batches, function, batch, now, active_faults)
        for message in dict.fromkeys(batch):
            message.deliveries.append(delivery)
        self._in_flight.append(delivery)
        return delivery

    def settle(self, delivery: Delivery, answer: Answer) -> None:
        """Apply an answer: delete written messages, and make failed ones visible again."""
        now = delivery.ended = self._history.now()
        self._in_flight.remove(delivery)
        delivery.outcome = answer.error_type or f"{len(answer.failed_ids)} failed"
        self._history.outcomes[answer.error_type or "answered"] += 1
        messages = list(dict.fromkeys(delivery.messages))
        if answer.error_type is not None:
            if not answer.error_type.startswith((*EXPECTED_ERRORS, TIMED_OUT, ENDED)):
                self._history.violations.append(Violation(f"a batch failed: {answer.error_type}"))
            for message in messages:
                message.visible_at = now + self._rng.uniform(0, 0.5)
            return
        self._check_answer(messages, answer.failed_ids)
        failed, failed_groups = set(answer.failed_ids), set()
        for message in messages:
            if message.id in failed:
                # A message that is held back has not failed itself.
                if message.group is None or message.group not in failed_groups:
                    if message.kind.fails:
                        message.reports += 1
                    else:
                        message.unexpected_reports += 1
                failed_groups.add(message.group)
                message.visible_at = now + self._rng.uniform(0, 0.5)
                if message.reports >= MAX_REPORTS and message.state is State.QUEUED:
                    message.state = State.DEAD
            elif message.deliveries[-1] is not delivery and self._rng.random() < 0.5:
                self._history.irregularities["not deleted: the receipt handle was old"] += 1
            elif message.state is State.QUEUED:
                message.state = State.DELETED
                message.deleted_at = now

    def _send(self, count: int) -> None:
        sent = [self._source.make(fifo=self._fifo) for _ in range(count)]
        self._queued += sent
        self._history.messages += sent

    def _visible(self, now: float) -> list[Message]:
        """Return the messages that may be delivered; an invisible one blocks its FIFO group."""
        if self.empty:
            return []
        if not self._fifo:
            visible = [message for message in self._queued if message.visible_at <= now]
            self._rng.shuffle(visible)
            return sorted(visible, key=lambda message: not message.in_flight)
        visible, waiting_groups = [], set()
        for message in self._queued:
            if message.visible_at > now:
                waiting_groups.add(message.group)
            elif message.group not in waiting_groups:
                visible.append(message)
        return visible

    def _check_answer(self, messages: list[Message], failed_ids: tuple[str, ...]) -> None:
        """Check that an answer reports exactly the messages that failed."""
        violations = self._history.violations
        failed = set(failed_ids)
        if failed - {message.id for message in messages}:
            violations.append(Violation("an id that is not in the batch was reported"))
        if len(failed) < len(failed_ids):
            violations.append(Violation("an id was reported twice in one answer"))
        failed_groups = set()
        for message in messages:
            if message.id in failed:
                failed_groups.add(message.group)
            elif message.group is not None and message.group in failed_groups:
                text = "a message was written after a failed one of its FIFO group"
                violations.append(Violation(text, message))
            elif message.kind.fails:
                violations.append(Violation("a bad message was not reported", message))
