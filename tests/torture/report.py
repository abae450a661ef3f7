"""Prints the results of a run."""

from collections.abc import Mapping

from rich import box
from rich.markup import escape
from rich.table import Table

from dev.terminal import console
from torture import cores
from torture.erasures import Erasure
from torture.faults import Faults
from torture.functions import Fleet
from torture.messages import Kind, Message
from torture.migrate import Migrate
from torture.sqs import History
from torture.vault_verification import VaultFindings
from torture.verification import Findings

# So many violations are printed with their details.
MAX_PRINTED = 20


def show(seed: str, history: History, fleet: Fleet, faults: Faults, findings: Findings) -> None:
    """Print the counts."""
    kinds = [message.kind for message in history.messages]
    _print(
        "The run",
        {
            "seed": seed,
            "seconds": round(history.ended),
            "batches": history.batches,
            "messages": len(kinds),
            **{f"  {kind}": kinds.count(kind) for kind in Kind},
            "deliveries": history.deliveries,
            **{f"  {name}": times for name, times in sorted(history.irregularities.items())},
            "cold starts": fleet.cold_starts.total(),
            "  of which failed": fleet.cold_starts["failed"],
        },
    )
    _print("Invocations", dict(history.outcomes.most_common()))
    _print("Faults", {_words(fault): times for fault, times in sorted(faults.effective.items())})
    _print(
        "After the run",
        {
            "rows": findings.rows,
            "rows whose commit was not confirmed": findings.unconfirmed,
            "dead letters": findings.dead,
            "late invocations, except frozen ones": len(fleet.late),
            "MiB of logs and files searched": round(findings.searched_bytes / (1 << 20)),
        },
    )
    for delivery in fleet.late[:MAX_PRINTED]:
        console.print(
            f"late: {delivery.function}, batch {delivery.number} of {len(delivery.messages)}, "
            f"from {delivery.started:.3f} to {delivery.ended:.3f} s; faults at its start: "
            f"{_list(delivery.active_faults)}",
            highlight=False,
            soft_wrap=True,
        )


def show_vault(
    migrate: Migrate, erasures: list[Erasure], findings: VaultFindings, *, writes_cores: bool
) -> None:
    """Print the counts of the vault."""
    _print(
        "The vault",
        {
            "values that batches sealed": findings.witnessed,
            "  in the inbox before the last fold": findings.in_inbox,
            "  in the vault after it": findings.sealed,
            "values opened": findings.opened,
            "erasures begun": len(erasures),
            "  of which committed": findings.committed_erasures,
            "  of which committed, but not answered": findings.unconfirmed,
            "  of which too late: the token was replaced": findings.late_erasures,
            "tokens erased": findings.erased,
            "  of which for ever": findings.erased_for_ever,
            "  of which sealed again": findings.sealed_again,
            "tokens erased from rows": findings.cleared,
            **{f"runs of migrate: {name}": n for name, n in sorted(migrate.outcomes.items())},
            "resalts": "tried" if migrate.can_resalt else "this migrate has none",
            "core files": len(cores.files()) if writes_cores else "this system writes none",
        },
    )


def show_result(findings: Findings) -> None:
    """Print the violations and the result."""
    for violation in findings.violations[:MAX_PRINTED]:
        console.print(f"[red]{escape(violation.text)}[/]")
        if violation.message is not None:
            _print_history(violation.message)
    console.print(f"[bold]{findings}[/]")


def _print_history(message: Message) -> None:
    """Print a message's deliveries, but none of its values."""
    console.print(
        f"  message {message.id}, {message.kind}, {message.state}, sent at {message.sent_at}",
        highlight=False,
        soft_wrap=True,
    )
    for delivery in message.deliveries:
        ended = "never" if delivery.ended is None else f"{delivery.ended:.3f}"
        position = [each.id for each in delivery.messages].index(message.id)
        console.print(
            f"  {delivery.started:.3f} to {ended} s: batch {delivery.number}, "
            f"position {position} of {len(delivery.messages)}, to {delivery.function}: "
            f"{delivery.outcome}; faults at its start: {_list(delivery.active_faults)}",
            highlight=False,
            soft_wrap=True,
        )


def _list(faults: tuple[str, ...]) -> str:
    return ", ".join(map(_words, faults)) or "none"


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
