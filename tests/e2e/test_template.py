"""Rules for the template, read as a deployment reads it."""

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

from dev import ROOT
from dev.stack import TEMPLATE, read_template

pytestmark = pytest.mark.without_emulator

HOUR_S = 3600
DAY_S = 24 * HOUR_S
NO_VALUE = {"Ref": "AWS::NoValue"}
# The environments of samconfig.toml.
SAMCONFIG = ("dev", "staging", "prod")

# Names of endpoints, from the list of the CDK. AWS publishes no list that a program could read:
# https://github.com/aws/aws-cdk/blob/main/packages/aws-cdk-lib/aws-ec2/lib/vpc-endpoint.ts
ENDPOINTS = {
    "S3Endpoint": "s3",
    "SecretsManagerEndpoint": "secretsmanager",
    "SqsEndpoint": "sqs",
    "KmsEndpoint": "kms",
    "LogsEndpoint": "logs",
    "XRayEndpoint": "xray",
}
# In China these begin with "cn". S3 does so too, but its gateway does not.
NAMED_OTHERWISE_IN_CHINA = {"SqsEndpoint", "XRayEndpoint"}

# They hold data, or what is needed to read data.
STATEFUL = {
    "AWS::EC2::VPC",  # a database cannot move to another network
    "AWS::KMS::Key",
    "AWS::RDS::DBCluster",
    "AWS::S3::Bucket",
    "AWS::SecretsManager::Secret",
    "AWS::SQS::Queue",
}

# Statements with the resource "*": AWS supports no narrower resource, or the policy belongs to a
# resource, which "*" then means. The template has the reason beside each statement.
FOR_EVERY_RESOURCE = {
    "TheAccountDecides",
    "EncryptTheLogs",
    "SourcesEncryptMessages",
    "SendersEncryptMessages",
    "ReadersDecryptFiles",
    "TheVaultOpens",
    "NobodyElseOpens",
    "SendTraces",
    "LambdaJoinsTheSubnets",
    "TheCodeDoesNot",
}


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    """Read the template."""
    return read_template()


@pytest.fixture(scope="module")
def resources(template: dict[str, Any]) -> dict[str, Any]:
    """Read the resources."""
    return template["Resources"]


@pytest.fixture(scope="module")
def default(template: dict[str, Any]) -> dict[str, Any]:
    """Read the defaults of the parameters."""
    parameters = template["Parameters"].items()
    return {name: parameter.get("Default") for name, parameter in parameters}


def test_table_of_contents_matches_the_section_banners() -> None:
    text = TEMPLATE.read_text()
    contents = re.search(r"^# Contents\..*\n#\n((?:#   .+\n)+)", text, re.MULTILINE)[1]
    banners = re.findall(r"^ *# == (.+) ==$", text, re.MULTILINE)

    assert len(banners) > 10
    assert [line.removeprefix("#   ") for line in contents.splitlines()] == banners


def test_every_parameter_is_documented_with_its_default(
    default: dict[str, Any],
) -> None:
    section = (ROOT / "docs" / "configuration.md").read_text().split("## Template parameters")[1]
    rows = re.findall(r"^\| `(\w+)` \| (?:`(.+)`)? ?\|", section, re.MULTILINE)

    assert rows == [(name, str(value)) for name, value in default.items()]


@pytest.mark.parametrize("environment", ["", *SAMCONFIG])
def test_visibility_timeout_follows_the_advice_of_aws(
    default: dict[str, Any], environment: str
) -> None:
    settings = default | (_overrides(environment) if environment else {})
    advised = 6 * int(settings["FunctionTimeout"]) + int(settings["BatchingWindow"])

    assert int(settings["VisibilityTimeout"]) >= advised


@pytest.mark.parametrize("environment", SAMCONFIG)
def test_packages_are_uploaded_under_the_stacks_name(environment: str) -> None:
    section = tomllib.loads((ROOT / "samconfig.toml").read_text())[environment]

    # The pipeline's role may upload to this prefix only.
    stack = section["global"]["parameters"]["stack_name"]
    assert section["deploy"]["parameters"]["s3_prefix"] == stack


def test_one_hour_outage_makes_no_dead_letter(default: dict[str, Any]) -> None:
    # A failed batch is redelivered after its visibility timeout, and not before.
    survived = default["MaxReceiveCount"] * default["VisibilityTimeout"]

    assert survived >= HOUR_S


def test_lone_failing_batch_raises_and_keeps_an_alarm(
    resources: dict[str, Any], default: dict[str, Any]
) -> None:
    returns_after_s = sum(
        default[name] for name in ("VisibilityTimeout", "FunctionTimeout", "BatchingWindow")
    )
    on_failures = {
        "Errors",
        "Throttles",
        "database_error",
        "batch_failed",
        "used_percent",
    }
    watching = [
        alarm
        for alarm in _alarms(resources).values()
        if alarm["MetricName"] in on_failures
        and alarm["Dimensions"][0]["Value"] == {"Ref": "IngestFunction"}
    ]

    assert len(watching) == len(on_failures)
    for alarm in watching:
        watched_s = alarm["EvaluationPeriods"] * alarm["Period"]
        assert alarm["DatapointsToAlarm"] * returns_after_s <= watched_s


def test_messages_are_kept_for_14_days(resources: dict[str, Any]) -> None:
    queues = [resources[name]["Properties"] for name in ("LoginQueue", "DeadLetterQueue")]

    # SQS's maximum. Without this property SQS deletes waiting logins after 4 days.
    assert [queue["MessageRetentionPeriod"] for queue in queues] == [
        14 * DAY_S,
        14 * DAY_S,
    ]
    assert queues[1]["RedriveAllowPolicy"]["redrivePermission"] == "byQueue"


