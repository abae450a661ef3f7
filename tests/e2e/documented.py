"""What the README says: its tables, by the names in their first column, and its queries."""

import re

from dev import ROOT

_README = (ROOT / "README.md").read_text()


def rows(heading: str) -> dict[str, str]:
    """Read the table with this heading; a row that is of two names is there for each of them."""
    table = rf"^\| `?{heading}`? \|.*\n\|[-|]+\|\n((?:\|.*\n)+)"
    [found] = re.findall(table, _README, re.MULTILINE)
    return {name: row for row in found.splitlines() for name in row.split("|")[1].split("`")[1::2]}


def queries(row: str) -> set[str]:
    """Name the saved queries that a row tells to run."""
    return set(re.findall(r"query `([^`]+)`", row))


def sql(heading: str) -> str:
    """Return the query under this heading."""
    section = _README.split(f"\n### {heading}\n")[1]
    return re.search(r"^```sql\n(.+?)^```", section, re.DOTALL | re.MULTILINE)[1]
