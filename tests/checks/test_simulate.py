"""The simulation, compared with the theory of queues, with `make bench`, and with the documents."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from dev import ROOT, costs
from dev.simulate import __main__ as program
from dev.simulate.comparison import compared
from dev.simulate.figures import FIGURES, Calibration, Line, calibrate, read_bench
from dev.simulate.limits import limits
from dev.simulate.monthly import MONTH_S, bill
from dev.simulate.pipeline import Outcome, Setup, drain, simulate
from dev.simulate.plan import Plan, default_plan, setup_of_bench, setup_of_stack

PERFORMANCE = "docs/performance.md"
ARCHITECTURE = "docs/architecture.md"
MS = 0.001


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return calibrate(read_bench())


def _setup(readers: int, delay_s: float = 0, work_s: float = 0) -> Setup:
    """Return a pipeline of batches of 1, which only the readers and the processor limit."""
    return Setup(
        batch=1,
        window_s=0,
        readers=readers,
        max_readers=readers,
        receive_s=0,
        invoke_s=0,
        delay_s=lambda _: delay_s,
        work_s=lambda _: work_s,
        cores=1,
    )


def _mean_wait_s(outcome: Outcome) -> float:
    return sum(wait * number for wait, number in outcome.waits) / outcome.written


def _plan(rate: float, **settings: float) -> Plan:
    return replace(default_plan(), rate=rate, **settings)


def test_single_reader_waits_as_in_theory() -> None:
    # M/D/1: https://en.wikipedia.org/wiki/M/D/1_queue
    load, delay_s = 0.7, 10 * MS

    outcome = simulate(_setup(readers=1, delay_s=delay_s), rate=load / delay_s)

    expected = delay_s * (1 + load / (2 * (1 - load)))
    assert _mean_wait_s(outcome) == pytest.approx(expected, rel=0.05)


def test_shared_processor_waits_as_in_theory() -> None:
    # M/G/1 with processor sharing: https://en.wikipedia.org/wiki/Processor_sharing
    load, work_s = 0.7, 10 * MS

    outcome = simulate(_setup(readers=500, work_s=work_s), rate=load / work_s)

    assert _mean_wait_s(outcome) == pytest.approx(work_s / (1 - load), rel=0.05)


def test_every_message_is_written_once() -> None:
    setup = replace(_setup(readers=3, work_s=MS), batch=7)

    messages_s = drain(setup, 7_000)

    assert messages_s == pytest.approx(7 / MS, rel=0.01)


def test_queue_grows_above_the_limit(calibration: Calibration) -> None:
    plan = _plan(10_000)
    [limit] = [each.rate for each in limits(plan, calibration) if each.part == "reads of the queue"]

    outcome = simulate(setup_of_stack(plan, calibration), plan.rate)

    assert outcome.written_s == pytest.approx(limit, rel=0.05)
    assert outcome.grows_s == pytest.approx(plan.rate - limit, rel=0.05)


def test_quota_bounds_messages_in_flight(calibration: Calibration) -> None:
    setup = replace(
        setup_of_stack(_plan(20_000, concurrency=1_000), calibration),
        readers=1_000,
        batch=1_000,
        window_s=60,
        delay_s=lambda _: 60.0,
    )

    outcome = simulate(setup, 20_000)

    assert outcome.max_in_flight == FIGURES.in_flight


def test_fitted_rows_are_reproduced(calibration: Calibration) -> None:
    assert calibration.processor == Line(
        pytest.approx(0.414e-3, rel=0.01), pytest.approx(7.22e-6, rel=0.01)
    )
    fitted = [row for row in compared(read_bench(), calibration) if row.fitted]
    assert len(fitted) == 4
    assert all(abs(row.difference) < 0.01 for row in fitted)


def test_other_measured_rows_are_predicted(calibration: Calibration) -> None:
    others = [row for row in compared(read_bench(), calibration) if not row.fitted]

    assert len(others) == 4
    assert all(abs(row.difference) < 0.2 for row in others)


def test_more_functions_than_cores_add_nothing(calibration: Calibration) -> None:
    few, many = (drain(setup_of_bench(calibration, number, 1_000), 40_000) for number in (2, 8))

    assert many == pytest.approx(few, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "rate", "first"),
    [
        ({}, 1, "check for many tokens"),
        ({"analysts": True}, 1_000, "roll-up of today"),
        ({"partitions": False}, 1_000, "plain query for duplicates"),
        ({"concurrency": 2, "batch": 1}, 1_000, "reads of the queue"),
    ],
)
def test_lowest_limit_breaks_first(
    calibration: Calibration, settings: dict[str, float], rate: float, first: str
) -> None:
    found = limits(_plan(rate, **settings), calibration)

    assert found[0].part == first
    assert [each.rate for each in found] == sorted(each.rate for each in found)


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("reads of the queue", {"concurrency": 20}),
        ("database processors", {"acu": 8}),
        ("database size", {"days": 10}),
        ("plain query for duplicates", {"stacks": 2}),
    ],
)
def test_remedy_raises_the_limit(
    calibration: Calibration, part: str, settings: dict[str, float]
) -> None:
    def rate(plan: Plan) -> float:
        return next(each.rate for each in limits(plan, calibration) if each.part == part)

    assert rate(_plan(100, **settings)) >= 2 * rate(_plan(100))


def test_stacks_share_the_rate(calibration: Calibration) -> None:
    one, four = _plan(1_000), _plan(4_000, stacks=4)

    assert four.stack_rate == one.stack_rate
    for single, several in zip(limits(one, calibration), limits(four, calibration), strict=True):
        if single.part != "concurrent invocations":
            assert several.rate == pytest.approx(4 * single.rate)


def test_month_costs_what_millions_cost() -> None:
    plan = _plan(1_000)
    outcome = Outcome(seconds=1, written=100, batches=1, received=100, receives=10, busy_s=0.020)

    month = dict(bill(plan, outcome))

    millions = plan.rate * MONTH_S / 1_000_000
    for row in costs.by_traffic():
        if row.item in month:
            assert month[row.item] == pytest.approx(row.usd * millions)
    assert {"SQS", "Lambda requests", "logs, in GB"} < month.keys()


def test_figures_are_those_of_the_page() -> None:
    bench = read_bench()
    [messages, _, _, login_etl, *_] = zip(*_rows("Duration of an invocation"), strict=True)
    [cpu] = [cells for cells in _rows("Processor time and memory") if "per message" in cells[0]]
    throughput = _rows("Throughput")

    assert [(row["messages"], row["login_etl_ms"]) for row in bench["speed"]["rows"]] == [
        (_number(one), _number(ms)) for one, ms in zip(messages, login_etl, strict=True)
    ]
    assert bench["speed"]["rows"][2]["login_etl_cpu_us"] == _number(cpu[1])
    assert [
        (row["functions"], row["batch"], row["messages_s"]) for row in bench["throughput"]["rows"]
    ] == [tuple(map(_number, cells[:3])) for cells in throughput]
    assert {row[-1] for row in throughput} == {str(bench["machine"]["cores"])}


@pytest.mark.parametrize(
    ("document", "table"),
    [
        (PERFORMANCE, program.comparison),
        (ARCHITECTURE, program.bounds),
        (ARCHITECTURE, program.steps),
    ],
)
def test_document_has_the_computed_table(
    calibration: Calibration, document: str, table: Callable[[dict, Calibration], str]
) -> None:
    computed = table(read_bench(), calibration)

    assert f"\n\n{computed}\n\n" in (ROOT / document).read_text(), (
        f"{document} lacks the table of `python -m dev.simulate --table {table.__name__}`:\n"
        f"{computed}"
    )


# "make simulate" runs this program.
def test_report_says_what_breaks_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["simulate", "--rate", "10,000", "--analysts"])

    program.main()

    shown = capsys.readouterr().out
    assert "10,000 logins a second" in shown
    assert "Breaks first: roll-up of today" in shown
    assert "What helps: MaximumConcurrency=" in shown


def _rows(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading, without head and rule."""
    text = (ROOT / PERFORMANCE).read_text()
    below = text.split(f"\n## {heading}\n", 1)[1]
    lines = below[below.index("\n|") + 1 :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def _number(text: str) -> float:
    return float(text.split(maxsplit=1)[0].replace(",", ""))
