"""What runs each command that the documents show; as a program, it runs those of a newcomer.

A key is the beginning of a command: `make deploy` stands for `make deploy ENV=dev`, and the longest
key counts. `make check` verifies that each command has a key here (documents.py).
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from dev import ROOT
from dev.checks import markdown

# Run by this program, in this order, as the documents show them; with a text that each must print.
RUN = {
    "make help": "List these commands",
    "make run": "99 rows in the table and 1 message(s) in the dead-letter queue",
    "make up": "page for analysts",
    "make send": "100 sent: 99 new rows and 1 new dead letter(s)",
    "make export": "99 rows in the table and 99 in the lake",
    "make top": "batches",
    "make report": "report.html",
    "make invoke": "batchItemFailures",
    "make down": "The system is stopped.",
    "make torture": "0 lost, 0 duplicated, 0 leaked",
    "make fuzz": "stat::number_of_executed_units",
    "make schemathesis": "cases, 0 failures",
    "cargo test --locked --package login": "test result: ok",
    "python -m dev with-services cargo test": "test result: ok",
}

DOCUMENTS = "tests/e2e/test_documents.py"
DATABASES = "tests/it/existing_databases.rs"
IAM = "tests/it/iam.rs"
# Runs each `aws` command of docs/operations.md.
OPERATIONS = "tests/e2e/test_commands.py"
LOCALSTACK = "tests/e2e/test_localstack.py"
DEPLOYER = "tests/e2e/test_deployer.py"
PIPELINE = "tests/e2e/test_pipeline.py"
ROLLUPS = "tests/e2e/test_rollups_oracle.py"
CREATED = "tests/e2e/test_created_database.py"
READERS = "tests/lake/test_readers.py"
VAULT_COMMANDS = "tests/e2e/test_vault_commands.py"
RESTORE = 'commands("A database that the stack created")'

# Run by the file beside them, which contains this text.
TESTED = {
    "curl": ("crates/api/tests/it/documents.rs", "documented_commands_answer"),
    "make watch": ("dev/checks/commands.py", '_beside("make watch")'),
    "make build": ("Makefile", "commands: build"),
    "make demo": ("tests/e2e/test_demo.py", '"demo", "--rows"'),
    "PGPASSWORD": (ROLLUPS, 'commands("psql", "analysts.md")'),
    "SQL: A role for each analyst": (ROLLUPS, 'sql("A role for each analyst", "analysts.md")'),
    "make check": (".ci/run", "make check"),
    "make validate": (".ci/run", "make validate"),
    "make test": (".ci/run", "make test\n"),
    "make test-localstack": (".github/workflows/build.yml", "make test-localstack\n"),
    "make commands": (".ci/run", "make commands"),
    "make deploy": ("tests/e2e/test_sam.py", '"deploy"'),
    "make deploy ENV=dev IMAGE_URI": ("tests/e2e/test_sam.py", "IMAGE_URI={IMAGE_URI}"),
    "make deploy ENV=staging ROLE_ARN": (DEPLOYER, "--role-arn"),
    "aws cloudformation deploy --stack-name login-etl-staging-deployer": (
        DEPLOYER,
        "aws cloudformation deploy --stack-name {DEPLOYER}",
    ),
    "make delete": ("tests/e2e/test_sam.py", '"delete"'),
    "make deploy ENV=localstack": (LOCALSTACK, '"deploy"'),
    "make send ENV=localstack": (LOCALSTACK, '"send"'),
    "make delete ENV=localstack": (LOCALSTACK, '"delete"'),
    "make test-localstack ENDPOINT": (LOCALSTACK, "E2E_ENDPOINT_URL"),
    "aws cloudformation continue-update-rollback": (
        "tests/e2e/test_stuck_rollbacks.py",
        'commands("If a later deployment fails"',
    ),
    "aws cloudformation describe-stack-resources": (CREATED, RESTORE),
    "aws cloudformation set-stack-policy": (CREATED, "set-stack-policy"),
    "aws cloudformation update-termination-protection": (
        CREATED,
        "update-termination-protection",
    ),
    "aws rds restore-db-cluster-to-point-in-time --source-db-cluster-identifier": (
        CREATED,
        RESTORE,
    ),
    "aws rds wait": (CREATED, RESTORE),
    "aws rds create-db-cluster-snapshot": (CREATED, RESTORE),
    "aws rds delete-db-cluster": (CREATED, RESTORE),
    "make audit": ("Makefile", "versions test-names audit ##"),
    "make audit-python": (PIPELINE, '"make audit-python"'),
    "make authorities": ("tests/checks/test_authorities.py", "authorities.only_in"),
    "make checksums": (PIPELINE, "packages.checksums"),
    "make prepare": (PIPELINE, "packages.template"),
    "make smoke": ("tests/e2e/test_program.py", '"smoke"'),
    "make redrive": ("tests/e2e/test_program.py", '"redrive"'),
    "make rotate": ("tests/e2e/test_rotate.py", '"rotate"'),
    "make status": ("tests/e2e/test_operator.py", '"status"'),
    "make accept-salt": ("tests/e2e/test_operator.py", '"accept-salt"'),
    "cargo test --locked --workspace --no-run": ("Makefile", "--workspace --no-run"),
    "login-etl": ("tests/e2e/program.py", "[PROGRAM, *arguments]"),
    "migrate accept-salt": ("tests/it/programs.rs", '"accept-salt"'),
    "migrate accept-vault-key": ("tests/it/programs.rs", '"accept-vault-key"'),
    "login-etl --env prod resalt": ("tests/e2e/test_resalt.py", '"resalt"'),
    "migrate resalt": ("tests/torture/faults.py", 'migrate.run("resalt"'),
    "SQL: DROP SCHEMA resalt CASCADE": ("tests/it/resalt.rs", "DROP SCHEMA resalt CASCADE"),
    "login-etl --env prod token": (VAULT_COMMANDS, '"token", "--field", "ip"'),
    "login-etl --env prod reveal": (VAULT_COMMANDS, '"reveal", TOKEN'),
    "login-etl --env prod erase": (VAULT_COMMANDS, '"erase", TOKEN'),
    "login-etl --env prod vault agree": (VAULT_COMMANDS, '"vault", "agree"'),
    "login-etl --env prod vault verify": (VAULT_COMMANDS, '"vault", "verify"'),
    "login-etl --env prod vault honey": (VAULT_COMMANDS, '"vault", "honey"'),
    "login-etl --env prod vault replay": ("tests/e2e/test_vault.py", '"vault", "replay"'),
    "SQL: A new key each quarter": (
        "crates/vault/tests/it/keys.rs",
        'statements("A new key each quarter")',
    ),
    "SQL: Reveal a value": ("tests/e2e/test_vault.py", 'documented.sql("Reveal a value")'),
    "make simulate": ("tests/checks/test_simulate.py", '# "make simulate" runs this program'),
    "python -m dev.costs": ("dev/checks/documents.py", "costs.tables()"),
    "pytest tests/e2e": ("Makefile", "pytest $(or $(TESTS),tests/e2e)"),
    "aws secretsmanager get-secret-value": (DOCUMENTS, "Verify a token"),
    "printf 'ip:199.172.111.135' | openssl": (DOCUMENTS, "Verify a token"),
    "aws cloudformation describe-stacks": (OPERATIONS, 'startswith("aws ")'),
    "aws lambda invoke": (OPERATIONS, 'startswith("aws ")'),
    "aws lambda list-event-source-mappings": (OPERATIONS, 'startswith("aws ")'),
    "aws lambda update-event-source-mapping": (OPERATIONS, 'startswith("aws ")'),
    "aws lambda update-function-configuration": (OPERATIONS, 'startswith("aws ")'),
    "aws secretsmanager list-secret-version-ids": (OPERATIONS, 'startswith("aws ")'),
    "aws secretsmanager update-secret-version-stage": (OPERATIONS, 'startswith("aws ")'),
    "aws sqs purge-queue": (OPERATIONS, 'startswith("aws ")'),
    "sam validate --lint": ("Makefile", "validate --lint"),
    "SQL: SQL views": ("tests/it/analytics.rs", 'statements("SQL views")'),
    "SQL: How fresh the answers are": (
        "tests/it/analytics.rs",
        'statements("How fresh the answers are")',
    ),
    "SQL: Indexes": ("tests/it/analytics.rs", 'statements("Indexes")'),
    "SQL: DuckDB": (READERS, 'sql("DuckDB", "lake.md")'),
    "SQL: When a day is written": (READERS, 'sql("When a day is written", "lake.md")'),
    "SQL: Delete or change rows": (
        "tests/lake/test_changes.py",
        'sql("Delete or change rows", "lake.md")',
    ),
    "python deploy/lake/iceberg.py": ("tests/lake/test_iceberg.py", '"lake" / "iceberg.py"'),
    "SQL: Move an existing table to partitions": (
        "tests/it/partitions.rs",
        'statements("Move an existing table to partitions")',
    ),
    "SQL: Find who holds a lock": ("tests/e2e/incidents.py", "Find who holds a lock"),
    "SQL: SELECT pg_terminate_backend(1234)": ("tests/e2e/incidents.py", "pg_terminate_backend"),
    "SQL: SELECT pg_terminate_backend(pid)": (
        "tests/e2e/test_deployment.py",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'login_writer'",
    ),
    "SQL: REVOKE CREATE ON SCHEMA public FROM PUBLIC": (
        "tests/it/planted.rs",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    ),
    "SQL: GRANT other TO owner": (DATABASES, "each_remedy_makes_the_database_ready"),
    "SQL: GRANT CREATE ON SCHEMA public TO owner": (
        DATABASES,
        "each_remedy_makes_the_database_ready",
    ),
    "SQL: SELECT pg_has_role('login_writer', 'rds_iam', 'MEMBER')": (
        "tests/e2e/test_iam.py",
        "pg_has_role('login_writer', 'rds_iam', 'MEMBER')",
    ),
    "SQL: GRANT rds_iam TO login_writer": (IAM, "GRANT rds_iam TO login_writer"),
    "SQL: GRANT rds_iam TO <owner>": (IAM, "GRANT rds_iam TO {name} WITH ADMIN OPTION"),
    "SQL: REVOKE rds_iam FROM login_writer": (IAM, "REVOKE rds_iam FROM login_writer"),
    "SQL: ALTER ROLE login_writer LOGIN": (
        "tests/e2e/incidents.py",
        "ALTER ROLE login_writer LOGIN",
    ),
    "SQL: CREATE ROLE login_writer LOGIN": (
        "tests/e2e/test_existing_roles.py",
        "CREATE ROLE login_writer LOGIN",
    ),
    "SQL: CREATE ROLE login_reader": (
        "tests/e2e/test_existing_roles.py",
        "CREATE ROLE login_reader",
    ),
    "SQL: DROP SCHEMA analytics CASCADE": (
        "tests/e2e/test_analysts.py",
        "DROP SCHEMA analytics CASCADE",
    ),
    "SQL: DROP SCHEMA lake CASCADE": (
        "tests/e2e/test_export.py",
        "DROP SCHEMA lake CASCADE",
    ),
    "SQL: Duplicate devices": (DOCUMENTS, "Duplicate devices"),
    "SQL: Duplicate addresses": (DOCUMENTS, "Duplicate addresses"),
    "SQL: Who must not hold what": (DOCUMENTS, "Who must not hold what"),
    "SQL: A view for one analyst": (DOCUMENTS, "A view for one analyst"),
}

# The one list of commands that nothing runs, each with its reason.
LEFT_OUT = {
    "awscurl": "tests/e2e/test_analysts.py sends signed requests with botocore",
    "make up VAULT=1": "needs Python 3.13; tests/e2e/test_vault.py starts the same servers",
    "make validate-regions": "takes minutes; GitHub runs it each week",
    "make test-lake": "takes minutes, and needs Java; tests/lake/test_kills.py is a shorter run",
    "pip install 'pyiceberg[glue,pyarrow]' boto3": "needs a network; the tests have these packages",
    "make mutants": "builds the project once more, and takes hours or a part of them",
    "make bench": "builds the project once more, and takes minutes on an idle machine",
    "make bench-instructions": "needs valgrind",
    "make lock": "needs a network, and rewrites the lists of Python packages",
    "make zip": "makes a release build for each processor; the pipeline runs it",
    "make reproduce": "makes two release builds from nothing",
    "make image": "needs Docker; the pipeline runs it",
    "make image-registry": "needs an AWS account",
    "make image-push": "needs Docker and an AWS account",
    "make login-etl": "compiles the clients of AWS once more",
    "make logs": "needs an AWS account, and runs until it is interrupted",
    "cargo install --locked --profile cli --path crates/cli": "writes to the user's home",
    "mkdir -p ~/.local/share/bash-completion": "goes with the `login-etl completions` below it",
    "rustup target add": "changes the machine's toolchain; the pipeline runs it",
    "aws rds": "needs RDS, or its arguments depend on the cluster",
    "aws cloudformation delete-stack --stack-name login-etl-dev --retain-resources": (
        "no emulator fails to delete a custom resource"
    ),
    "aws logs delete-log-group --log-group-name /aws/rds": "needs RDS, which no emulator has",
    "aws logs describe-query-definitions": "needs saved queries, which no emulator has",
    "docker": "needs Docker",
    "gh api": "needs a repository on GitHub",
    "LOCALSTACK_VERSION=latest": "needs Docker, and an account of LocalStack",
    "mkdir -p target/localstack": "goes with the `docker compose cp` below it",
    ".ci/run": "runs this check",
    "export PATH": "sets what the Makefile sets for everything that it runs",
    "INSTA_UPDATE=always": "overwrites the snapshots that the tests compare with",
    "SQL: ALTER TABLE user_logins ADD COLUMN": "an example of a migration",
    "SQL: CREATE INDEX CONCURRENTLY": "an example of what a migration cannot run",
}

SHORTENED = {"SECONDS": "10", "CASES": "500"}
TOP_S = 5
PATIENCE_S = 900


def key(command: str) -> str | None:
    """Find the longest key that a command starts with, at best with the variables before it."""
    for text in (command, markdown.program(command)):
        keys = [one for one in {**RUN, **TESTED, **LEFT_OUT} if _starts(text, one)]
        if keys:
            return max(keys, key=len)
    return None


def main() -> int:
    """Run the commands; the first that fails or prints something else ends the program."""
    shown = [one.text for one in markdown.commands()]
    for name, expected in RUN.items():
        command = next(one for one in shown if key(one) == name)
        started = monotonic()
        if name == "make invoke":
            with _beside("make watch"):
                printed = _run(command)
        elif name == "make top":
            with _beside(command) as log:
                sleep(TOP_S)
            printed = log.read_text()
        else:
            printed = _run(command)
        if expected not in printed:
            raise SystemExit(f"{printed}\n{command}: does not print {expected!r}")
        print(f"{monotonic() - started:6.1f} s  {shlex.join(_words(command))}", flush=True)
    return 0


def _starts(text: str, start: str) -> bool:
    """Tell whether a text starts with these words; the last one may go on as a path or a value."""
    return text.startswith(start) and text[len(start) : len(start) + 1] in ("", " ", "/", "=")


def _run(command: str) -> str:
    """Run a command to its end, and return what it printed."""
    done = subprocess.run(
        _words(command),
        cwd=ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{command}: exit status {done.returncode}")
    return done.stdout


@contextmanager
def _beside(command: str) -> Iterator[Path]:
    """Keep a command running, and end it as Ctrl-C does; yield the file that it prints to."""
    log = ROOT / "target" / f"{command.replace(' ', '-')}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            _words(command),
            cwd=ROOT,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield log
        finally:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=30)


def _words(command: str) -> list[str]:
    words = shlex.split(command)
    names = [word.partition("=")[0] for word in words]
    return [
        f"{name}={SHORTENED[name]}" if name in SHORTENED else word
        for name, word in zip(names, words, strict=True)
    ]


def _environment() -> dict[str, str]:
    """Remove the variables of this make, which would change the makes that the commands start."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}


if __name__ == "__main__":
    sys.exit(main())
