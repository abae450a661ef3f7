"""A discrete-event simulation of queue, readers, functions and database.

A reader is a process of Lambda's event-source mapping. It receives at most 10 messages at a time
until its batch is full or the batching window has passed, invokes the function, and waits for the
answer. The database's processors are shared equally by the batches that it works on.
"""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from dev.simulate.figures import FIGURES

# A longer run shows no other percentiles.
MESSAGES = 60_000
LEAST_S, MOST_S = 12, 300
WARM_UP_SHARE = 0.25
TICK_S = 0.005
# Below this mean, Poisson's distribution is not near to a normal one.
NORMAL_FROM = 50


@dataclass(frozen=True)
class Setup:
    """What a batch passes through. Functions of its size return seconds."""

    batch: int
    window_s: float
    readers: int
    max_readers: int
    receive_s: float
    invoke_s: float
    # Before the database works on the batch: nothing else is slowed down meanwhile.
    delay_s: Callable[[int], float]
    # Of the shared processors.
    work_s: Callable[[int], float]
    cores: float
    # How many processors a single batch can use.
    cores_of_batch: float = 1.0


@dataclass
class Outcome:
    """What was measured after the warm-up."""

    seconds: float
    written: int = 0
    batches: int = 0
    receives: int = 0
    received: int = 0
    busy_s: float = 0.0  # of invocations
    worked_s: float = 0.0  # of the shared processors
    max_in_flight: int = 0
    max_busy: int = 0
    waiting: int = 0  # more messages in the queue than at the end of the warm-up
    waits: list[tuple[float, int]] = field(default_factory=list)

    @property
    def written_s(self) -> float:
        """Messages a second."""
        return self.written / self.seconds

    @property
    def mean_batch(self) -> float:
        """Messages in a batch."""
        return self.written / max(self.batches, 1)

    @property
    def mean_receive(self) -> float:
        """Messages in a receive that returned any."""
        return self.received / max(self.receives, 1)

    @property
    def mean_busy_ms(self) -> float:
        """Duration of an invocation."""
        return 1000 * self.busy_s / max(self.batches, 1)

    @property
    def grows_s(self) -> float:
        """Messages a second by which the queue grows."""
        return self.waiting / self.seconds

    def wait_s(self, share: float) -> float:
        """Return the time from sending to commit that this share of messages does not exceed."""
        left = share * sum(number for _, number in self.waits)
        for wait, number in sorted(self.waits):
            left -= number
            if left <= 0:
                return wait
        return 0.0


@dataclass
class Reader:
    """A batch that is being received or written, as the numbers that arrived together."""

    arrived: list[tuple[float, int]] = field(default_factory=list)
    messages: int = 0
    started: float = 0.0  # its invocation
    number: int = 0  # of its batch


