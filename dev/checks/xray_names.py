"""Checks the names that the function sends to X-Ray: part of `make validate`.

X-Ray rejects a document with another character in a name, and whatever is nested in it. The
function sends datagrams, so it never learns of that.
"""

import re
import sys
from pathlib import Path

from dev import ROOT
from dev.checks import modules

# https://docs.aws.amazon.com/xray/latest/devguide/xray-api-segmentdocuments.html
ALLOWED = re.compile(r"[\w\s.:/%&#=+\\@-]{1,200}")
# Where the names stand: the segment of a batch, and the stages of a batch.
SEGMENTS = "telemetry/trace.rs", re.compile(r'\bsegment\(\s*"([^"]*)"')
STAGES = "telemetry/batch.rs", re.compile(r'\(\s*"([^"]*)",')


def names(sources: Path) -> list[str]:
    """Find the names in the sources; an error means that they are no longer where they were."""
    file, pattern = SEGMENTS
    found = [pattern.findall((sources / file).read_text())]
    file, pattern = STAGES
    found.append(pattern.findall(_body((sources / file).read_text(), "fn stages(")))
    if not all(found):
        raise SystemExit("xray_names.py does not find the names in src/telemetry/")
    users = {path.relative_to(sources) for path in sources.rglob("*.rs") if _uses_stages(path)}
    if others := users - {Path(SEGMENTS[0]), Path(STAGES[0])}:
        raise SystemExit(f"xray_names.py does not read the stages in {', '.join(map(str, others))}")
    return [name for part in found for name in part]


def findings(sources: Path) -> list[str]:
    """Return the names that X-Ray rejects."""
    return [
        f"X-Ray rejects the name {name!r}" for name in names(sources) if not ALLOWED.fullmatch(name)
    ]


def _body(code: str, start: str) -> str:
    """Return a function from its name to its end."""
    begin = code.index(start)
    blanked = modules.NOT_CODE.sub(modules.blank, code)
    return code[begin : modules.end_of_block(blanked, blanked.index("{", begin) + 1)]


def _uses_stages(path: Path) -> bool:
    code = modules.NOT_CODE.sub(modules.blank, path.read_text())
    return bool(re.search(r"\bStage\b", code))


def main() -> int:
    """Print the names that X-Ray rejects."""
    found = findings(ROOT / "src")
    for finding in found:
        print(finding)
    if not found:
        print(f"{len(names(ROOT / 'src'))} names for X-Ray: no problem found")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
