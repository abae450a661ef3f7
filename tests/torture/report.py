"""What a person wants to see of a run."""

from collections.abc import Mapping

from rich import box
from rich.markup import escape
from rich.table import Table

from dev.terminal import console
from torture.faults import Faults
from torture.functions import Fleet
from torture.messages import Kind, Message
from torture.sqs import Books
from torture.verdict import Verdict

# As many violations are told at length.
TOLD = 20


def show(seed: str, books: Books, fleet: Fleet, faults: Faults, verdict: Verdict) -> None:
    """Print the counts and the verdict."""
    kinds = [message.kind for message in books.messages]
    _print(
        "The run",
        {
            "seed": seed,
            "seconds": round(books.ended),
            "batches": books.batches,
            "messages": len(kinds),
            **{f"  {kind}": kinds.count(kind) for kind in Kind},
            "deliveries": books.deliveries,
            **{f"  {how}": times for how, times in sorted(books.unkind.items())},
            "cold starts": fleet.cold_starts.total(),
            "  of which failed": fleet.cold_starts["did not"],
        },
    )
    _print("Invocations", dict(books.outcomes.most_common()))
    _print("Faults", {_words(fault): times for fault, times in sorted(faults.struck.items())})
    _print(
        "In the end",
        {
            "rows": verdict.rows,
            "rows whose commit nobody heard of": verdict.unknown,
            "dead letters": verdict.dead,
            "invocations late, though not frozen": len(fleet.late),
            "MiB of logs and files searched": round(verdict.searched_bytes / (1 << 20)),
        },
    )
    for delivery in fleet.late[:TOLD]:
        trouble = ", ".join(map(_words, delivery.trouble)) or "no trouble"
        console.print(
            f"late: {delivery.function}, batch {delivery.number} of {len(delivery.messages)}, "
            f"from {delivery.started:.3f} to {delivery.ended:.3f} s; at first {trouble}",
            highlight=False,
            soft_wrap=True,
        )
    for violation in verdict.violations[:TOLD]:
        console.print(f"[red]{escape(violation.what)}[/]")
        if violation.message is not None:
            _tell(violation.message)
    console.print(f"[bold]{verdict}[/]")


def _tell(message: Message) -> None:
    """Tell a message's story: its deliveries, never its values."""
    console.print(
        f"  message {message.id}, {message.kind}, {message.state}, sent at {message.sent_at}",
        highlight=False,
        soft_wrap=True,
    )
    for delivery in message.deliveries:
        ended = "never" if delivery.ended is None else f"{delivery.ended:.3f}"
        place = [one.id for one in delivery.messages].index(message.id)
        console.print(
            f"  {delivery.started:.3f} to {ended} s: batch {delivery.number}, "
            f"place {place} of {len(delivery.messages)}, to {delivery.function}: "
            f"{delivery.outcome}; at first {', '.join(delivery.trouble) or 'no trouble'}",
            highlight=False,
            soft_wrap=True,
        )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _print(title: str, counts: Mapping[str, object]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column("", justify="right")
    table.show_header = False
    for name, count in counts.items():
        table.add_row(escape(name), f"{count:,}" if isinstance(count, int) else str(count))
    console.print(table)
