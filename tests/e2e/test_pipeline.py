"""Rules for the GitHub workflows, which cannot run here."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
# The commands that install the tools which make cannot install.
INSTALL = ("rustup target add ", "sudo apt-get update && sudo apt-get install --yes ")
TARGETS = set(re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_command_is_make_or_installs() -> None:
    for step in _steps():
        if command := step.get("run"):
            program, what, *_ = shlex.split(command)
            assert program == "make" or command.startswith(INSTALL), command
            assert program != "make" or what in TARGETS, command


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_actions_are_pinned_to_a_commit_and_version(workflow: Path) -> None:
    used = [line.strip("- ") for line in workflow.read_text().splitlines() if "uses: " in line]

    assert used != []
    assert [line for line in used if not PINNED.match(line)] == []


def test_jobs_have_a_timeout_and_minimal_permissions() -> None:
    for workflow in map(_read, WORKFLOWS):
        assert workflow["permissions"] == {}
    for job in _jobs().values():
        assert job["timeout-minutes"] <= 60
        assert job["permissions"].items() <= {"contents": "read", "id-token": "write"}.items()


def test_only_deployments_get_credentials_and_no_keys() -> None:
    deploying = {name for name, job in _jobs().items() if "id-token" in job["permissions"]}

    assert deploying == {"staging", "production", "image"}
    assert all("environment" in _jobs()[name] for name in deploying)
    assert [path.name for path in WORKFLOWS if "secrets." in path.read_text()] == []


def test_production_follows_staging_and_staging_the_tests() -> None:
    jobs = _jobs()

    assert jobs["staging"]["needs"] == ["check", "test", "package"]
    assert jobs["staging"]["steps"][-1]["run"] == "make smoke ENV=staging"
    assert jobs["production"]["needs"] == "staging"


def _read(workflow: Path) -> dict[str, Any]:
    return yaml.safe_load(workflow.read_text())


def _jobs() -> dict[str, dict[str, Any]]:
    return {name: job for path in WORKFLOWS for name, job in _read(path)["jobs"].items()}


def _steps() -> Iterator[dict[str, Any]]:
    for job in _jobs().values():
        yield from job["steps"]
