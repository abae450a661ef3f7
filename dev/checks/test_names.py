"""Checks that no test's name, in Python or in Rust, has more than eight words."""

import re
import sys
from collections.abc import Iterator

from dev import ROOT

MOST_WORDS = 8
PYTHON = re.compile(r"^(?:async )?def test_(\w+)", re.MULTILINE)
# A test attribute, then any other attributes and comments, then the function.
RUST = re.compile(r"#\[(?:\w+::)*test[^\]]*\]\s*(?:(?:#\[.*\]|//.*)\s*)*(?:async )?fn (\w+)")
SOURCES = [
    (PYTHON, "tests/**/test_*.py"),
    *((RUST, f"{folder}/**/*.rs") for folder in ("src", "crates", "tests", "fuzz")),
]


def names() -> Iterator[tuple[str, str]]:
    """Find the tests: the file and line of each, and its name."""
    for pattern, files in SOURCES:
        for file in sorted(ROOT.glob(files)):
            text = file.read_text()
            for found in pattern.finditer(text):
                line = text.count("\n", 0, found.start(1)) + 1
                yield f"{file.relative_to(ROOT)}:{line}", found[1]


def main() -> int:
    """Print each name that is too long."""
    found = list(names())
    if not found:
        raise SystemExit(f"no test was found under {ROOT}")
    too_long = [(place, name) for place, name in found if len(name.split("_")) > MOST_WORDS]
    for place, name in too_long:
        print(f"{place}: {name} has {len(name.split('_'))} words; {MOST_WORDS} are allowed")
    print(f"{len(found)} test names, {len(too_long)} of them too long")
    return 1 if too_long else 0


if __name__ == "__main__":
    sys.exit(main())
