"""Measures the function alone, and beside other work on the same database."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from threading import Event, Thread

from benches import events
from benches.bench_servers import Database
from benches.function import Function

BATCH = 100


def alone_and_beside(
    work: Callable[[], object], database: Database, rounds: int, seconds: float
) -> tuple[float, float]:
    """Return the messages a second alone, and while the work is repeated: medians, in turns."""
    alone, beside = [], []
    with database.login_etl() as login_etl:
        _messages_s(login_etl, seconds)
        for _ in range(rounds):
            alone.append(_messages_s(login_etl, seconds))
            with _repeated(work):
                beside.append(_messages_s(login_etl, seconds))
    return median(alone), median(beside)


@contextmanager
def _repeated(work: Callable[[], object]) -> Iterator[None]:
    stopped = Event()

    def repeat() -> None:
        while not stopped.is_set():
            work()

    thread = Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _messages_s(login_etl: Function, seconds: float) -> float:
    """Return how many messages a second the function writes."""
    started, batches = time.perf_counter(), 0
    while (elapsed_s := time.perf_counter() - started) < seconds:
        login_etl.invoke(events.event(BATCH))
        batches += 1
    return batches * BATCH / elapsed_s
