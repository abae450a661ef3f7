"""Count the instructions of the pure stages: the command behind `make bench-instructions`.

Other programs on the machine do not change a count, so a change of 1 % is visible. A count is not a
time: callgrind does not support the processor's SHA-256 instructions, so `mask` is counted with the
hash in software.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from rich.table import Table

from benches import RESULTS
from dev.terminal import console

STAGES = ["read", "decode", "mask"]
MESSAGES = 1_000  # as in batch.rs
LAST = RESULTS / "instructions.json"


def main() -> None:
    """Count, print the change since the last run, and save the counts."""
    if not shutil.which("valgrind"):
        raise SystemExit("Valgrind is needed (Debian and Ubuntu: apt-get install valgrind).")
    RESULTS.mkdir(parents=True, exist_ok=True)
    before = json.loads(LAST.read_text()) if LAST.exists() else {}
    now = {stage: count(Path(sys.argv[1]), stage) / MESSAGES for stage in STAGES}
    now["all"] = sum(now.values())
    table = Table(title="Instructions per message", title_justify="left", title_style="bold")
    for heading in ("stage", "now", "last time", "change"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, instructions in now.items():
        then = before.get(stage, instructions)
        change = instructions / then - 1
        table.add_row(stage, f"{instructions:,.0f}", f"{then:,.0f}", f"{change:+.1%}")
    console.print(table)
    LAST.write_text(json.dumps(now, indent=2) + "\n")


def count(program: Path, stage: str) -> int:
    """Count the instructions of one stage and of the functions that it calls."""
    output = RESULTS / f"callgrind.{stage}"
    options = [
        "--tool=callgrind",
        "--collect-atstart=no",
        f"--toggle-collect=instructions::batch::{stage}",
        f"--callgrind-out-file={output}",
    ]
    subprocess.run(["valgrind", "--quiet", *options, program], check=True)
    (total,) = (line for line in output.read_text().splitlines() if line.startswith("totals:"))
    return int(total.split()[1])


if __name__ == "__main__":
    main()
