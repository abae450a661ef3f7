"""What others on the machine can see of a function that runs."""

import psutil
import pytest

from dev import EVENTS
from e2e.driver import Driver


@pytest.mark.own_localstack("inspects the function's process, which may be in a container")
def test_running_function_shows_no_secret_to_others(driver: Driver) -> None:
    system = driver.system
    secrets = {driver.salt, *system.passwords.values()}
    answer = driver.invoke_file(EVENTS / "good.json")

    functions = [one for one in psutil.process_iter() if _is_function(one, system.stack.function)]
    listings = [" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    environments = [str(one.environ()) for one in functions]
    written = [file for one in functions for file in one.open_files() if file.mode != "r"]

    assert answer == {"batchItemFailures": []}
    assert [text for text in listings + environments for secret in secrets if secret in text] == []
    assert written == []
    # There was something to look at, and what is no secret is there.
    assert functions
    assert all("DATABASE_SECRET_ID" in text for text in environments)


def _is_function(process: psutil.Process, name: str) -> bool:
    try:
        if process.name() != "bootstrap":
            return False
        return process.environ().get("AWS_LAMBDA_FUNCTION_NAME") == name
    except psutil.NoSuchProcess:
        return False
