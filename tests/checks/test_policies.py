"""MiniStack's evaluator finds each right that is missing, and each that is too many."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dev.checks import policies
from dev.checks.transform import transformed
from dev.stack import TEMPLATE

Json = dict[str, Any]


def test_policies_allow_what_is_needed_only() -> None:
    assert [*policies.findings(transformed(TEMPLATE))] == []


def test_each_call_of_the_code_is_granted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert policies.calls_without_grant() == []

    (tmp_path / "src").mkdir()
    (tmp_path / "Cargo.toml").write_text('aws-sdk-sqs = "1"\n')
    (tmp_path / "src" / "new.rs").write_text("client.purge_queue().send()")
    monkeypatch.setattr(policies, "ROOT", tmp_path)

    expected = ["a function calls sqs:PurgeQueue, which no role allows"]
    assert policies.calls_without_grant() == expected


def _statements(template: Json, name: str) -> list[Any]:
    properties = template["Resources"][name]["Properties"]
    if "Policies" in properties:
        [policy] = properties["Policies"]
        return policy["PolicyDocument"]["Statement"]
    return (properties.get("KeyPolicy") or properties["PolicyDocument"])["Statement"]


def _statement(template: Json, name: str, sid: str) -> Json:
    """Find a statement, also one that a condition adds."""
    [found] = [
        one
        for statement in _statements(template, name)
        for one in statement.get("Fn::If", [statement])
        if isinstance(one, dict) and one.get("Sid") == sid
    ]
    return found


def _name_no_service_in_the_queue(template: Json) -> None:
    statements = _statements(template, "QueuePolicy")
    statements[:] = [one for one in statements if "Fn::If" not in one]


def _name_no_service_in_the_key(template: Json) -> None:
    statements = _statements(template, "Key")
    statements[:] = [one for one in statements if "Fn::If" not in one]


def _admit_every_topic(template: Json) -> None:
    for statement in _statements(template, "QueuePolicy"):
        for one in statement.get("Fn::If", []):
            if isinstance(one, dict) and "Service" in one.get("Principal", {}):
                del one["Condition"]


def _read_every_secret(template: Json) -> None:
    _statement(template, "IngestRole", "ReadTheSecrets")["Resource"] = "*"


def _read_messages(template: Json) -> None:
    statements = _statements(template, "IngestRole")
    statements.remove(_statement(template, "IngestRole", "TheCodeTakesNone"))


def _send_messages(template: Json) -> None:
    _statement(template, "IngestRole", "TakeMessages")["Action"].append("sqs:SendMessage")


def _return_no_message(template: Json) -> None:
    statements = _statements(template, "IngestRole")
    statements.remove(_statement(template, "IngestRole", "ReturnBadMessages"))


def _decrypt_without_a_service(template: Json) -> None:
    del _statement(template, "MigrateRole", "DecryptThem")["Condition"]


def _trust_another_service(template: Json) -> None:
    policy = template["Resources"]["MigrateRole"]["Properties"]["AssumeRolePolicyDocument"]
    policy["Statement"][0]["Principal"]["Service"] = [
        "lambda.amazonaws.com",
        "ec2.amazonaws.com",
    ]


def _read_a_table(template: Json) -> None:
    _statement(template, "IngestRole", "TakeMessages")["Action"].append("dynamodb:GetItem")


def _write_every_bucket(template: Json) -> None:
    _statement(template, "ExportRole", "WriteFiles")["Resource"] = "*"


def _read_exported_files(template: Json) -> None:
    _statement(template, "ExportRole", "WriteFiles")["Action"].append("s3:GetObject")


def _export_as_the_writer(template: Json) -> None:
    _statement(template, "ExportRole", "ReadThePassword")["Resource"] = {"Ref": "WriterSecret"}


def _admit_other_readers(template: Json) -> None:
    statements = _statements(template, "ExportBucketPolicy")
    statements.remove(_statement(template, "ExportBucketPolicy", "RefuseOtherReaders"))


def _read_without_tls(template: Json) -> None:
    statements = _statements(template, "ExportBucketPolicy")
    statements.remove(_statement(template, "ExportBucketPolicy", "RefuseWithoutTls"))


def _decrypt_no_files(template: Json) -> None:
    _statement(template, "ExportKey", "ReadersDecryptFiles")["Action"] = "kms:Encrypt"


def _add_a_role(template: Json) -> None:
    template["Resources"]["OtherRole"] = template["Resources"]["UpkeepRole"]


def _encrypt_every_log(template: Json) -> None:
    del _statement(template, "Key", "EncryptTheLogs")["Condition"]


def _encrypt_no_log(template: Json) -> None:
    _statement(template, "Key", "EncryptTheLogs")["Principal"]["Service"] = "logs.amazonaws.com"


def _invoke_the_function_directly(template: Json) -> None:
    del _statement(template, "AnalystsPolicy", "ThroughTheUrlOnly")["Condition"]


def _call_every_api(template: Json) -> None:
    _statement(template, "AnalystsPolicy", "CallTheApi")["Resource"] = "*"


def _read_every_stack(template: Json) -> None:
    _statement(template, "AnalystsPolicy", "FindTheApi")["Resource"] = "*"


def _log_in_as_the_writer(template: Json) -> None:
    _statement(template, "ApiRole", "ReadThePassword")["Resource"] = {"Ref": "WriterSecret"}


def _derive_elsewhere(template: Json) -> None:
    statements = _statements(template, "VaultKey")
    statements.remove(_statement(template, "VaultKey", "NobodyElseOpens"))


def _open_nothing(template: Json) -> None:
    statements = _statements(template, "VaultKey")
    statements.remove(_statement(template, "VaultKey", "TheVaultOpens"))


def _let_ingest_open(template: Json) -> None:
    statement = _statement(template, "VaultKey", "TheVaultOpens")
    roles = [{"Fn::GetAtt": [name, "Arn"]} for name in ("VaultRole", "IngestRole")]
    statement["Principal"]["AWS"] = roles


def _give_ingest_all_keys(template: Json) -> None:
    statement = _statement(template, "IngestRole", "DecryptTheSecrets")
    statement["Resource"] = "*"
    del statement["Condition"]


def _erase_by_every_route(template: Json) -> None:
    statement = _statement(template, "VaultTokenPolicy", "ComputeTokens")
    statement["Resource"]["Fn::Sub"] = statement["Resource"]["Fn::Sub"].replace("token", "*")


def _reveal_no_value(template: Json) -> None:
    _statement(template, "VaultReaderPolicy", "RevealValues")["Effect"] = "Deny"


def _read_no_salt(template: Json) -> None:
    resources = _statement(template, "VaultRole", "ReadTheSecrets")["Resource"]
    del resources[0]


def _list_erasures_of_others(template: Json) -> None:
    statements = _statements(template, "VaultErasureBucketPolicy")
    statements.remove(_statement(template, "VaultErasureBucketPolicy", "RefuseOtherWriters"))


def _let_erasures_be_read(template: Json) -> None:
    statements = _statements(template, "VaultErasureBucketPolicy")
    statements.remove(_statement(template, "VaultErasureBucketPolicy", "RefuseOtherReaders"))


def _let_erasures_be_deleted(template: Json) -> None:
    statements = _statements(template, "VaultErasureBucketPolicy")
    statements.remove(_statement(template, "VaultErasureBucketPolicy", "NobodyDeletes"))


def _let_the_vault_read_erasures(template: Json) -> None:
    statement = _statement(template, "VaultRole", "ListErasures")
    statement["Action"] = ["s3:PutObject", "s3:GetObject"]


def _find_no_erasures(template: Json) -> None:
    _statement(template, "MigrateRole", "FindErasures")["Effect"] = "Deny"


def _take_no_sources(template: Json) -> None:
    for name in ("Key", "QueuePolicy"):
        statements = _statements(template, name)
        statements[:] = [one for one in statements if "Fn::If" not in one]
    del template["Parameters"]["SourceArns"], template["Parameters"]["SenderArns"]
    del template["Conditions"]["HasSources"], template["Conditions"]["HasSenders"]


FAULTS = [
    (
        _name_no_service_in_the_queue,
        "QueuePolicy: sns.amazonaws.com may not sqs:SendMessage",
    ),
    (
        _name_no_service_in_the_key,
        "Key: events.amazonaws.com may not kms:GenerateDataKey",
    ),
    (_admit_every_topic, "QueuePolicy: sns.amazonaws.com may sqs:SendMessage"),
    (
        _encrypt_every_log,
        "Key: logs.eu-central-1.amazonaws.com may kms:Encrypt for another logs",
    ),
    (
        _encrypt_no_log,
        "Key: logs.eu-central-1.amazonaws.com may not kms:Encrypt for Ingest",
    ),
    (
        _invoke_the_function_directly,
        "AnalystsPolicy: its holders may lambda:InvokeFunction on ApiFunction",
    ),
    (
        _call_every_api,
        "AnalystsPolicy: its holders may execute-api:Invoke on another execute-api",
    ),
    (_read_every_stack, "its holders may cloudformation:DescribeStacks on another"),
    (_derive_elsewhere, "VaultKey: an administrator may kms:DeriveSharedSecret"),
    (_open_nothing, "VaultKey: VaultRole may not kms:DeriveSharedSecret"),
    (_let_ingest_open, "VaultKey: IngestRole may kms:GetPublicKey"),
    (_give_ingest_all_keys, "VaultKey: IngestRole may kms:Decrypt"),
    (
        _erase_by_every_route,
        "VaultTokenPolicy: its holders may execute-api:Invoke on POST /erase",
    ),
    (
        _reveal_no_value,
        "VaultReaderPolicy: its holders may not execute-api:Invoke on POST /reveal",
    ),
    (
        _read_no_salt,
        "VaultRole: the function's code may not secretsmanager:GetSecretValue on Salt",
    ),
    (
        _log_in_as_the_writer,
        "the function's code may secretsmanager:GetSecretValue on WriterSecret",
    ),
    (_take_no_sources, "there is no parameter SourceArns"),
    (
        _read_every_secret,
        "the function's code may secretsmanager:GetSecretValue on another",
    ),
    (_read_messages, "the function's code may sqs:ReceiveMessage on LoginQueue"),
    (_send_messages, "the function's code may sqs:SendMessage on LoginQueue"),
    (_return_no_message, "may not sqs:ChangeMessageVisibility on LoginQueue"),
    (_decrypt_without_a_service, "may kms:Decrypt on SecretsKey (through None)"),
    (_trust_another_service, "MigrateRole: ec2.amazonaws.com may assume it"),
    (_read_a_table, "policies.py does not know the service dynamodb"),
    (
        _write_every_bucket,
        "ExportRole: the function's code may s3:PutObject on another s3",
    ),
    (
        _read_exported_files,
        "ExportRole: the function's code may s3:GetObject on ExportedFile",
    ),
    (_export_as_the_writer, "may secretsmanager:GetSecretValue on WriterSecret"),
    (
        _admit_other_readers,
        "role/administrator may s3:GetObject on ExportedFile with TLS",
    ),
    (_read_without_tls, "role/reader may s3:GetObject on ExportedFile without TLS"),
    (_decrypt_no_files, "role/reader may not kms:Decrypt (through s3"),
    (_list_erasures_of_others, "an administrator may s3:PutObject on Erasure with TLS"),
    (_let_erasures_be_read, "an administrator may s3:GetObject on Erasure with TLS"),
    (
        _let_erasures_be_deleted,
        "an administrator may s3:DeleteObject on Erasure with TLS",
    ),
    (
        _let_the_vault_read_erasures,
        "VaultRole: the function's code may s3:GetObject on Erasure",
    ),
    (
        _find_no_erasures,
        "MigrateRole: the function's code may not s3:ListBucket on ErasureList",
    ),
    (_add_a_role, "policies.py does not say what this role needs"),
]


@pytest.mark.parametrize(("put_back", "expected"), FAULTS)
def test_wrong_policy_is_found(put_back: Callable[[Json], None], expected: str) -> None:
    template = transformed(TEMPLATE)
    put_back(template)

    # Each kind of stack takes time: the first finding is enough.
    assert any(expected in finding for finding in policies.findings(template))
