"""The deployed function, as whoever operates it sees and changes it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from dev.emulator import Emulator
from dev.stack import WAITER_CONFIG, Stack

Statements = list[dict[str, Any]]


def configuration(emulator: Emulator, stack: Stack) -> dict[str, Any]:
    """Return what Lambda knows of the function."""
    functions = emulator.client("lambda")
    return functions.get_function_configuration(FunctionName=stack.function)


def configure(emulator: Emulator, stack: Stack, **changes: str) -> dict[str, str]:
    """Have the function start anew, with settings that may be others; return the old ones."""
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
    """Change the policy of the function's role for a while, as somebody may by mistake."""
    iam = emulator.client("iam")
    role = configuration(emulator, stack)["Role"].split("/")[-1]
    named = {"RoleName": role, "PolicyName": "ingest"}
    whole = iam.get_role_policy(**named)["PolicyDocument"]
    poor = whole | {"Statement": change(deepcopy(whole["Statement"]))}
    iam.put_role_policy(**named, PolicyDocument=json.dumps(poor))
    try:
        yield
    finally:
        iam.put_role_policy(**named, PolicyDocument=json.dumps(whole))


def without(sid: str) -> Callable[[Statements], Statements]:
    """Return the change that takes a statement out of a policy."""
    return lambda statements: [one for one in statements if one["Sid"] != sid]
