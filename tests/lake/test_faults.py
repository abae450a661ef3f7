"""An S3 that refuses, is busy or goes away: a clear error, or the right objects."""

import json
from collections.abc import Iterator
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from dev.emulator import Emulator
from lake import s3_proxy, sample, summary
from lake.readers import READERS, Objects
from lake.s3_proxy import DISCONNECT, INTERNAL_ERROR, LOST_ANSWER, SLOW_DOWN, Fault, Proxy
from lake.servers import Export

# A day of this many logins is larger than the 8 MiB of an upload's part.
MANY = 130_000
ROLES = count(1)

# The actions that the template allows the export in the bucket.
WRITE = ["s3:PutObject", "s3:AbortMultipartUpload"]


@pytest.fixture
def filled(export: Export) -> Export:
    """Write some logins of a day."""
    with export.connect() as owner:
        day = sample.today() - timedelta(2)
        sample.write(owner, (sample.login(f"user-{number}", day) for number in range(100)))
    return export


@pytest.fixture
def large(export: Export) -> Export:
    """Write a day of logins that needs an upload of several parts."""
    day = sample.today() - timedelta(1)
    with export.connect() as owner:
        sample.write(owner, (sample.login(f"user-{number}", day) for number in range(MANY)))
    return export


@pytest.fixture
def proxy(export: Export) -> Iterator[Proxy]:
    """Run a proxy to the emulator."""
    with s3_proxy.to(export.lake.emulator) as proxy:
        yield proxy


def through(proxy: Proxy) -> dict[str, str]:
    """Return the variable that leads the export's S3 client through a proxy."""
    return {"AWS_ENDPOINT_URL_S3": proxy.url}


def assert_recovers(export: Export, folder: Path) -> None:
    """Run the export without faults, and compare the lake with the table."""
    export.succeed()
    with export.connect() as owner:
        expected = summary.of_table(owner)
    objects = Objects(export.lake, export.lake.download(folder))
    for name, read in READERS.items():
        assert read(objects) == expected, name
    assert {day: book.rows for day, book in export.books().items()} == {
        day: each.rows for day, each in expected.items()
    }


def assert_says(export: Export, code: str, said: str) -> None:
    """Look for S3's code in the output; the output has neither a key nor a value."""
    assert code in said
    assert export.lake.emulator.key not in said
    assert sample.device("user-1") not in said


@pytest.mark.parametrize("fault", [SLOW_DOWN, INTERNAL_ERROR, DISCONNECT], ids=lambda f: f.code)
def test_short_fault_is_survived(
    filled: Export, proxy: Proxy, tmp_path: Path, fault: Fault
) -> None:
    proxy.decide = lambda _method, _path, number: fault if number < 3 else None

    filled.succeed(**through(proxy))

    assert proxy.faults == 2
    assert_recovers(filled, tmp_path)


@pytest.mark.parametrize("fault", [SLOW_DOWN, INTERNAL_ERROR, LOST_ANSWER], ids=lambda f: f.code)
def test_fault_within_an_upload_is_survived(
    large: Export, proxy: Proxy, tmp_path: Path, fault: Fault
) -> None:
    faulty = iter([fault])

    def decide(method: str, path: str, _number: int) -> Fault | None:
        return next(faulty, None) if method == "PUT" and "partNumber=2" in path else None

    proxy.decide = decide
    large.succeed(**through(proxy))

    assert proxy.faults == 1
    assert large.unfinished_uploads() == 0
    assert_recovers(large, tmp_path)


def test_throttled_run_fails_and_leaves_nothing(
    filled: Export, proxy: Proxy, tmp_path: Path
) -> None:
    proxy.decide = lambda *_: SLOW_DOWN

    done = filled.run(**through(proxy))

    assert done.returncode == 1
    assert_says(filled, "SlowDown", done.stdout + done.stderr)
    assert filled.versions() == {}
    assert filled.books() == {}
    assert_recovers(filled, tmp_path)


def test_throttled_parts_leave_no_object(large: Export, proxy: Proxy, tmp_path: Path) -> None:
    proxy.decide = lambda method, path, _: (
        SLOW_DOWN if method == "PUT" and "partNumber=2" in path else None
    )

    done = large.run(**through(proxy))

    assert done.returncode == 1
    assert_says(large, "SlowDown", done.stdout + done.stderr)
    assert large.versions() == {}
    assert large.unfinished_uploads() == 0
    assert_recovers(large, tmp_path)


def test_lost_answer_to_the_last_request_is_survived(
    large: Export, proxy: Proxy, tmp_path: Path
) -> None:
    """S3 has the whole object, and the export does not know it."""
    proxy.decide = lambda method, path, _: (
        LOST_ANSWER if method == "POST" and "uploadId=" in path and proxy.faults == 0 else None
    )

    large.run(**through(proxy))

    assert proxy.faults == 1
    assert_recovers(large, tmp_path)


def test_silent_s3_is_tried_again(filled: Export, proxy: Proxy, tmp_path: Path) -> None:
    """An attempt ends after 30 s."""
    proxy.decide = lambda _method, _path, number: Fault(silent_s=90) if number == 1 else None

    filled.succeed(**through(proxy))

    assert proxy.faults == 1
    assert_recovers(filled, tmp_path)


def test_absent_s3_ends_the_run(filled: Export, tmp_path: Path) -> None:
    done = filled.run(AWS_ENDPOINT_URL_S3="http://127.0.0.1:9")

    assert done.returncode == 1
    assert_recovers(filled, tmp_path)


def test_missing_bucket_is_named(filled: Export, tmp_path: Path) -> None:
    done = filled.run(EXPORT_BUCKET="no-such-bucket-at-all")

    assert done.returncode == 1
    assert_says(filled, "NoSuchBucket", done.stdout + done.stderr)
    assert_recovers(filled, tmp_path)


@pytest.mark.parametrize("actions", [[], WRITE[1:]], ids=["nothing", "abort only"])
def test_role_without_rights_is_told(filled: Export, tmp_path: Path, actions: list[str]) -> None:
    done = filled.run(**as_role(filled, actions))

    assert done.returncode == 1
    assert_says(filled, "AccessDenied", done.stdout + done.stderr)
    assert filled.versions() == {}
    assert filled.books() == {}
    assert_recovers(filled, tmp_path)


def test_role_of_the_template_is_enough(large: Export, tmp_path: Path) -> None:
    large.succeed(**as_role(large, WRITE))

    assert_recovers(large, tmp_path)


def as_role(export: Export, actions: list[str]) -> dict[str, str]:
    """Return the credentials of a new role that may do these actions in the bucket."""
    emulator: Emulator = export.lake.emulator
    trust = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    statements = [
        {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"},
    ]
    if actions:
        resource = f"arn:aws:s3:::{export.lake.bucket}/*"
        statements.append({"Effect": "Allow", "Action": actions, "Resource": resource})
    iam, name = emulator.client("iam"), f"exporter-{next(ROLES)}"
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=_policy([trust]))
    iam.put_role_policy(RoleName=name, PolicyName="all", PolicyDocument=_policy(statements))
    session = emulator.client("sts").assume_role(
        RoleArn=role["Role"]["Arn"], RoleSessionName="test"
    )
    credentials = session["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": credentials["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": credentials["SecretAccessKey"],
        "AWS_SESSION_TOKEN": credentials["SessionToken"],
    }


def _policy(statements: list[dict]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})