class Pipeline:
    """The state of a simulation."""

    def __init__(self, setup: Setup, warm_up_s: float, seconds: float) -> None:
        """Start with idle readers and an empty queue."""
        self.setup = setup
        self.warm_up_s, self.end_s = warm_up_s, warm_up_s + seconds
        self.outcome = Outcome(seconds)
        self.now = 0.0
        self.queue: deque[tuple[float, int]] = deque()
        self.queued = self.in_flight = self.busy = self.readers = 0
        self.idle: deque[tuple[Reader, int]] = deque()
        self.pool: list[tuple[float, int, Reader]] = []
        self.pool_time = 0.0  # the processors' time that each batch in the pool has got
        self.pool_at = 0.0
        self.pool_version = 0
        self.events: list[tuple[float, int, Callable[..., None], tuple]] = []
        self.order = count()

    def at(self, time: float, action: Callable[..., None], *arguments: object) -> None:
        """Call a function at a later time."""
        heapq.heappush(self.events, (time, next(self.order), action, arguments))

    def run(self, arrivals: Iterator[tuple[float, int]]) -> Outcome:
        """Simulate until the end, or until nothing happens any more."""
        for _ in range(self.setup.readers):
            self.add_reader()
        self.at(1.0, self.scale)
        self.at(self.warm_up_s, self.warmed_up)
        self.arrive_next(arrivals)
        while self.events and self.events[0][0] <= self.end_s:
            self.now, _, action, arguments = heapq.heappop(self.events)
            action(*arguments)
        self.outcome.waiting += self.queued
        return self.outcome

    @property
    def measured(self) -> bool:
        """Whether the warm-up is over."""
        return self.now >= self.warm_up_s

    def warmed_up(self) -> None:
        """Remember how many messages the queue holds."""
        self.outcome.waiting = -self.queued

    def arrive_next(self, arrivals: Iterator[tuple[float, int]]) -> None:
        """Schedule the next arrival."""
        if (arrival := next(arrivals, None)) is not None:
            self.at(arrival[0], self.arrive, arrivals, arrival[1])

    def arrive(self, arrivals: Iterator[tuple[float, int]], messages: int) -> None:
        """Put messages into the queue; the readers that wait for longest receive them."""
        if messages:
            self.queue.append((self.now, messages))
            self.queued += messages
        while self.idle and self.queued and self.in_flight < FIGURES.in_flight:
            reader, number = self.idle.popleft()
            if reader.number == number:
                self.receive(reader, number)
        self.arrive_next(arrivals)

    def add_reader(self) -> None:
        """Start one more process that reads batches."""
        self.readers += 1
        self.at(self.now, self.receive, Reader(), 0)

    def scale(self) -> None:
        """Start more readers while messages wait, as Lambda does."""
        if self.queued:
            more = FIGURES.more_readers_a_minute // 60
            for _ in range(min(more, self.setup.max_readers - self.readers)):
                self.add_reader()
        if self.readers < self.setup.max_readers:
            self.at(self.now + 1, self.scale)

    def receive(self, reader: Reader, number: int) -> None:
        """Take up to 10 messages, or wait for a message."""
        if reader.number != number:
            return
        taken = self.take(reader, min(FIGURES.receive_messages, self.setup.batch - reader.messages))
        if not taken:
            self.idle.append((reader, number))
            return
        if reader.messages == taken:
            self.at(self.now + self.setup.window_s, self.close, reader, number)
        if self.measured:
            self.outcome.receives += 1
            self.outcome.received += taken
        full = reader.messages == self.setup.batch
        self.at(
            self.now + self.setup.receive_s, self.close if full else self.receive, reader, number
        )

    def take(self, reader: Reader, most: int) -> int:
        """Move messages from the queue to a reader; return how many."""
        taken = 0
        most = min(most, FIGURES.in_flight - self.in_flight)
        while taken < most and self.queue:
            arrived, messages = self.queue.popleft()
            some = min(messages, most - taken)
            reader.arrived.append((arrived, some))
            taken += some
            if some < messages:
                self.queue.appendleft((arrived, messages - some))
        reader.messages += taken
        self.queued -= taken
        self.in_flight += taken
        self.outcome.max_in_flight = max(self.outcome.max_in_flight, self.in_flight)
        return taken

    def close(self, reader: Reader, number: int) -> None:
        """Invoke the function with the batch, which is full or has waited for the window."""
        if reader.number != number:
            return
        reader.number += 1
        reader.started = self.now + self.setup.invoke_s
        self.busy += 1
        self.outcome.max_busy = max(self.outcome.max_busy, self.busy)
        self.at(reader.started + self.setup.delay_s(reader.messages), self.enter, reader)

    def enter(self, reader: Reader) -> None:
        """Let the shared processors work on the batch too."""
        self.advance_pool()
        until = self.pool_time + self.setup.work_s(reader.messages)
        heapq.heappush(self.pool, (until, next(self.order), reader))
        self.schedule_pool()

    def leave(self, version: int) -> None:
        """Finish the batch that needs the least time, and let its reader start the next batch."""
        if version != self.pool_version:
            return
        self.advance_pool()
        _, _, reader = heapq.heappop(self.pool)
        self.schedule_pool()
        if self.measured:
            outcome = self.outcome
            outcome.written += reader.messages
            outcome.batches += 1
            outcome.busy_s += self.now - reader.started
            outcome.worked_s += self.setup.work_s(reader.messages)
            outcome.waits += [(self.now - arrived, number) for arrived, number in reader.arrived]
        self.busy -= 1
        self.in_flight -= reader.messages
        reader.arrived, reader.messages = [], 0
        self.receive(reader, reader.number)

    def pool_speed(self) -> float:
        """Return the processors that each batch in the pool uses."""
        return min(self.setup.cores_of_batch, self.setup.cores / len(self.pool))

    def advance_pool(self) -> None:
        """Give the batches in the pool the time that has passed since the last change."""
        if self.pool:
            self.pool_time += (self.now - self.pool_at) * self.pool_speed()
        self.pool_at = self.now

    def schedule_pool(self) -> None:
        """Schedule the end of the batch that needs the least time; forget an earlier schedule."""
        self.pool_version += 1
        if self.pool:
            left = max(0.0, self.pool[0][0] - self.pool_time)
            self.at(self.now + left / self.pool_speed(), self.leave, self.pool_version)


def simulate(setup: Setup, rate: float, seed: int = 1) -> Outcome:
    """Simulate a queue to which messages are sent at random moments, with this rate on average."""
    seconds = min(MOST_S, max(LEAST_S, MESSAGES / rate))
    warm_up_s = seconds * WARM_UP_SHARE
    pipeline = Pipeline(setup, warm_up_s, seconds - warm_up_s)
    return pipeline.run(_arrivals(random.Random(seed), rate))


def drain(setup: Setup, messages: int) -> float:
    """Return the messages a second of a queue that is full at the start, and gets no more."""
    pipeline = Pipeline(setup, 0.0, math.inf)
    pipeline.run(iter([(0.0, messages)]))
    return messages / pipeline.pool_at


def _arrivals(rng: random.Random, rate: float) -> Iterator[tuple[float, int]]:
    time = 0.0
    while True:
        if rate * TICK_S < 1:
            time += rng.expovariate(rate)
            yield time, 1
        else:
            time += TICK_S
            yield time, _poisson(rng, rate * TICK_S)


def _poisson(rng: random.Random, mean: float) -> int:
    if mean >= NORMAL_FROM:
        return max(0, round(rng.gauss(mean, mean**0.5)))
    number, time = 0, rng.expovariate(1)
    while time < mean:
        number += 1
        time += rng.expovariate(1)
    return number
