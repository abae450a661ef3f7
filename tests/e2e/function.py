"""Reads and changes the configuration of the deployed function and the policy of its role."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import psutil

from dev.emulator import Emulator
from dev.stack import WAITER_CONFIG, Stack

Statements = list[dict[str, Any]]


def configuration(emulator: Emulator, stack: Stack) -> dict[str, Any]:
    """Read the function's configuration."""
    functions = emulator.client("lambda")
    return functions.get_function_configuration(FunctionName=stack.function)


def configure(emulator: Emulator, stack: Stack, **changes: str) -> dict[str, str]:
    """Change the function's settings, which restarts it; return the old settings."""
    old = configuration(emulator, stack)["Environment"]["Variables"]
    functions, name = emulator.client("lambda"), stack.function
    functions.update_function_configuration(
        FunctionName=name, Environment={"Variables": old | changes}
    )
    functions.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=WAITER_CONFIG)
    return old


@contextmanager
def policy(
    emulator: Emulator, stack: Stack, change: Callable[[Statements], Statements]
) -> Iterator[None]:
    """Change the policy of the function's role, and restore it at the end."""
    iam = emulator.client("iam")
    role = configuration(emulator, stack)["Role"].split("/")[-1]
    named = {"RoleName": role, "PolicyName": "ingest"}
    original = iam.get_role_policy(**named)["PolicyDocument"]
    changed = original | {"Statement": change(deepcopy(original["Statement"]))}
    iam.put_role_policy(**named, PolicyDocument=json.dumps(changed))
    try:
        yield
    finally:
        iam.put_role_policy(**named, PolicyDocument=json.dumps(original))


def without(sid: str) -> Callable[[Statements], Statements]:
    """Return the change that removes a statement from a policy."""
    return lambda statements: [each for each in statements if each["Sid"] != sid]


def processes(stack: Stack) -> list[psutil.Process]:
    """Find the running processes of the function."""
    return [each for each in psutil.process_iter() if _is_function(each, stack.function)]


def _is_function(process: psutil.Process, name: str) -> bool:
    try:
        if process.name() != "bootstrap":
            return False
        return process.environ().get("AWS_LAMBDA_FUNCTION_NAME") == name
    except psutil.NoSuchProcess:
        return False
