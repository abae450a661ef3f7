"""A model of a login queue to which a sender writes 1,000 bad messages a second.

No emulator holds so many messages. The model has the queue's quota of messages in flight and the
template's defaults. Its function always has capacity: only the quota can hold messages back.
"""

from dataclasses import dataclass

from dev import stack

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html
QUOTA = 120_000
BAD_PER_S = 1_000
GOOD_PER_S = 100
# One delivery: the wait for the batch, and the invocation.
DELIVERY_S = 1
MINUTES = 10


@dataclass
class Outcome:
    """The state of the queue at the end of the model, and its maximum."""

    max_in_flight: int
    quota_reached_after_s: int | None
    waiting_good: int


def test_visibility_timeout_fills_the_quota() -> None:
    before = _run(visibility_s=_default("VisibilityTimeout"))

    # 32 bad messages a second would be enough: 120,000 / (20 x 190 s).
    assert before.max_in_flight > 0.99 * QUOTA
    assert before.quota_reached_after_s < 120
    # More than half of the good messages that were sent since then are waiting.
    assert before.waiting_good > 0.5 * GOOD_PER_S * (60 * MINUTES - before.quota_reached_after_s)


def test_short_timeout_leaves_the_quota_free() -> None:
    after = _run(visibility_s=1)

    assert after.max_in_flight < QUOTA / 2
    assert after.quota_reached_after_s is None
    assert after.waiting_good == 0


def _default(parameter: str) -> int:
    return stack.read_template()["Parameters"][parameter]["Default"]


def _run(visibility_s: int) -> Outcome:
    """Run the model: bad messages stay in flight for this time after each delivery."""
    deliveries = _default("MaxReceiveCount")
    good = 0
    # The visible bad messages, by the number of their deliveries.
    bad = [0] * deliveries
    # What is in flight, by the second in which it returns or leaves.
    in_flight: dict[int, list[int]] = {}
    held = 0
    outcome = Outcome(0, None, 0)
    for second in range(60 * MINUTES):
        for number, returned in enumerate(in_flight.pop(second, [])):
            held -= returned
            # The other messages leave: Lambda deletes the good, SQS moves the last delivery's.
            if number < deliveries:
                bad[number] += returned
        good += GOOD_PER_S
        bad[0] += BAD_PER_S
        visible = good + sum(bad)
        room = min(QUOTA - held, visible)
        share = room / visible
        taken = [int(number * share) for number in bad]
        good_taken = int(good * share)
        bad = [number - took for number, took in zip(bad, taken, strict=True)]
        good -= good_taken
        held += sum(taken) + good_taken
        _add(in_flight, second + DELIVERY_S, [0] * deliveries + [good_taken])
        _add(in_flight, second + DELIVERY_S + visibility_s, [0, *taken])
        outcome.max_in_flight = max(outcome.max_in_flight, held)
        if room < visible and outcome.quota_reached_after_s is None:
            outcome.quota_reached_after_s = second
    outcome.waiting_good = good
    return outcome


def _add(in_flight: dict[int, list[int]], second: int, numbers: list[int]) -> None:
    old = in_flight.get(second, [0] * len(numbers))
    in_flight[second] = [one + other for one, other in zip(old, numbers, strict=True)]
