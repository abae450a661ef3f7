"""Checks the documents, without running a command: part of `make check`.

- Each command is run by `make commands` or by a test, or has a reason in commands.py why not.
- Each relative link leads to a file, and each anchor to a heading.
- The table of commands in README.md is what `make help` prints, and README.md stays short.
- The tables of costs in docs/deployment.md are what `python -m dev.costs` prints.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from dev import ROOT, costs
from dev.checks import markdown
from dev.checks.commands import LEFT_OUT, RUN, TESTED, key

README = "README.md"
MAX_LINES = 120
MAX_WORDS = 900


def unknown_commands() -> Iterator[str]:
    """Name the commands without a key, the keys without a command, and the keys in two lists."""
    lists = [*RUN, *TESTED, *LEFT_OUT]
    shown = markdown.commands()
    for one in shown:
        if key(one.text) is None:
            where = f"{one.document}:{one.line}"
            yield f"{where}: nothing runs `{one.text}`, and commands.py does not say why"
    used = {key(one.text) for one in shown}
    yield from (f"commands.py: no document shows `{one}`" for one in lists if one not in used)
    yield from (
        f"commands.py: `{one}` is in two lists" for one in set(lists) if lists.count(one) > 1
    )


def lost_tests() -> Iterator[str]:
    """Name the tests that do not exist or do not contain their text."""
    for command, (name, text) in TESTED.items():
        path = ROOT / name
        if not path.is_file():
            yield f"commands.py: {name}, which runs `{command}`, does not exist"
        elif text not in path.read_text():
            yield f"commands.py: {name}, which runs `{command}`, does not contain {text!r}"


def broken_links() -> Iterator[str]:
    """Name the relative links that lead to no file, and the anchors that lead to no heading."""
    for document in markdown.documents():
        for link in markdown.links(document):
            if re.match(r"[a-z]+:", link.target):
                continue
            name, _, anchor = link.target.partition("#")
            path = (ROOT / document).parent / name if name else ROOT / document
            if not path.exists() or not path.resolve().is_relative_to(ROOT):
                yield f"{document}:{link.line}: {link.target} does not exist"
            elif anchor and anchor not in _anchors(path):
                yield f"{document}:{link.line}: {link.target} leads to no heading"


def wrong_table() -> Iterator[str]:
    """Compare the table of commands with the texts that `make help` prints."""
    makefile = (ROOT / "Makefile").read_text()
    described = dict(re.findall(r"^([a-z-]+):.*## (.*)$", makefile, re.MULTILINE))
    rows = markdown.table(README, r"`make [^|]+`")
    table = {command.strip("`").split()[1]: text for command, text in rows}
    for target in described.keys() | table.keys():
        if described.get(target) != table.get(target):
            yield f"{README} and `make help` differ in `make {target}`"


def wrong_costs() -> Iterator[str]:
    """Compare the tables of costs with those that are computed."""
    text = (ROOT / "docs" / "deployment.md").read_text()
    for table in costs.tables():
        if f"\n\n{table}\n\n" not in text:
            yield f"docs/deployment.md lacks this table of `python -m dev.costs`:\n{table}"


def too_long() -> Iterator[str]:
    """Check the length of README.md."""
    text = (ROOT / README).read_text()
    lines, words = len(text.splitlines()), len(text.split())
    if lines > MAX_LINES or words > MAX_WORDS:
        yield f"{README} has {lines} lines and {words} words; allowed: {MAX_LINES} and {MAX_WORDS}"


def main() -> int:
    """Print what is wrong with the documents."""
    documents = markdown.documents()
    problems = [
        *(problem for document in documents for problem in markdown.unknown_languages(document)),
        *unknown_commands(),
        *lost_tests(),
        *broken_links(),
        *wrong_table(),
        *wrong_costs(),
        *too_long(),
    ]
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{len(documents)} documents, {len(markdown.commands())} commands: no problem found")
    return 1 if problems else 0


def _anchors(path: Path) -> set[str]:
    return markdown.anchors(str(path.resolve().relative_to(ROOT)))


if __name__ == "__main__":
    sys.exit(main())