def test_ledger_outlasts_every_message(resources: dict[str, Any]) -> None:
    prune = (ROOT / "src" / "schema" / "prune.sql").read_text()
    emptied_after_days = int(re.search(r"FOR age IN (\d+)\.\.30 LOOP", prune)[1])
    kept_s = max(
        resources[name]["Properties"]["MessageRetentionPeriod"]
        for name in ("LoginQueue", "DeadLetterQueue")
    )

    # A message keeps the time at which it was sent in both queues. One day for clock errors.
    assert emptied_after_days * DAY_S >= kept_s + DAY_S


def test_alarms_on_states_ignore_missing_data(resources: dict[str, Any]) -> None:
    # SQS sends no metrics of a queue that was not used for hours, and migrate runs once a day:
    # the last value is still true. All other metrics are missing when nothing happens.
    states = {
        "ApproximateNumberOfMessagesVisible",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateAgeOfOldestMessage",
        "users_with_many_tokens",
    }
    alarms = _alarms(resources)

    ignoring = {name for name, alarm in alarms.items() if alarm["TreatMissingData"] == "ignore"}
    assert ignoring == {"MigrateErrorsAlarm", "ExportErrorsAlarm"} | {
        name for name, alarm in alarms.items() if alarm["MetricName"] in states
    }
    # No run of the export has no metric.
    assert alarms.pop("ExportMissingAlarm")["TreatMissingData"] == "breaching"
    others = {alarm["TreatMissingData"] for name, alarm in alarms.items() if name not in ignoring}
    assert others == {"notBreaching"}


def test_alarms_respect_the_limits_of_cloudwatch(resources: dict[str, Any]) -> None:
    for alarm in _alarms(resources).values():
        evaluated_s = alarm["Period"] * alarm["EvaluationPeriods"]

        # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html
        assert evaluated_s <= (7 * DAY_S if alarm["Period"] >= HOUR_S else DAY_S)
        assert alarm["Period"] % 60 == 0
        assert len(alarm["Dimensions"]) <= 30
        assert len(alarm["AlarmDescription"]) <= 1024


def test_names_of_two_regions_differ(resources: dict[str, Any]) -> None:
    # The names of these types are unique in an account, not in a region.
    everywhere = {
        "AWS::CloudWatch::Dashboard": "DashboardName",
        "AWS::IAM::Role": "RoleName",
        "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
        "AWS::S3::Bucket": "BucketName",
    }
    named = [
        resource["Properties"][everywhere[resource["Type"]]]
        for resource in resources.values()
        if everywhere.get(resource["Type"]) in resource["Properties"]
    ]

    assert named == [{"Fn::Sub": "${AWS::StackName}-${AWS::Region}"}]


def test_only_failed_messages_are_redelivered(resources: dict[str, Any]) -> None:
    mappings = [resources[name]["Properties"] for name in ("IngestMapping", "RedriveMapping")]

    for mapping in mappings:
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    redrive = resources["LoginQueue"]["Properties"]["RedrivePolicy"]
    assert redrive == {
        "deadLetterTargetArn": {"Fn::GetAtt": ["DeadLetterQueue", "Arn"]},
        "maxReceiveCount": {"Ref": "MaxReceiveCount"},
    }


def test_redrive_mapping_is_disabled_by_default(
    resources: dict[str, Any],
) -> None:
    assert resources["RedriveMapping"]["Properties"]["Enabled"] is False


def test_schema_exists_before_messages_are_received(resources: dict[str, Any]) -> None:
    assert resources["IngestFunction"]["DependsOn"] == "Schema"
    mapping = resources["IngestMapping"]["Properties"]
    assert mapping["FunctionName"] == {"Ref": "IngestFunction"}


def test_new_migration_changes_the_schema_version(resources: dict[str, Any]) -> None:
    files = (ROOT / "migrations").glob("V*.sql")
    newest = max(int(re.match(r"V(\d+)__", file.name)[1]) for file in files)

    assert resources["Schema"]["Properties"]["Version"] == newest


def test_salt_and_key_are_retained_and_not_rotated(
    resources: dict[str, Any],
) -> None:
    for name in ("Salt", "SecretsKey", "Key"):
        kept = resources[name]["DeletionPolicy"], resources[name]["UpdateReplacePolicy"]
        # Retain would also keep those of a first deployment that failed, for ever.
        assert kept == ("RetainExceptOnCreate", "Retain")
    salt = resources["Salt"]["Properties"]
    assert salt["GenerateSecretString"]["PasswordLength"] == 64
    assert salt["KmsKeyId"] == {"Fn::GetAtt": ["SecretsKey", "Arn"]}
    rotations = [
        resource
        for resource in resources.values()
        if resource["Type"] == "AWS::SecretsManager::RotationSchedule"
    ]
    assert rotations == []


def test_what_outlives_the_stack_has_no_fixed_name(resources: dict[str, Any]) -> None:
    outliving = {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource.get("DeletionPolicy", "Delete") != "Delete"
    }

    # The next stack of this name could not create a second resource of the same name.
    of_export = {"ExportKey", "ExportBucket", "ExportBucketPolicy"}
    of_vault = {"VaultKey", "VaultErasureBucket", "VaultErasureBucketPolicy"}
    others = {"Key", "SecretsKey", "Salt", "DatabaseCluster"}
    assert set(outliving) == of_export | of_vault | others
    for properties in outliving.values():
        assert properties.keys().isdisjoint({"Name", "DBClusterIdentifier", "BucketName"})


