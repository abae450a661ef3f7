"""Validates the calls of AWS that we make, without sending them: part of `make validate`.

- The `aws` commands of the documents, the Makefile, the stack's outputs and login-etl's messages:
  the AWS command line parses them and validates their parameters, as it does before it sends.
- The calls of boto3 in our Python code: botocore's models have the operation and its parameters.

The Rust SDK needs no check: it is generated from the same models, so a wrong call does not compile.
"""

import ast
import contextlib
import io
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import botocore.session
from awscli.clidriver import create_clidriver
from botocore import xform_name
from botocore.model import OperationModel
from samtranslator.yaml_helper import yaml_parse

from dev import ROOT
from dev.checks import markdown
from dev.checks.deployments import REGION, Memory, deployments, resolve

# In place of a placeholder such as <UUID>. No parameter of ours must be longer.
EXAMPLE = "01234567-89ab-cdef-0123-456789abcdef"
PYTHON = ("benches", "deploy", "dev", "tests")


def commands() -> dict[str, str]:
    """Find the commands, each with the place where it stands."""
    found = {
        markdown.program(one.text): f"{one.document}:{one.line}"
        for one in markdown.commands()
        if markdown.program(one.text).startswith("aws ")
    }
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    found |= dict.fromkeys(re.findall(r"^\t@?(aws .*)", makefile, re.MULTILINE), "Makefile")
    for path in (ROOT / "crates").rglob("*.rs"):
        # What login-etl prints for people to run. A backslash continues a text on the next line.
        text = re.sub(r"\\\n\s*", "", path.read_text())
        for command in re.findall(r"\baws [\w-]+ [\w-]+ --[^\"`]+", text):
            found[re.sub(r"\{\w*\}", "<value>", command)] = str(path.relative_to(ROOT))
    template = yaml_parse((ROOT / "template.yaml").read_text())
    memory: Memory = {}
    for deployment in deployments(template):
        for name, output in resolve(template, deployment, memory)["Outputs"].items():
            if output["Value"].startswith("aws "):
                found[output["Value"]] = f"output {name}"
    return found


def refusal(command: str) -> str | None:
    """Return why the command line does not send the request of a command."""
    text = re.sub(r"<[^>]+>", EXAMPLE, command).partition(" | ")[0]
    _, *arguments = shlex.split(text)
    sent = []

    def stop(model: OperationModel, **_: object) -> None:
        sent.append(model.name)
        raise ConnectionAbortedError

    driver = create_clidriver()
    # botocore has validated the parameters when it emits this event, and sends the request next.
    driver.session.register("before-call", stop)
    # `rds generate-db-auth-token` only signs, and sends nothing.
    driver.session.set_credentials("example", "example")
    output, status = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            status = driver.main(
                [*arguments, *([] if "--region" in arguments else ["--region", REGION])]
            )
    except SystemExit:
        pass
    # A document may name an operation without its parameters.
    is_a_name = len(arguments) == 2 and "arguments are required" in output.getvalue()
    if sent or status == 0 or is_a_name:
        return None
    lines = output.getvalue().strip().splitlines()
    return next((line for line in lines if "error:" in line), lines[-1])


def unknown_calls(path: Path) -> Iterator[str]:
    """Name the calls of boto3 whose parameters no operation of this name has."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        shapes = _operations().get(node.func.attr)
        # An operation takes keywords only; our own functions with such a name do not.
        if not shapes or node.args or not node.keywords:
            continue
        names = {keyword.arg for keyword in node.keywords}
        if not any(_accepts(members, required, names) for members, required in shapes):
            yield f"{path}:{node.lineno}: {node.func.attr}({_text(names)})"


def _accepts(members: set[str], required: set[str], names: set[str | None]) -> bool:
    # None stands for `**parameters`, which may have any of them.
    return names - {None} <= members and (None in names or required <= names)


def _text(names: set[str | None]) -> str:
    return ", ".join(sorted(name or "**" for name in names))


@cache
def _operations() -> dict[str, list[tuple[set[str], set[str]]]]:
    """Return the parameters of the operations of each service for which we make a client."""
    text = "".join(path.read_text() for path in _python_files())
    services = {*re.findall(r"\bclient\(\s*\"([\w-]+)\"", text)}
    session = botocore.session.get_session()
    found = defaultdict(list)
    for service in services & {*session.get_available_services()}:
        model = session.get_service_model(service)
        for operation in model.operation_names:
            shape = model.operation_model(operation).input_shape
            members = {*shape.members} if shape else set()
            required = {*shape.required_members} if shape else set()
            found[xform_name(operation)].append((members, required))
    return found


def _python_files() -> list[Path]:
    return [path for folder in PYTHON for path in sorted((ROOT / folder).rglob("*.py"))]


def main() -> int:
    """Print the calls that are wrong."""
    found = commands()
    problems = [
        f"{place}: `{command}`: {why}"
        for command, place in found.items()
        if (why := refusal(command))
    ]
    files = _python_files()
    problems += [problem for path in files for problem in unknown_calls(path)]
    for problem in problems:
        print(problem)
    if not problems:
        print(f"{len(found)} commands and the calls in {len(files)} files: no problem found")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
