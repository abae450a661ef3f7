"""What other users of the machine can see of a running function."""

import psutil
import pytest

from dev import EVENTS
from e2e import function
from e2e.driver import Driver


@pytest.mark.own_localstack("inspects the function's process, which may be in a container")
def test_running_function_shows_no_secret_to_others(driver: Driver) -> None:
    system = driver.system
    secrets = {driver.salt, *system.passwords.values()}
    answer = driver.invoke_file(EVENTS / "good.json")

    functions = function.processes(system.stack)
    listings = [
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    ]
    environments = [str(process.environ()) for process in functions]
    written = [file for process in functions for file in process.open_files() if file.mode != "r"]

    assert answer == {"batchItemFailures": []}
    assert [text for text in listings + environments for secret in secrets if secret in text] == []
    assert written == []
    # The search had input: functions run, and their environment has the other settings.
    assert functions
    assert all("DATABASE_SECRET_ID" in text for text in environments)
