"""A model of SQS and its event-source mapping. It keeps the books.

It is as unkind as the real one may be: it delivers a message again when its visibility timeout has
passed, and that may be while the first delivery is still at work; it regroups what it redelivers;
it puts a message into one batch twice; it does not always heed a receipt handle that is no longer
the newest.

In one thing it is kinder. A message goes to the dead letters when it was reported so many times,
not when it was received so many times: so an outage cannot bring good messages there, and that a
good one is there, or was reported at all, is the function's fault.
"""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torture.messages import Kind, Message, Messages, State

MAX_REPORTS = 3
# When so many messages are in the queue, no more are sent.
MOST_QUEUED = 1_000
MOST_QUEUED_FIFO = 100

# What an invocation may fail with, as long as its batch is well formed.
EXPECTED = ("Database", "Secrets", "SaltChanged")
# What an invocation came to that the function did not say itself.
TIMED_OUT = "no answer in time"
GONE = "process gone"


@dataclass(frozen=True)
class Answer:
    """What a function said: an error's type, or the ids of the messages that failed."""

    error_type: str | None = None
    failed_ids: tuple[str, ...] = ()


@dataclass(eq=False)
class Delivery:
    """A batch on its way through a function."""

    number: int
    function: str
    messages: list[Message]
    started: float
    trouble: tuple[str, ...]
    outcome: str = "under way"
    ended: float | None = None

    def event(self) -> dict[str, Any]:
        """Write the event as Lambda sends it."""
        return {"Records": [message.record() for message in self.messages]}


@dataclass
class Violation:
    """Something that must not be."""

    what: str
    message: Message | None = None


@dataclass
class Books:
    """What happened in all, whichever queue it was."""

    started: float = field(default_factory=time.monotonic)
    ended: float = 0.0
    messages: list[Message] = field(default_factory=list)
    batches: int = 0
    deliveries: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    unkind: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    def now(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self.started


class Queue:
    """A queue, standard or FIFO."""

    def __init__(self, source: Messages, books: Books, dice: random.Random, *, fifo: bool) -> None:
        """Begin empty; what is received is sent first, until the queue is closed."""
        self._source = source
        self._books = books
        self._dice = dice
        self._fifo = fifo
        self._queued: list[Message] = []
        self._in_flight: list[Delivery] = []
        self._most_queued = MOST_QUEUED_FIFO if fifo else MOST_QUEUED
        self.closed = False

    @property
    def empty(self) -> bool:
        """Whether every message is deleted or in the dead letters."""
        self._queued = [one for one in self._queued if one.state is State.QUEUED]
        return not self._queued

    def receive(
        self, function: str, deadline_s: float, trouble: tuple[str, ...]
    ) -> Delivery | None:
        """Take a batch of messages that are visible, and hide them for a while."""
        dice, now = self._dice, self._books.now()
        # The most of a FIFO batch are ten.
        large = not self._fifo and dice.random() < 0.02
        size = dice.randint(250, 600) if large else dice.randint(1, 10)
        doubled = not self._fifo and dice.random() < 0.1
        if self._in_flight and dice.random() < 0.2:
            # Too early: somebody is still at work on these.
            for message in dice.choice(self._in_flight).messages:
                message.visible_at = now
        if not self.closed and len(self._queued) < self._most_queued:
            self._send(size)
        batch = self._visible(now)[:size]
        if not batch:
            return None
        for message in batch:
            if message.in_flight:
                self._books.unkind["delivered while another function had it"] += 1
            elif message.deliveries:
                self._books.unkind["delivered again"] += 1
            message.visible_at = now + deadline_s + 1
        if doubled:
            batch.insert(dice.randrange(len(batch)), dice.choice(batch))
            self._books.unkind["twice in one batch"] += 1
        self._books.batches += 1
        self._books.deliveries += len(batch)
        delivery = Delivery(self._books.batches, function, batch, now, trouble)
        for message in dict.fromkeys(batch):
            message.deliveries.append(delivery)
        self._in_flight.append(delivery)
        return delivery

    def settle(self, delivery: Delivery, answer: Answer) -> None:
        """Delete what was done, and return to the queue what was not."""
        now = delivery.ended = self._books.now()
        self._in_flight.remove(delivery)
        delivery.outcome = answer.error_type or f"{len(answer.failed_ids)} failed"
        self._books.outcomes[answer.error_type or "answered"] += 1
        messages = list(dict.fromkeys(delivery.messages))
        if answer.error_type is not None:
            if not answer.error_type.startswith((*EXPECTED, TIMED_OUT, GONE)):
                self._books.violations.append(Violation(f"a batch failed: {answer.error_type}"))
            for message in messages:
                message.visible_at = now + self._dice.uniform(0, 0.5)
            return
        self._examine(messages, answer.failed_ids)
        failed, failed_groups = set(answer.failed_ids), set()
        for message in messages:
            if message.id in failed:
                # One that is held back has not failed itself.
                if message.group is None or message.group not in failed_groups:
                    message.reports += 1
                failed_groups.add(message.group)
                message.visible_at = now + self._dice.uniform(0, 0.5)
                if message.reports >= MAX_REPORTS and message.state is State.QUEUED:
                    message.state = State.DEAD
            elif message.deliveries[-1] is not delivery and self._dice.random() < 0.5:
                self._books.unkind["not deleted, by an old receipt handle"] += 1
            elif message.state is State.QUEUED:
                message.state = State.DELETED

    def _send(self, count: int) -> None:
        sent = [self._source.make(fifo=self._fifo) for _ in range(count)]
        self._queued += sent
        self._books.messages += sent

    def _visible(self, now: float) -> list[Message]:
        """List what may be delivered, in any order; of a FIFO group, the first messages."""
        if self.empty:
            return []
        if not self._fifo:
            visible = [message for message in self._queued if message.visible_at <= now]
            self._dice.shuffle(visible)
            return sorted(visible, key=lambda message: not message.in_flight)
        visible, waiting_groups = [], set()
        for message in self._queued:
            if message.visible_at > now:
                waiting_groups.add(message.group)
            elif message.group not in waiting_groups:
                visible.append(message)
        return visible

    def _examine(self, messages: list[Message], failed_ids: tuple[str, ...]) -> None:
        """Judge the answer by itself: whether it reports what it must, and nothing else."""
        violations = self._books.violations
        failed = set(failed_ids)
        if failed - {message.id for message in messages}:
            violations.append(Violation("an id was reported that was not in the batch"))
        if len(failed) < len(failed_ids):
            violations.append(Violation("an id was reported twice in one answer"))
        failed_groups = set()
        for message in messages:
            held_back = message.group is not None and message.group in failed_groups
            if message.id in failed:
                failed_groups.add(message.group)
                if message.kind is Kind.GOOD and not held_back:
                    violations.append(Violation("a good message was reported", message))
            elif held_back:
                what = "a message overtook a failed one of its group"
                violations.append(Violation(what, message))
            elif message.kind is not Kind.GOOD:
                violations.append(Violation("a bad message was not reported", message))
