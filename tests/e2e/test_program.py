"""`login-etl` finds its stack, and the make targets call it."""

import os
import subprocess
from pathlib import Path

import pytest

from dev import ROOT
from e2e import program
from e2e.driver import Driver


def test_environment_names_stack_and_region(driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "samconfig.toml").write_text(
        f'[blue.global.parameters]\nstack_name = "{driver.system.stack.name}"\n'
        'region = "us-east-1"\n'
    )
    variables = {"AWS_REGION": "eu-west-1"}

    done = program.end(
        program.start(
            driver.system.emulator,
            *("--env", "blue", "--json", "--yes", "redrive"),
            directory=tmp_path,
            variables=variables,
        )
    )

    assert (done.status, done.result["stack"]) == (0, driver.system.stack.name), done


def test_stack_without_analysts_has_no_page(driver: Driver) -> None:
    name = driver.system.stack.name

    done = program.run(driver.system.emulator, "--stack", name, "page")

    problem = f"login-etl: the stack {name} has no page: deploy it with the parameter Analysts=true"
    assert (done.status, done.output, done.progress) == (1, "", f"{problem}\n")


def test_denied_call_names_action_and_no_more(driver: Driver) -> None:
    emulator = driver.system.emulator
    user = emulator.client("iam").create_user(UserName="nobody")["User"]["UserName"]
    key = emulator.client("iam").create_access_key(UserName=user)["AccessKey"]
    variables = {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }

    process = program.start(
        emulator, "--stack", driver.system.stack.name, "smoke", variables=variables
    )
    done = program.end(process)

    assert (done.status, done.output) == (1, "")
    assert "DescribeStacks failed: " in done.progress
    assert key["SecretAccessKey"] not in done.progress


@pytest.mark.parametrize("command", ["accept-salt", "redrive", "rotate", "smoke", "status"])
def test_make_target_runs_the_program(command: str) -> None:
    printed = _make(command, "ENV=blue")
    in_ci = _make(command, "ENV=blue", "CI=true", "LOGIN_ETL=./login-etl")

    cargo = "cargo run --quiet --locked --profile cli --package login-etl-cli --"
    assert printed.split() == [*cargo.split(), "--env", "blue", command]
    # The pipeline runs only the smoke test.
    answer = ["--yes"] if command == "smoke" else []
    assert in_ci.split() == ["./login-etl", "--env", "blue", command, *answer]


def _make(*arguments: str) -> str:
    kept = {name: value for name, value in os.environ.items() if name not in {"CI", "MAKEFLAGS"}}
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *arguments],
        cwd=ROOT,
        env=kept,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout
