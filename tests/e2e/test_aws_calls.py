"""The check of our calls finds those that AWS's command line and models refuse."""

import subprocess
from pathlib import Path

import pytest

from dev import ROOT, TARGET

PYTHON = TARGET / "tools" / "deploy" / "bin" / "python"
REFUSED = {
    "aws sqs send-message --queue-url <QueueUrl>": "--message-body",
    "aws sqs purge-queue --queue-uri <QueueUrl>": "--queue-url",
    "aws lambda update-event-source-mapping --uuid <UUID> --scaling-config Maximum=2": "Maximum",
    "aws lambda update-event-source-mapping --uuid 1": "Invalid length for parameter UUID",
    "aws sqs count-messages": "Invalid choice",
    "aws cloudformation deploy --stack-name x --template-file y --colour": "--colour",
}


def test_our_calls_are_valid() -> None:
    done = _run("from dev.checks import aws_calls; print(aws_calls.main())")

    assert done.splitlines()[-1] == "0", done


@pytest.mark.parametrize("command", REFUSED)
def test_wrong_command_is_refused(command: str) -> None:
    why = _run(f"from dev.checks import aws_calls; print(aws_calls.refusal({command!r}))")

    assert REFUSED[command] in why


def test_wrong_call_of_boto3_is_found(tmp_path: Path) -> None:
    file = tmp_path / "calls.py"
    file.write_text('sqs.send_message(QueueUrl="x")\nsqs.purge_queue(Url="x")\n')

    found = _run(
        "from pathlib import Path; from dev.checks import aws_calls;"
        f"print(*aws_calls.unknown_calls(Path({str(file)!r})), sep='\\n')"
    )

    assert found.splitlines() == [
        f"{file}:1: send_message(QueueUrl)",
        f"{file}:2: purge_queue(Url)",
    ]


def _run(code: str) -> str:
    """Run code with the Python that has the AWS command line."""
    command = [PYTHON, "-c", code]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
