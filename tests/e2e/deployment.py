"""A database with a stack of its own, for the tests of deployments."""

import json
from contextlib import suppress
from typing import Any

from botocore.exceptions import WaiterError

from dev import stack
from dev.local_system import FAST_PARAMETERS, Services
from dev.logins import login
from dev.stack import WAITER_CONFIG, Stack
from e2e.driver import wait_until

DATABASE = "deployed"
STACK = "login-etl-deployed"
OWNER = f"{STACK}/database"


class Database:
    """A database and the stack that writes to it."""

    def __init__(self, services: Services, **parameters: str) -> None:
        """Create an empty database, the owner's secret, and the packages."""
        self.postgres, self.emulator = services.postgres, services.emulator
        with self.postgres.connect() as admin:
            admin.execute(f"CREATE DATABASE {DATABASE}")
        self.formation = self.emulator.client("cloudformation")
        self.stack: Stack | None = None
        secret = self.emulator.client("secretsmanager").create_secret(
            Name=OWNER,
            SecretString=json.dumps({"username": "postgres", "password": self.postgres.password}),
        )
        self.parameters = {
            "DatabaseSecretArn": secret["ARN"],
            "DatabaseCaBundle": stack.CA_BUNDLE,
            "DatabaseHost": self.postgres.host,
            "DatabasePort": self.postgres.port,
            "DatabaseName": DATABASE,
            "Architecture": stack.architecture(),
            **FAST_PARAMETERS,
            **parameters,
        }
        self.template = stack.template(STACK)
        certificate_authority = self.postgres.certificate_authority
        stack.upload(self.emulator, STACK, certificate_authority, parameters)

    def deploy(self) -> None:
        """Create the stack."""
        stack.create(self.emulator, STACK, self.template, self.parameters)
        self.find()

    def find(self) -> None:
        """Read the outputs of a created stack."""
        self.stack = stack.find(self.emulator, STACK, self.parameters["DatabaseSecretArn"])

    def update(self, template: str, **parameters: str) -> str:
        """Update the stack; return its final status."""
        self.formation.update_stack(
            StackName=STACK,
            TemplateURL=stack.upload_template(self.emulator, STACK, template),
            Parameters=stack.as_parameters(self.parameters | parameters),
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        with suppress(WaiterError):  # the returned status shows the failure
            self.formation.get_waiter("stack_update_complete").wait(
                StackName=STACK, WaiterConfig=WAITER_CONFIG
            )
        self.find()
        return self.formation.describe_stacks(StackName=STACK)["Stacks"][0]["StackStatus"]

    def delete_stack(self) -> None:
        """Delete only the stack."""
        stack.delete_stack(self.emulator, STACK)

    def drop(self) -> None:
        """Delete the stack and the database."""
        stack.delete(self.emulator, STACK, self.parameters["DatabaseSecretArn"])
        self.drop_database()

    def drop_database(self) -> None:
        """Delete only the database."""
        with self.postgres.connect() as admin:
            admin.execute(f"DROP DATABASE {DATABASE} WITH (FORCE)")

    def output(self, name: str) -> str:
        """Read an output of the stack."""
        [found] = self.formation.describe_stacks(StackName=STACK)["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}
        return outputs[name]

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Query the database as its owner."""
        with self.postgres.connect(DATABASE) as owner:
            return owner.execute(statement).fetchall()

    def execute(self, statement: str) -> None:
        """Change the database as its owner."""
        with self.postgres.connect(DATABASE) as owner:
            owner.execute(statement)

    def users(self) -> list[str | None]:
        """Read the user ids in the table, in order."""
        return [user for (user,) in self.query("SELECT user_id FROM user_logins ORDER BY user_id")]

    def invoke(self, event: dict[str, Any], function: str | None = None) -> object:
        """Invoke a function, by default the ingest function; return its answer."""
        answer = self.emulator.client("lambda").invoke(
            FunctionName=function or self.stack.function, Payload=json.dumps(event)
        )
        result = json.load(answer["Payload"])
        assert "FunctionError" not in answer, result
        return result

    def send(self, *bodies: str) -> None:
        """Send messages to the queue."""
        list(stack.send(self.emulator, self.stack.queue_url, list(bodies)))

    def stores_login(self, user: str) -> bool:
        """Send a login, and wait for its row; return whether it came."""
        self.send(json.dumps(login(user_id=user)))
        wait_until(lambda: user in self.users(), self.users)
        return True

    def wait_for_dead_letters(self, number: int) -> None:
        """Wait for this number of messages in the dead-letter queue."""

        def now() -> int:
            return stack.count(self.emulator, self.stack.dead_letter_queue_url)

        wait_until(lambda: now() == number, now)

    def migrations(self) -> int:
        """Count the successful runs of the migration."""
        pages = self.emulator.client("logs").get_paginator("filter_log_events")
        events = [
            event["message"]
            for page in pages.paginate(logGroupName=self.stack.migrate_log_group)
            for event in page["events"]
        ]
        return sum('"the schema is up to date"' in event for event in events)
