"""A text that a sender chose cannot control the terminal in which it is printed."""

import io

import pytest
from rich.console import Console

from dev import terminal

pytestmark = pytest.mark.without_emulator

HOSTILE = {
    "escape sequence": ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
    "8-bit escape sequence": ("\x9b31m", r"\x9b31m"),
    "line ends": ("a\r\nb\u2028c", r"a\r\nb\u2028c"),
    "zero-width characters": ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
    "reordered text": ("a\u202eb", r"a\u202eb"),
    "rich's markup": (
        "[bold red]a[/] [link=file:///]b[/link]",
        "[bold red]a[/] [link=file:///]b[/link]",
    ),
    "other languages": ("Zoë 王 😀", "Zoë 王 😀"),
}


@pytest.mark.parametrize(("user", "shown"), HOSTILE.values(), ids=HOSTILE)
def test_user_id_cannot_control_the_terminal(
    monkeypatch: pytest.MonkeyPatch, user: str, shown: str
) -> None:
    printed = io.StringIO()
    console = Console(file=printed, force_terminal=True, color_system=None, width=200)
    monkeypatch.setattr(terminal, "console", console)

    terminal.print_table("Rows", [{"user_id": user, "locale": None}])

    assert shown in printed.getvalue()
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u2028", "\u200b", "\u202e"} & set(
        printed.getvalue()
    )
