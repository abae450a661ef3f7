"""Reads the documents: the commands that they show, their links, their headings.

A command is what a reader may copy and run:

- each line of a fenced block in a language of SHELLS; a backslash continues it on the next line,
  and in a `console` block only the lines with a `$ ` count, since the others are output;
- an indented line whose first word is in PROGRAMS;
- an inline code span that has two words or more and whose first word is in PROGRAMS (a span of one
  word, such as `make`, names a program), and a span that is a path starting with a dot;
- a fenced `sql` block, named after the heading above it: `SQL: <heading>`;
- an inline code span that starts with a statement of SQL and has a second word: `SQL: <span>`.

Variables before a program (`NAME=value make …`) and `NAME=$(…)` around it do not hide the program.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dev import ROOT

DOCUMENTS = ("*.md", "docs/*.md", "migrations/*.md", "crates/*/*.md")
# The commands in it are those of older releases.
CHANGELOG = "CHANGELOG.md"

SHELLS = {"sh", "bash", "shell", "console"}
NOT_COMMANDS = {"text", "json", "yaml", "toml", "rust", "python", "dockerfile", "diff"}
PROGRAMS = {
    *("make", "cargo", "rustup", "rustc", "python", "python3", "pytest", "pip", "ruff"),
    *("aws", "sam", "docker", "localstack", "awslocal", "psql", "pg_dump", "openssl"),
    *("login-etl", "migrate"),
    *("printf", "echo", "curl", "git", "export", "apt-get", "dnf", "brew", "kill"),
}
STATEMENTS = {
    *("SELECT", "INSERT", "UPDATE", "DELETE", "ALTER", "CREATE", "DROP", "GRANT", "REVOKE"),
    *("TRUNCATE", "SET", "CALL"),
}

_ASSIGNMENT = re.compile(r"^\w+=\S*\s+")
_CAPTURE = re.compile(r"^\w+=\$\((.*)\)$")


@dataclass(frozen=True)
class Command:
    """A command, and the line of the document that shows it."""

    text: str
    document: str
    line: int


@dataclass(frozen=True)
class Link:
    """A link's target, and the line of the document that has it."""

    target: str
    document: str
    line: int


@dataclass(frozen=True)
class _Block:
    """Consecutive lines: a fenced block with its language, or text between two of these."""

    language: str | None
    heading: str
    line: int
    lines: tuple[str, ...]


def documents() -> list[str]:
    """Name every document by its path from the root."""
    return sorted(str(path.relative_to(ROOT)) for one in DOCUMENTS for path in ROOT.glob(one))


def commands() -> list[Command]:
    """Find the commands of all documents, README.md first."""
    names = sorted(documents(), key=lambda name: name != "README.md")
    return [one for name in names if name != CHANGELOG for one in _commands(name)]


def links(document: str) -> Iterator[Link]:
    """Find the targets of a document's links and images."""
    for block in _blocks(document):
        if block.language is None:
            text = _hide("\n".join(block.lines), r"`+[^`]*`+")
            for found in re.finditer(r"\]\((\S+?)\)|^\[[^\]]+\]:\s*(\S+)", text, re.MULTILINE):
                line = block.line + text.count("\n", 0, found.start())
                yield Link(found[1] or found[2], document, line)


def anchors(document: str) -> set[str]:
    """Compute the anchors of a document's headings as GitHub does."""
    seen: Counter[str] = Counter()
    found = set()
    for block in _blocks(document):
        for heading in _headings(block):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
            anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
            found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
            seen[anchor] += 1
    return found


def unknown_languages(document: str) -> Iterator[str]:
    """Name the fenced blocks of which the language does not say whether they are commands."""
    for block in _blocks(document):
        if block.language is not None and block.language not in SHELLS | NOT_COMMANDS | {"sql"}:
            yield f"{document}:{block.line}: a fenced block in the language {block.language!r}"


def table(document: str, pattern: str) -> list[tuple[str, str]]:
    """Read the rows of two columns of which the first matches a pattern."""
    text = (ROOT / document).read_text()
    return re.findall(rf"^\| ({pattern}) \| (.*) \|$", text, re.MULTILINE)


def program(command: str) -> str:
    """Take variables and a capture from around a command."""
    command = _CAPTURE.sub(r"\1", command)
    while _ASSIGNMENT.match(command):
        command = _ASSIGNMENT.sub("", command)
    return command


def _commands(document: str) -> Iterator[Command]:
    for block in _blocks(document):
        if block.language == "sql":
            yield Command(f"SQL: {block.heading}", document, block.line)
        elif block.language in SHELLS:
            for line, text in _logical_lines(block):
                yield Command(text, document, line)
        elif block.language is None:
            yield from _commands_in_text(document, block)


def _commands_in_text(document: str, block: _Block) -> Iterator[Command]:
    for number, line in enumerate(block.lines, block.line):
        if line.startswith("    ") and _is_command(line.strip()):
            yield Command(_one_line(line), document, number)
    # A span may be broken at the end of a line, but a paragraph ends it.
    text = _hide("\n".join(block.lines), r"^    .*")
    for found in re.finditer(r"(`+)((?:(?!\n\s*\n).)+?)\1", text, re.DOTALL):
        span = _one_line(found[2].replace(r"\|", "|"))
        line = block.line + text.count("\n", 0, found.start())
        if _is_command(span):
            yield Command(span, document, line)
        elif span.split(" ")[0] in STATEMENTS and " " in span:
            yield Command(f"SQL: {span}", document, line)


def _logical_lines(block: _Block) -> Iterator[tuple[int, str]]:
    waiting: list[str] = []
    for number, line in enumerate(block.lines, block.line + 1):
        text = line.strip()
        if block.language == "console" and not waiting:
            if not text.startswith("$ "):
                continue
            text = text[2:]
        if not text or text.startswith("#"):
            continue
        waiting.append(text.removesuffix("\\"))
        if not text.endswith("\\"):
            yield number, _one_line(" ".join(waiting))
            waiting = []


def _is_command(text: str) -> bool:
    first, _, rest = program(text).partition(" ")
    return (first in PROGRAMS and bool(rest)) or bool(re.match(r"\.[\w./-]*/[\w-]+$", first))


def _blocks(document: str) -> Iterator[_Block]:
    heading, language, start, lines = "", None, 1, []
    for number, line in enumerate((ROOT / document).read_text().splitlines(), 1):
        if fence := re.match(r"\s*```(.*)", line):
            yield _Block(language, heading, start, tuple(lines))
            language = fence[1].strip() if language is None else None
            start, lines = number + (language is None), []
        else:
            if language is None and (found := re.match(r"#+ (.+)", line)):
                heading = found[1]
            lines.append(line)
    yield _Block(language, heading, start, tuple(lines))


def _headings(block: _Block) -> list[str]:
    if block.language is not None:
        return []
    return [found[1] for line in block.lines if (found := re.match(r"#{1,6} (.+)", line))]


def _hide(text: str, pattern: str) -> str:
    """Blank what matches, so that the lines keep their numbers."""
    return re.sub(pattern, lambda found: re.sub(r"[^\n]", " ", found[0]), text, flags=re.MULTILINE)


def _one_line(text: str) -> str:
    return " ".join(text.split())
