"""What the README's tables say, by the names in their first column."""

import re

from e2e import ROOT


def rows(heading: str) -> dict[str, str]:
    """Read the table with this heading; a row that is of two names is there for each of them."""
    table = rf"^\| `?{heading}`? \|.*\n\|[-|]+\|\n((?:\|.*\n)+)"
    [found] = re.findall(table, (ROOT / "README.md").read_text(), re.MULTILINE)
    return {name: row for row in found.splitlines() for name in row.split("|")[1].split("`")[1::2]}


def queries(row: str) -> set[str]:
    """Name the saved queries that a row tells to run."""
    return set(re.findall(r"query `([^`]+)`", row))
