"""Reads documents: the tables of operations.md, by the names in their first column, and SQL."""

import re

from dev import ROOT

_DOCUMENT = (ROOT / "docs" / "operations.md").read_text()


def rows(heading: str) -> dict[str, str]:
    """Read the table whose first column has this heading; a row with two names counts for both."""
    table = rf"^\| `?{heading}`? \|.*\n\|[-|]+\|\n((?:\|.*\n)+)"
    [found] = re.findall(table, _DOCUMENT, re.MULTILINE)
    return {name: row for row in found.splitlines() for name in row.split("|")[1].split("`")[1::2]}


def queries(row: str) -> set[str]:
    """Name the saved queries that a row tells the reader to run."""
    return set(re.findall(r"query `([^`]+)`", row))


def sql(heading: str, document: str = "operations.md") -> str:
    """Return the SQL query in the section with this heading."""
    section = (ROOT / "docs" / document).read_text().split(f"# {heading}\n")[1]
    return re.search(r"^```sql\n(.+?)^```", section, re.DOTALL | re.MULTILINE)[1]


def commands(heading: str, document: str = "operations.md") -> list[str]:
    """Return the shell commands in the section with this heading, each on one line."""
    text = (ROOT / "docs" / document).read_text()
    section = re.split(r"^#+ ", text.split(f"# {heading}\n")[1], flags=re.MULTILINE)[0]
    blocks = re.findall(r"^```sh\n(.+?)^```", section, re.DOTALL | re.MULTILINE)
    return "".join(blocks).replace("\\\n", "").splitlines()
