"""Rules for the GitHub workflows, which cannot run here."""

import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import packages
from deploy.packages import PackageError
from dev import ROOT
from dev.checks.versions import number

pytestmark = pytest.mark.without_emulator

WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
PIPELINE = ROOT / ".github" / "workflows" / "pipeline.yml"
BUILD = ROOT / ".github" / "workflows" / "build.yml"
PINNED = re.compile(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
# The commands that install the tools which make cannot install.
INSTALL = (
    "rustup toolchain install --profile minimal ",
    "sudo apt-get update && sudo apt-get install --yes ",
)
CREDENTIALS = "aws-actions/configure-aws-credentials@"
# The targets that may run with credentials.
WITH_CREDENTIALS = {"deploy", "smoke", "image-registry", "image-push"}
BUILDS_OR_INSTALLS = re.compile(r"\b(pip|venv|cargo|rustup|buildx|npm|apt-get)\b|\bsam build\b")
# An entry of a list of Python packages.
PINNED_PACKAGE = re.compile(r"[\w.-]+[^=]*==\S+.* --hash=sha256:[0-9a-f]{64}", re.DOTALL)
LISTS = sorted(
    path
    for folder in ("deploy", "dev", "dev/localstack")
    for path in (ROOT / folder).glob("requirements*.txt")
)
TARGETS = set(re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_every_command_is_make_or_installs() -> None:
    for step in _steps():
        if command := step.get("run"):
            program, what, *_ = shlex.split(command)
            assert program == "make" or command.startswith(INSTALL), command
            assert program != "make" or what in TARGETS, command


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_actions_are_pinned_to_a_commit_and_version(workflow: Path) -> None:
    lines = [line.strip("- ") for line in workflow.read_text().splitlines() if "uses: " in line]
    # A workflow of this repository has the commit of its caller.
    used = [line for line in lines if not line.startswith("uses: $/.github/")]

    assert used != []
    assert [line for line in used if not PINNED.match(line)] == []


def test_jobs_have_a_timeout_and_minimal_permissions() -> None:
    for workflow in map(_read, WORKFLOWS):
        assert workflow["permissions"] == {}
    for job in _jobs().values():
        assert job["timeout-minutes"] <= 60
        assert job["permissions"].items() <= {"contents": "read", "id-token": "write"}.items()


def test_only_deployments_get_credentials_and_no_keys() -> None:
    assert _deploying() == {"staging", "production", "image"}
    assert all("environment" in _jobs()[name] for name in _deploying())
    assert [path.name for path in WORKFLOWS if "secrets." in path.read_text()] == []


def test_only_main_is_deployed() -> None:
    conditions = [_jobs()[name]["if"] for name in _deploying()]

    assert all(one.startswith("github.ref == 'refs/heads/main'") for one in conditions)
    assert not any("||" in one for one in conditions)


def test_production_follows_staging_and_staging_the_tests() -> None:
    jobs = _read(PIPELINE)["jobs"]

    build = _read(BUILD)["jobs"]
    assert jobs["staging"]["needs"] == "build"
    assert jobs["build"]["uses"] == "$/.github/workflows/build.yml"
    assert build.keys() == {"check", "test", "localstack", "package"}
    assert jobs["staging"]["steps"][-1]["run"] == 'make smoke ENV=staging CHECKSUMS="$CHECKSUMS"'
    assert "staging" in jobs["production"]["needs"]


def test_waiting_for_reviewers_stops_no_build() -> None:
    pipeline = _read(PIPELINE)
    build = pipeline["jobs"]["build"]

    # A group of the whole run would be held while the run waits.
    assert "concurrency" not in pipeline
    assert build["concurrency"]["group"] == "${{ github.workflow }}-${{ github.ref }}"
    assert "environment" not in build


def test_deployments_neither_overlap_nor_are_cancelled() -> None:
    groups = {name: _jobs()[name]["concurrency"] for name in _deploying()}

    assert groups == {
        name: {"group": name, "cancel-in-progress": False}
        for name in ("staging", "production", "image")
    }


def test_deploying_jobs_verify_before_they_get_credentials() -> None:
    build = _read(BUILD)
    outputs = build[True]["workflow_call"]["outputs"]
    assert outputs.keys() == build["jobs"]["package"]["outputs"].keys()
    for name in _deploying():
        job = _jobs()[name]
        before, _ = _around_credentials(job)
        used = re.findall(r"\$\{\{ needs\.build\.outputs\.(\w+) \}\}", job["env"]["CHECKSUMS"])

        assert "build" in job["needs"]
        assert used != []
        assert set(used) <= outputs.keys()
        assert before[-2]["uses"].startswith("actions/download-artifact@")
        assert before[-1]["run"].startswith(("make prepare ", "make load-image "))
        assert 'CHECKSUMS="$CHECKSUMS"' in before[-1]["run"]


def test_credentials_see_no_build_and_no_installation(tmp_path: Path) -> None:
    # What `make prepare` installs; nothing else is there.
    stamp = tmp_path / "deploy" / "stamp"
    stamp.parent.mkdir()
    stamp.touch()
    for name in _deploying():
        _, after = _around_credentials(_jobs()[name])
        commands = [shlex.split(step["run"]) for step in after if "run" in step]

        assert {words[1] for words in commands} <= WITH_CREDENTIALS
        for words in commands:
            shown = _dry_run(*words[1:], f"TOOLS={tmp_path}")
            assert shown != ""
            assert BUILDS_OR_INSTALLS.findall(shown) == []


def test_deployment_without_checksums_is_not_prepared() -> None:
    done = _make("prepare", "ENV=staging", "CHECKSUMS= ")

    assert done.returncode != 0
    assert "CHECKSUMS=… is missing" in done.stderr


def test_packages_are_built_without_a_cache() -> None:
    used = [step.get("uses", "") for step in _jobs()["package"]["steps"]]

    assert [action for action in used if "cache" in action] == []


def test_jobs_that_build_use_one_rust_version() -> None:
    workflow = _read(BUILD)
    pinned = workflow["env"]["RUSTUP_TOOLCHAIN"]
    package = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    building = {
        name
        for name, job in workflow["jobs"].items()
        if any(step.get("run", "").startswith("rustup toolchain install") for step in job["steps"])
    }

    assert re.fullmatch(r"\d+\.\d+\.\d+", pinned)
    assert number(pinned) >= number(package["rust-version"])
    assert building == workflow["jobs"].keys()


def test_each_python_package_has_version_and_checksum() -> None:
    for path in LISTS:
        entries = re.split(r"\n(?=\S)", path.read_text())
        pinned = [entry for entry in entries if not entry.startswith("#")]

        assert pinned != []
        assert [entry for entry in pinned if not PINNED_PACKAGE.match(entry)] == []
        assert [entry for entry in pinned if "://" in entry] == []


def test_lists_contain_what_their_sources_name() -> None:
    for path in LISTS:
        source = path.with_suffix(".in").read_text()
        named = re.findall(r"^([\w.-]+)\S*==(\S+)", source, re.MULTILINE)
        # uv writes a space between the extras of a package.
        pinned = re.findall(r"^([\w.-]+)[^=\n]*==(\S+)", path.read_text(), re.MULTILINE)

        assert named != []
        assert {_normal(one) for one in named} <= {_normal(one) for one in pinned}


def test_every_list_is_locked_and_audited() -> None:
    makefile = (ROOT / "Makefile").read_text()
    [named] = re.findall(r"^PYTHON_LISTS := (.*?[^\\])$", makefile, re.MULTILINE | re.DOTALL)
    weekly = _read(ROOT / ".github" / "workflows" / "weekly.yml")
    commands = [step.get("run") for job in weekly["jobs"].values() for step in job["steps"]]

    lists = {str(path.relative_to(ROOT).with_suffix("")) for path in LISTS}
    assert set(named.replace("\\", "").split()) == lists
    assert {"make audit", "make audit-python", "make authorities"} <= set(commands)


def test_one_cargo_lock_covers_all_packages() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "*Cargo.lock", "*Cargo.toml", "*requirements*.txt"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    manifests = {"Cargo.toml", *(f"{member}/Cargo.toml" for member in members)}

    assert {path for path in tracked if path.endswith("Cargo.lock")} == {"Cargo.lock"}
    assert {path for path in tracked if path.endswith("Cargo.toml")} == manifests
    assert {ROOT / path for path in tracked if path.endswith(".txt")} == set(LISTS)


def test_make_installs_only_files_with_checksums() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = re.findall(r"(?:pip install|PIP_INSTALL\)).*(?:\.txt|\$<)$", makefile, re.MULTILINE)

    assert "pip install --quiet --disable-pip-version-check --require-hashes --no-deps" in makefile
    # pyspark exists only as source; nothing of it is deployed.
    in_ci = "$(if $(CI),$(if $(filter $(SPARK),$@),,--only-binary :all:))"
    assert f"$(PIP_INSTALL) {in_ci} --requirement $<" in makefile
    assert len(installs) == 2
    assert all(install.startswith("PIP_INSTALL)") for install in installs)


def test_changed_package_is_not_deployed(tmp_path: Path) -> None:
    _write_packages(tmp_path)
    checksums = packages.checksums("arm64", tmp_path)
    changed = tmp_path / "zip" / "arm64" / "migrate" / "bootstrap.zip"

    assert packages.verify(checksums, tmp_path) != []
    changed.write_bytes(b"another program")
    with pytest.raises(PackageError, match=r"zip/arm64/migrate/bootstrap\.zip is not the package"):
        packages.template("staging", checksums, tmp_path)


def test_missing_or_unlisted_package_is_not_deployed(tmp_path: Path) -> None:
    _write_packages(tmp_path)
    checksums = packages.checksums("arm64", tmp_path)
    first, *_ = checksums.split()
    missing = tmp_path / "zip" / "arm64" / "migrate" / "bootstrap.zip"

    with pytest.raises(PackageError, match=r"no checksum of zip/arm64/migrate/bootstrap\.zip"):
        packages.template("staging", first, tmp_path)
    with pytest.raises(PackageError, match="no checksum to compare"):
        packages.template("staging", "", tmp_path)
    missing.unlink()
    with pytest.raises(PackageError, match=r"zip/arm64/migrate/bootstrap\.zip is missing"):
        packages.template("staging", checksums, tmp_path)


def test_changed_program_is_not_run(tmp_path: Path) -> None:
    _write_packages(tmp_path)
    program = tmp_path / "cli" / "login-etl"
    program.parent.mkdir()
    program.write_bytes(b"program")
    program.chmod(0o644)
    checksums = packages.checksums("x86_64", tmp_path)

    assert packages.verify(checksums, tmp_path) == ["cli/login-etl"]
    assert os.access(program, os.X_OK)
    with pytest.raises(PackageError, match="there is no checksum of image/x86_64"):
        packages.verify(checksums, tmp_path, needed="image/x86_64.tar")
    program.write_bytes(b"another program")
    with pytest.raises(PackageError, match="cli/login-etl is not the package that was built"):
        packages.verify(checksums, tmp_path)


def test_smoke_test_runs_program_of_build() -> None:
    [upload] = [step for step in _jobs()["package"]["steps"] if "upload" in step.get("uses", "")]

    assert "target/cli/login-etl" in upload["with"]["path"].split()
    commands = _dry_run("smoke", "ENV=staging", "CHECKSUMS=x").splitlines()
    assert commands[-1].startswith("target/cli/login-etl --env staging")
    assert shlex.split(commands[-2])[-4:] == [
        "deploy.packages",
        "verify",
        "$CHECKSUMS",
        "cli/login-etl",
    ]


@pytest.mark.parametrize("code", ["$(shell touch {})", '"; touch {}; "', "`touch {}`"])
def test_checksums_are_never_run_as_code(code: str, tmp_path: Path) -> None:
    touched = tmp_path / "touched"

    done = subprocess.run(
        ["make", "smoke", "ENV=staging", f"CHECKSUMS={code.replace('{}', str(touched))}"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )

    assert done.returncode != 0
    assert not touched.exists()


def test_prepared_template_has_each_function_its_package(tmp_path: Path) -> None:
    _write_packages(tmp_path)

    template = packages.template("prod", packages.checksums("arm64", tmp_path), tmp_path)

    code = {
        name: resource["Properties"]["CodeUri"]
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
    }
    assert code == {
        "ApiFunction": str(tmp_path / "zip/arm64/api/bootstrap.zip"),
        "ExportFunction": str(tmp_path / "zip/arm64/export/bootstrap.zip"),
        "IngestFunction": str(tmp_path / "zip/arm64/bootstrap/bootstrap.zip"),
        "MigrateFunction": str(tmp_path / "zip/arm64/migrate/bootstrap.zip"),
        "VaultFunction": str(tmp_path / "zip/arm64/vault/bootstrap.zip"),
    }


def _read(workflow: Path) -> dict[str, Any]:
    return yaml.safe_load(workflow.read_text())


def _jobs() -> dict[str, dict[str, Any]]:
    """Return the jobs that have steps; the others call a workflow of this repository."""
    jobs = {name: job for path in WORKFLOWS for name, job in _read(path)["jobs"].items()}
    return {name: job for name, job in jobs.items() if "steps" in job}


def _steps() -> Iterator[dict[str, Any]]:
    for job in _jobs().values():
        yield from job["steps"]


def _deploying() -> set[str]:
    """Return the jobs that may get credentials."""
    return {name for name, job in _jobs().items() if "id-token" in job["permissions"]}


def _around_credentials(job: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the steps of a job before and after it gets credentials."""
    steps = job["steps"]
    [index] = [i for i, step in enumerate(steps) if step.get("uses", "").startswith(CREDENTIALS)]
    return steps[:index], steps[index + 1 :]


def _dry_run(*words: str) -> str:
    """Return the commands that make would run."""
    done = _make("--dry-run", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _make(*words: str) -> subprocess.CompletedProcess[str]:
    """Run make; a variable of the workflow has its name as the value."""
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    command = ["make", *(word.replace("$", "") for word in words)]
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def _normal(pin: tuple[str, str]) -> tuple[str, str]:
    name, version = pin
    return re.sub(r"[-_.]+", "-", name).lower(), version


def _write_packages(target: Path) -> None:
    """Write the packages where `make zip` writes them."""
    for program in ("bootstrap", "migrate", "api", "export", "vault"):
        folder = target / "zip" / "arm64" / program
        folder.mkdir(parents=True)
        (folder / "bootstrap.zip").write_bytes(program.encode())
