"""Runs a test program on a mutant; cargo calls it in place of the program (.cargo/mutants.toml).

- The first failure ends the test program: one failure catches the mutant. Stable Rust accepts this
  option only with an environment variable. Cargo must not see this variable: it changes the build.
- The integration tests get new servers. A test that fails leaves roles behind. On the same server,
  they would make the next mutant fail a test, and so count as caught.
"""

import os
import sys
from pathlib import Path

INTEGRATION_TESTS = "it-"


def main() -> None:
    """Replace this process by the test program, or by the servers and the test program."""
    program, *arguments = sys.argv[1:]
    command = ["env", "RUSTC_BOOTSTRAP=1", program, *arguments, "-Zunstable-options", "--fail-fast"]
    if Path(program).name.startswith(INTEGRATION_TESTS):
        command = [sys.executable, "-m", "dev", "with-services", *command]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