def test_stored_data_is_encrypted_with_the_stacks_keys(
    resources: dict[str, Any],
) -> None:
    settings = {
        "AWS::SQS::Queue": "KmsMasterKeyId",
        "AWS::SecretsManager::Secret": "KmsKeyId",
        "AWS::Logs::LogGroup": "KmsKeyId",
        "AWS::RDS::DBCluster": "KmsKeyId",
    }
    resting = [resource for resource in resources.values() if resource["Type"] in settings]

    assert len(resting) >= 7
    for resource in resting:
        is_secret = resource["Type"] == "AWS::SecretsManager::Secret"
        # Senders may decrypt with the key of the queues, so the salt must have another key.
        key = "SecretsKey" if is_secret else "Key"
        assert resource["Properties"][settings[resource["Type"]]] == {"Fn::GetAtt": [key, "Arn"]}
    for key in ("SecretsKey", "Key"):
        assert resources[key]["Properties"]["EnableKeyRotation"] is True


def test_exported_files_are_encrypted_private_and_kept(
    resources: dict[str, Any],
) -> None:
    bucket = resources["ExportBucket"]

    kept = bucket["DeletionPolicy"], bucket["UpdateReplacePolicy"]
    assert kept == ("RetainExceptOnCreate", "Retain")
    # Without its policy, a bucket that outlives the stack would be open to the whole account.
    assert resources["ExportBucketPolicy"]["DeletionPolicy"] == "RetainExceptOnCreate"
    properties = _resolve(bucket["Properties"], HasExportRetention=False)
    [encryption] = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"] == {
        "SSEAlgorithm": "aws:kms",
        "KMSMasterKeyID": {"Fn::GetAtt": ["ExportKey", "Arn"]},
    }
    assert set(properties["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(properties["PublicAccessBlockConfiguration"]) == 4
    assert properties["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    # An older version would keep a row that was erased.
    assert "VersioningConfiguration" not in properties
    assert resources["ExportKey"]["Properties"]["EnableKeyRotation"] is True


@pytest.mark.parametrize("keeps_all", [True, False])
def test_files_are_deleted_after_their_retention(
    resources: dict[str, Any], keeps_all: bool
) -> None:
    bucket = _resolve(resources["ExportBucket"]["Properties"], HasExportRetention=not keeps_all)

    unfinished, *old = bucket["LifecycleConfiguration"]["Rules"]

    assert unfinished["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 1}
    assert unfinished.keys().isdisjoint({"Prefix", "ExpirationInDays"})
    assert [rule["ExpirationInDays"] for rule in old] == (
        [] if keeps_all else [{"Ref": "ExportRetentionDays"}]
    )


def test_open_days_are_never_deleted(template: dict[str, Any]) -> None:
    parameter = template["Parameters"]["ExportRetentionDays"]
    pattern = re.compile(parameter["AllowedPattern"])

    # 0 keeps all. A day is final on the 15th day after it.
    assert parameter["Default"] == "0"
    allowed = [days for days in range(20000) if pattern.fullmatch(str(days))]
    assert allowed == [0, *range(16, 10000)]


def test_export_starts_with_its_schema_and_login(resources: dict[str, Any]) -> None:
    off, on = (
        _resolve(resources, HasExport=has_export, HasExportSecret=has_export)
        for has_export in (False, True)
    )

    # Each of these properties lets CloudFormation run migrate.
    before, after = (one["Schema"]["Properties"] for one in (off, on))
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"Export", "ExportSecret"}
    assert resources["ExportFunction"]["DependsOn"] == "Schema"
    assert "EXPORT" not in _variables(off["MigrateFunction"])
    assert _variables(on["MigrateFunction"])["EXPORT"] == "true"
    secret = resources["ExportSecret"]["Properties"]["GenerateSecretString"]
    assert json.loads(secret["SecretStringTemplate"]) == {"username": "login_export"}


def test_stack_without_export_has_nothing_of_it(resources: dict[str, Any]) -> None:
    of_export = {name for name in resources if name.startswith("Export")}

    assert len(of_export) == 11
    for name in of_export - {"ExportSecret"}:
        assert resources[name]["Condition"] == "HasExport"
    assert resources["ExportSecret"]["Condition"] == "HasExportSecret"
    # The dashboard has its variables, which are then empty.
    others = {name: resources[name] for name in resources.keys() - of_export - {"Dashboard"}}
    off = dict.fromkeys(("HasExport", "HasExportSecret"), False)
    assert "Export" not in json.dumps(_resolve(others, **off))


def test_key_of_vault_agrees_and_outlives_the_stack(resources: dict[str, Any]) -> None:
    key = resources["VaultKey"]

    assert (key["DeletionPolicy"], key["UpdateReplacePolicy"]) == (
        "RetainExceptOnCreate",
        "Retain",
    )
    properties = key["Properties"]
    # KMS rotates no such key, and deletes it 30 days after a request at the earliest.
    assert properties.keys() == {"Description", "KeySpec", "KeyUsage", "KeyPolicy"}
    assert (properties["KeySpec"], properties["KeyUsage"]) == (
        "ECC_NIST_P256",
        "KEY_AGREEMENT",
    )


def test_vault_starts_with_its_public_key_and_login(resources: dict[str, Any]) -> None:
    off, on = (
        _resolve(
            resources,
            HasVault=has_vault,
            HasVaultSecret=has_vault,
            HasKmsEndpoint=has_vault,
        )
        for has_vault in (False, True)
    )

    # Each of these properties lets CloudFormation run migrate.
    before, after = (one["Schema"]["Properties"] for one in (off, on))
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {"Vault", "VaultSecret", "VaultErasures"}
    public_key = {"Fn::GetAtt": ["VaultPublicKey", "PublicKey"]}
    assert after["Vault"] == public_key
    assert _variables(on["IngestFunction"])["VAULT_PUBLIC_KEY"] == public_key
    migrate, vault = _variables(on["MigrateFunction"]), _variables(on["VaultFunction"])
    assert migrate["VAULT_PUBLIC_KEY"] == public_key
    own = {"Fn::GetAtt": ["VaultKey", "Arn"]}
    key = {"Fn::If": ["CreatesVaultKey", own, {"Ref": "VaultKeyArn"}]}
    assert migrate["VAULT_KMS_KEY"] == vault["VAULT_KMS_KEY"] == key
    list_of_stack, list_before = {"Ref": "VaultErasureBucket"}, {"Ref": "VaultErasureBucketName"}
    erasures = {"Fn::If": ["CreatesErasureBucket", list_of_stack, list_before]}
    assert migrate["VAULT_ERASURE_BUCKET"] == vault["VAULT_ERASURE_BUCKET"] == erasures
    for function in ("IngestFunction", "MigrateFunction"):
        assert not any(name.startswith("VAULT") for name in _variables(off[function]))
    secret = resources["VaultSecret"]["Properties"]["GenerateSecretString"]
    assert json.loads(secret["SecretStringTemplate"]) == {"username": "login_vault"}
    # The schema needs the public key, so the function cannot wait for the schema.
    assert "DependsOn" not in resources["VaultFunction"]


def test_public_key_waits_for_its_network(resources: dict[str, Any]) -> None:
    properties = _resolve(resources["VaultPublicKey"]["Properties"], CreatesDatabase=True)

    assert properties["ServiceToken"] == {"Fn::GetAtt": ["VaultFunction", "Arn"]}
    assert (properties["Way"], properties["Endpoint"]) == (
        {"Ref": "S3Endpoint"},
        {"Ref": "KmsEndpoint"},
    )
    longest = resources["VaultFunction"]["Properties"]["Timeout"]
    assert properties["ServiceTimeout"] > longest


def test_each_route_of_vault_is_signed_and_single(resources: dict[str, Any]) -> None:
    routes = {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::ApiGatewayV2::Route" and name.startswith("Vault")
    }

    assert {one["RouteKey"] for one in routes.values()} == {
        "POST /token",
        "POST /reveal",
        "POST /erase",
        "POST /audit",
        "POST /verify",
        "POST /honey",
    }
    assert {one["AuthorizationType"] for one in routes.values()} == {"AWS_IAM"}
    # A body would be a copy of a value.
    logged = resources["VaultApiStage"]["Properties"]["AccessLogSettings"]["Format"]
    assert set(re.findall(r"\$context\.[\w.]+", logged)) == {
        "$context.requestId",
        "$context.identity.userArn",
        "$context.routeKey",
        "$context.status",
        "$context.responseLatency",
        "$context.error.messageString",
    }


def test_stack_without_vault_has_nothing_of_it(resources: dict[str, Any]) -> None:
    of_vault = {name for name in resources if name.startswith("Vault")}

    assert len(of_vault) == 33
    others = {
        "VaultKey": "CreatesVaultKey",
        "VaultErasureBucket": "CreatesErasureBucket",
        "VaultErasureBucketPolicy": "CreatesErasureBucket",
        "VaultSecret": "HasVaultSecret",
        "VaultRequestsQuery": "HasVaultQueries",
    }
    for name in of_vault:
        assert resources[name]["Condition"] == others.get(name, "HasVault")
    # The dashboard has its variables, which are then empty.
    others = {name: resources[name] for name in resources.keys() - of_vault - {"Dashboard"}}
    off = dict.fromkeys(("HasVault", "HasVaultSecret", "CreatesErasureBucket"), False)
    assert "Vault" not in json.dumps(_resolve(others, **off)).replace("HasVault", "")


def test_functions_decrypt_through_one_service_only(resources: dict[str, Any]) -> None:
    decrypting = [
        statement for statement in _statements(resources) if statement["Action"] == "kms:Decrypt"
    ]

    services = [
        statement["Condition"]["StringEquals"]["kms:ViaService"]["Fn::Sub"].split(".")[0]
        for statement in decrypting
    ]

    assert sorted(services) == [
        "secretsmanager",
        "secretsmanager",
        "secretsmanager",
        "sqs",
    ]


def test_endpoints_lead_to_this_account_only(resources: dict[str, Any]) -> None:
    endpoints = {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::EC2::VPCEndpoint"
    }
    allowed = {
        name: endpoint["PolicyDocument"]["Statement"] for name, endpoint in endpoints.items()
    }

    to_cloudformation, *optional = allowed.pop("S3Endpoint")
    conditions, (to_bucket, to_erasures), nothing = zip(
        *(one["Fn::If"] for one in optional), strict=True
    )
    assert (conditions, {*map(str, nothing)}) == (("HasExport", "HasVault"), {str(NO_VALUE)})
    assert to_erasures["Action"] == ["s3:GetObject", "s3:ListBucket", "s3:PutObject"]
    assert to_erasures["Condition"] == to_bucket["Condition"]
    assert to_bucket["Action"] == ["s3:AbortMultipartUpload", "s3:PutObject"]
    assert to_bucket["Resource"] == {"Fn::Sub": "${ExportBucket.Arn}/*"}
    assert set(to_bucket["Condition"]["StringEquals"]) == {
        "aws:PrincipalAccount",
        "aws:ResourceAccount",
    }
    bucket, parts = to_cloudformation["Resource"]["Fn::Sub"]
    assert bucket.endswith(":s3:::cloudformation-custom-resource-response-${Region}/*")
    assert parts == {
        "Region": {"Fn::Join": ["", {"Fn::Split": ["-", {"Ref": "AWS::Region"}]}]},
    }
    assert allowed["SqsEndpoint"][0]["Action"] == "sqs:ChangeMessageVisibility"
    assert allowed["SqsEndpoint"][0]["Resource"] == {"Fn::GetAtt": ["LoginQueue", "Arn"]}
    assert set(allowed) == {
        "SecretsManagerEndpoint",
        "SqsEndpoint",
        "KmsEndpoint",
        "LogsEndpoint",
        "XRayEndpoint",
    }
    # Without VpcEndpoints=all, only the vault's function calls KMS.
    [of_kms] = allowed["KmsEndpoint"]
    calls = ["kms:DeriveSharedSecret", "kms:GetPublicKey"]
    assert of_kms["Action"] == {"Fn::If": ["CreatesAllEndpoints", "kms:*", calls]}
    account = {"Ref": "AWS::AccountId"}
    for name, [statement] in allowed.items():
        conditions = statement["Condition"]["StringEquals"]
        assert conditions["aws:PrincipalAccount"] == account
        # X-Ray's data goes to the account of the credentials.
        assert conditions.get("aws:ResourceAccount", name) in (account, "XRayEndpoint")


def test_queues_refuse_connections_without_tls(resources: dict[str, Any]) -> None:
    policy = resources["QueuePolicy"]["Properties"]
    [statement, *optional] = policy["PolicyDocument"]["Statement"]

    assert policy["Queues"] == [{"Ref": "LoginQueue"}, {"Ref": "DeadLetterQueue"}]
    # test_senders.py tests what these allow.
    assert [one["Fn::If"][0] for one in optional] == ["HasSources", "HasSenders"]
    assert (statement["Effect"], statement["Action"]) == ("Deny", "sqs:*")
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_created_database_requires_tls_and_is_retained(
    resources: dict[str, Any],
) -> None:
    parameters = resources["DatabaseParameters"]["Properties"]["Parameters"]
    cluster = resources["DatabaseCluster"]

    assert parameters["rds.force_ssl"] == "1"
    assert (cluster["DeletionPolicy"], cluster["UpdateReplacePolicy"]) == (
        "Snapshot",
        "Snapshot",
    )
    assert cluster["Properties"]["ManageMasterUserPassword"] is True
    created = _resolve(cluster["Properties"], RestoresDatabase=False)
    assert created["StorageEncrypted"] is True
    assert created["MasterUsername"] == "login_owner"
    assert "SnapshotIdentifier" not in created


def test_restored_database_takes_owner_from_its_snapshot(
    resources: dict[str, Any],
) -> None:
    restored = _resolve(resources["DatabaseCluster"]["Properties"], RestoresDatabase=True)

    assert restored["SnapshotIdentifier"] == {"Ref": "DatabaseSnapshot"}
    # https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-rds-dbcluster.html
    # says of these two: if you specify SnapshotIdentifier, don't specify this property.
    assert restored.keys().isdisjoint({"MasterUsername", "StorageEncrypted"})
    assert restored["ManageMasterUserPassword"] is True
    assert restored["KmsKeyId"] == {"Fn::GetAtt": ["Key", "Arn"]}


def test_first_deployment_creates_no_protected_database(
    resources: dict[str, Any], default: dict[str, Any]
) -> None:
    cluster = resources["DatabaseCluster"]["Properties"]

    # A rollback cannot delete a protected database: the stack would stay in ROLLBACK_FAILED.
    assert cluster["DeletionProtection"] == {"Ref": "DatabaseDeletionProtection"}
    assert default["DatabaseDeletionProtection"] == "false"


def test_idle_sessions_end_only_where_database_pauses(
    resources: dict[str, Any],
) -> None:
    group = resources["DatabaseParameters"]["Properties"]

    pausing, awake = (
        _resolve(group, PausesDatabase=pauses)["Parameters"] for pauses in (True, False)
    )

    assert pausing["idle_session_timeout"] == "60000"
    assert "idle_session_timeout" not in awake


def test_migrate_reaches_aws_in_every_created_network(
    resources: dict[str, Any],
) -> None:
    needed = [
        name
        for name, resource in resources.items()
        if resource.get("Condition") == "CreatesDatabase"
        and resource["Type"] == "AWS::EC2::VPCEndpoint"
    ]
    waits_for = json.dumps(resources["Schema"]["Properties"])

    # Without S3, migrate cannot answer CloudFormation, neither to create nor to delete.
    assert needed == ["S3Endpoint", "SecretsManagerEndpoint", "SqsEndpoint"]
    assert '"S3Endpoint"' in waits_for
    assert '"SecretsManagerEndpoint"' in waits_for


@pytest.mark.parametrize(
    ("region", "in_china"),
    [
        ("eu-central-1", False),
        ("us-gov-west-1", False),
        ("eusc-de-east-1", False),
        ("cn-north-1", True),
        ("cn-northwest-1", True),
    ],
)
def test_endpoints_have_their_names_in_each_partition(
    resources: dict[str, Any], region: str, in_china: bool
) -> None:
    names = {
        name: _sub(resource["Properties"]["ServiceName"], region, in_china)
        for name, resource in resources.items()
        if resource["Type"] == "AWS::EC2::VPCEndpoint"
    }

    assert names == {
        name: ("cn." if in_china and name in NAMED_OTHERWISE_IN_CHINA else "")
        + f"com.amazonaws.{region}.{service}"
        for name, service in ENDPOINTS.items()
    }


def test_parameters_that_replace_data_are_documented(template: dict[str, Any]) -> None:
    section = (ROOT / "docs" / "configuration.md").read_text()
    section = section.split("### Changes that replace or delete data")[1].split("\n#")[0]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)

    replacing = _replacing_parameters(template)

    assert set(documented) == replacing
    assert {"DatabaseName", "DatabaseSnapshot", "VpcCidr"} < replacing


def test_stack_policy_protects_everything_that_holds_data(
    resources: dict[str, Any],
) -> None:
    allow, deny = json.loads((ROOT / "deploy" / "stack-policy.json").read_text())["Statement"]

    assert (allow["Effect"], allow["Action"], allow["Resource"]) == (
        "Allow",
        "Update:*",
        "*",
    )
    assert (deny["Effect"], deny["Action"]) == (
        "Deny",
        ["Update:Replace", "Update:Delete"],
    )
    # The passwords are not among them: a switch to IAM deletes one, and migrate sets new ones.
    passwords = {
        "WriterSecret",
        "ReaderSecret",
        "ApiSecret",
        "ExportSecret",
        "VaultSecret",
    }
    assert set(deny["Resource"]) == {
        f"LogicalResourceId/{name}"
        for name, resource in resources.items()
        if resource["Type"] in STATEFUL - {"AWS::EC2::VPC"} and name not in passwords
    }


@pytest.mark.parametrize("may_resalt", [True, False])
def test_cloudformation_waits_longer_than_migrate_runs(
    template: dict[str, Any], may_resalt: bool
) -> None:
    resources = _resolve(template, MayResalt=may_resalt)["Resources"]
    longest = resources["MigrateFunction"]["Properties"]["Timeout"]

    assert resources["Schema"]["Properties"]["ServiceTimeout"] > longest


def test_log_of_created_database_stays_encrypted(resources: dict[str, Any]) -> None:
    parameters = resources["DatabaseParameters"]["Properties"]["Parameters"]
    cluster = resources["DatabaseCluster"]["Properties"]

    # RDS would create a log group without a key and without an end of retention.
    assert "EnableCloudwatchLogsExports" not in cluster
    assert cluster["KmsKeyId"] == {"Fn::GetAtt": ["Key", "Arn"]}
    assert parameters == {
        "rds.force_ssl": "1",
        "log_error_verbosity": "terse",
        "rds.log_retention_period": str(3 * 24 * 60),
        "idle_session_timeout": {"Fn::If": ["PausesDatabase", "60000", NO_VALUE]},
    }


def test_code_of_function_takes_no_messages(resources: dict[str, Any]) -> None:
    allowed = _statement(resources["IngestRole"], "TakeMessages")
    denied = _statement(resources["IngestRole"], "TheCodeTakesNone")

    assert denied["Effect"] == "Deny"
    assert denied["Resource"] == allowed["Resource"]
    # Needs no right of its own: it reveals no message.
    assert set(allowed["Action"]) - set(denied["Action"]) == {"sqs:GetQueueAttributes"}
    assert denied["Condition"] == {
        "ArnLike": {
            "lambda:SourceFunctionArn": {
                "Fn::Sub": "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}"
                ":function:*"
            }
        }
    }
    assert _statement(resources["IngestRole"], "ReturnBadMessages") == {
        "Sid": "ReturnBadMessages",
        "Effect": "Allow",
        "Action": "sqs:ChangeMessageVisibility*",
        "Resource": {"Fn::GetAtt": ["LoginQueue", "Arn"]},
    }


def test_rows_are_read_without_the_owners_secret(template: dict[str, Any]) -> None:
    resources, outputs = template["Resources"], template["Outputs"]
    secret = resources["ReaderSecret"]["Properties"]["GenerateSecretString"]

    assert json.loads(secret["SecretStringTemplate"]) == {"username": "login_analyst"}
    assert "--secret-arn ${ReaderSecret.Id}" in outputs["ReadRows"]["Value"]["Fn::Sub"]
    assert "MasterUserSecret" not in json.dumps(outputs["ReadRows"])
    owners = [name for name, output in outputs.items() if "MasterUserSecret" in json.dumps(output)]
    assert owners == ["OwnerSecretArn"]


def test_only_listed_policies_use_wildcards(
    resources: dict[str, Any],
) -> None:
    optional = dict.fromkeys(("HasSources", "HasSenders", "HasExportReaders", "UsesIam"), True)
    statements = list(_statements(_resolve(resources, **optional)))

    assert len(statements) > 10
    assert {statement.get("Sid") for statement in statements} >= FOR_EVERY_RESOURCE
    for statement in statements:
        if statement.get("Sid") in FOR_EVERY_RESOURCE or _is_of_endpoint(statement):
            continue
        assert statement["Resource"] != "*", statement
        # The star of this statement matches one action of AWS: see the template.
        if statement["Effect"] == "Allow" and statement.get("Sid") != "ReturnBadMessages":
            assert "*" not in str(statement["Action"]), statement


def test_environment_variables_hold_no_secret(template: dict[str, Any]) -> None:
    everywhere = template["Globals"]["Function"]["Environment"]["Variables"]
    functions = {
        name: set(resource["Properties"]["Environment"]["Variables"])
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::Serverless::Function"
    }

    assert set(everywhere) == {
        "DATABASE_HOST",
        "DATABASE_PORT",
        "DATABASE_SCHEMA",
        "DATABASE_NAME",
        "DATABASE_CA_BUNDLE",
        "DATABASE_CA_BUNDLE_ONLY",
        "RUST_LOG",
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
    }
    assert functions == {
        "IngestFunction": {
            "SALT_SECRET_ID",
            "DATABASE_AUTHENTICATION",
            "DATABASE_USER",
            "DATABASE_SECRET_ID",
            "QUEUE_URL",
            "EXPECTED_ENVELOPES",
            "VAULT_PUBLIC_KEY",
        },
        "MigrateFunction": {
            "DATABASE_SECRET_ID",
            "WRITER_AUTHENTICATION",
            "WRITER_SECRET_ID",
            "READER_SECRET_ID",
            "ANALYSTS",
            "API_SECRET_ID",
            "EXPORT",
            "EXPORT_SECRET_ID",
            "VAULT_PUBLIC_KEY",
            "VAULT_KMS_KEY",
            "VAULT_SECRET_ID",
            "VAULT_ERASURE_BUCKET",
            "SALT_SECRET_ID",
            "LOGIN_RETENTION_DAYS",
        },
        "ExportFunction": {
            "DATABASE_AUTHENTICATION",
            "DATABASE_USER",
            "DATABASE_SECRET_ID",
            "EXPORT_BUCKET",
        },
        "VaultFunction": {
            "SALT_SECRET_ID",
            "DATABASE_AUTHENTICATION",
            "DATABASE_USER",
            "DATABASE_SECRET_ID",
            "VAULT_KMS_KEY",
            "VAULT_ERASURE_BUCKET",
        },
        "ApiFunction": {
            "DATABASE_AUTHENTICATION",
            "DATABASE_USER",
            "DATABASE_SECRET_ID",
            "ALB_ARN",
            "OIDC_ISSUER",
            "OIDC_CLIENT_ID",
        },
    }
    # The secret of the OpenID provider has values that are no secrets, too.
    text = json.dumps(template["Resources"]["ApiFunction"])
    assert {*re.findall(r"SecretString:(\w+)", text)} == {"issuer", "client_id"}


def test_password_stack_reads_the_secret_and_forbids_tokens(
    template: dict[str, Any],
) -> None:
    conditions = {"CreatesDatabase": True, "UsesIam": False, "HasVault": False}
    resources = _resolve(template, **conditions)["Resources"]

    assert _variables(resources["IngestFunction"]) == {
        "SALT_SECRET_ID": {"Fn::GetAtt": ["Salt", "Id"]},
        "DATABASE_AUTHENTICATION": {"Ref": "DatabaseAuthentication"},
        "DATABASE_SECRET_ID": {"Fn::GetAtt": ["WriterSecret", "Id"]},
        "QUEUE_URL": {"Ref": "LoginQueue"},
        "EXPECTED_ENVELOPES": {"Ref": "ExpectedEnvelopes"},
    }
    assert _variables(resources["MigrateFunction"])["WRITER_SECRET_ID"] == {
        "Fn::GetAtt": ["WriterSecret", "Id"]
    }
    assert _statement(resources["IngestRole"], "LogInAsTheWriter") is None
    assert _statement(resources["IngestRole"], "ReadTheSecrets")["Resource"] == [
        {"Fn::GetAtt": ["Salt", "Id"]},
        {"Fn::GetAtt": ["WriterSecret", "Id"]},
    ]
    cluster = resources["DatabaseCluster"]["Properties"]
    assert cluster["EnableIAMDatabaseAuthentication"] is False


@pytest.mark.parametrize(
    ("creates", "resource_id"),
    [
        (True, {"Fn::GetAtt": ["DatabaseCluster", "DBClusterResourceId"]}),
        (False, {"Ref": "DatabaseResourceId"}),
    ],
)
def test_iam_stack_allows_one_database_and_no_password(
    template: dict[str, Any], creates: bool, resource_id: dict[str, Any]
) -> None:
    absent = ("HasAnalysts", "HasApiSecret", "HasExport", "HasExportSecret")
    absent += ("HasVault", "HasVaultSecret", "MayResalt")
    none = dict.fromkeys(absent, False) | {"HasReader": creates}
    resolved = _resolve(template, CreatesDatabase=creates, UsesIam=True, **none)
    resources = resolved["Resources"]

    assert _variables(resources["IngestFunction"]) == {
        "SALT_SECRET_ID": {"Fn::GetAtt": ["Salt", "Id"]},
        "DATABASE_AUTHENTICATION": {"Ref": "DatabaseAuthentication"},
        "DATABASE_USER": "login_writer",
        "QUEUE_URL": {"Ref": "LoginQueue"},
        "EXPECTED_ENVELOPES": {"Ref": "ExpectedEnvelopes"},
    }
    readers = {"READER_SECRET_ID"} if creates else set()
    assert set(_variables(resources["MigrateFunction"])) == readers | {
        "DATABASE_SECRET_ID",
        "WRITER_AUTHENTICATION",
        "LOGIN_RETENTION_DAYS",
    }
    assert _statement(resources["IngestRole"], "LogInAsTheWriter") == {
        "Sid": "LogInAsTheWriter",
        "Effect": "Allow",
        "Action": "rds-db:connect",
        "Resource": {
            "Fn::Sub": [
                "arn:${AWS::Partition}:rds-db:${AWS::Region}:${AWS::AccountId}"
                ":dbuser:${Database}/login_writer",
                {"Database": resource_id},
            ]
        },
    }
    assert _statement(resources["IngestRole"], "ReadTheSecrets")["Resource"] == [
        {"Fn::GetAtt": ["Salt", "Id"]}
    ]
    # No resource, setting or output contains a password.
    assert resources.pop("WriterSecret")["Condition"] == "UsesPassword"
    assert resolved["Outputs"].pop("WriterSecretArn")["Condition"] == "UsesPassword"
    assert "WriterSecret" not in json.dumps(resolved)
    cluster = resources["DatabaseCluster"]["Properties"]
    assert cluster["EnableIAMDatabaseAuthentication"] is True


def test_changed_authentication_runs_the_migration(template: dict[str, Any]) -> None:
    by_password, by_iam = (
        _resolve(template, CreatesDatabase=True, UsesIam=uses_iam)["Resources"]["Schema"]
        for uses_iam in (False, True)
    )

    assert by_password["Properties"]["Writer"] != by_iam["Properties"]["Writer"]


def _alarms(resources: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: resource["Properties"]
        for name, resource in resources.items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }


def _overrides(environment: str) -> dict[str, str]:
    """Read the parameters of an environment in samconfig.toml."""
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    overrides = config[environment]["global"]["parameters"]["parameter_overrides"]
    return dict(override.split("=", 1) for override in overrides)


def _sub(text: dict[str, Any], region: str, in_china: bool) -> str:
    """Substitute the variables of a Fn::Sub, with or without a list of its own."""
    form = _resolve(text, InChina=in_china)["Fn::Sub"]
    form, variables = form if isinstance(form, list) else (form, {})
    variables = variables | {"AWS::Region": region}
    return re.sub(r"\$\{([^}]+)\}", lambda found: variables[found[1]], form)


def _replacing_parameters(template: dict[str, Any]) -> set[str]:
    """Find the parameters whose change replaces or deletes a stateful resource."""
    return set().union(
        *(
            _replaced_by(template, name)
            for name, resource in template["Resources"].items()
            if resource["Type"] in STATEFUL
        )
    )


def _replaced_by(template: dict[str, Any], name: str) -> set[str]:
    """Find the parameters in the properties that CloudFormation sets only at the creation."""
    resource = template["Resources"][name]
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("eu-central-1", resource["Type"]).schema
    fixed = {
        path.split("/")[2]
        for kind in ("createOnlyProperties", "conditionalCreateOnlyProperties")
        for path in schema.get(kind, [])
    }
    values = [value for key, value in resource["Properties"].items() if key in fixed]
    return _parameters_in(template, [values, {"Condition": resource.get("Condition")}])


def _parameters_in(template: dict[str, Any], value: Any) -> set[str]:  # noqa: ANN401 - JSON
    """Find the parameters that a value depends on, also through conditions and other resources."""
    if isinstance(value, list):
        return set().union(*(_parameters_in(template, item) for item in value))
    if not isinstance(value, dict):
        return set()
    found: set[str] = set()
    for key, item in value.items():
        if key == "Ref" and item in template["Parameters"]:
            found.add(item)
        elif key == "Ref" and item in template["Resources"]:
            found |= _replaced_by(template, item)
        elif key == "Condition" and item:
            found |= _parameters_in(template, template["Conditions"][item])
        elif key == "Fn::If":
            found |= _parameters_in(template, [{"Condition": item[0]}, *item[1:]])
        else:
            found |= _parameters_in(template, item)
    return found


def _resolve(value: Any, **conditions: bool) -> Any:  # noqa: ANN401 - of all JSON types
    """Resolve Fn::If with these conditions, and remove values that are AWS::NoValue."""
    if isinstance(value, dict) and "Fn::If" in value:
        condition, yes, no = value["Fn::If"]
        if condition in conditions:
            return _resolve(yes if conditions[condition] else no, **conditions)
    if isinstance(value, dict):
        present = {name: _resolve(item, **conditions) for name, item in value.items()}
        return {name: item for name, item in present.items() if item != NO_VALUE}
    if isinstance(value, list):
        present = [_resolve(item, **conditions) for item in value]
        return [item for item in present if item != NO_VALUE]
    return value


def _variables(function: dict[str, Any]) -> dict[str, Any]:
    return function["Properties"]["Environment"]["Variables"]


def _statement(role: dict[str, Any], sid: str) -> dict[str, Any] | None:
    """Find a statement in the role's policy."""
    statements = role["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
    return next((statement for statement in statements if statement.get("Sid") == sid), None)


def _is_of_endpoint(statement: dict[str, Any]) -> bool:
    """Return whether a statement allows everything, within this account."""
    return "aws:PrincipalAccount" in statement.get("Condition", {}).get("StringEquals", {})


def _statements(resources: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Find the statements of all policies, at any depth."""
    for value in resources.values():
        if not isinstance(value, dict | list):
            continue
        if isinstance(value, list):
            yield from _statements(dict(enumerate(value)))
            continue
        for statement in value.get("Statement", []):
            # The trust policy of a role has no resource.
            if "Resource" in statement:
                yield statement
        yield from _statements(value)
