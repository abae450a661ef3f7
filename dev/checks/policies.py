"""Decides what the policies of the template allow: part of `make validate`.

MiniStack's evaluator decides: an explicit Deny wins, then an Allow counts. botocore's models name
the actions of each service. Each action, on each resource of the stack and on others, must be
allowed if `ROLES` grants it, and denied otherwise.
"""

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import botocore.session
from botocore import xform_name
from ministack.core.iam_evaluator import (
    EvalContext,
    ParsedStatement,
    combine_resource_policy,
    evaluate,
    evaluate_resource_policy,
    parse_policy_document,
)

from dev import ROOT
from dev.checks.deployments import (
    ACCOUNT,
    OTHER_ACCOUNT,
    REGION,
    STACK,
    Deployment,
    Memory,
    arns,
    deployments,
    resolve,
)
from dev.checks.transform import transformed

Json = Any

# Who uses the role of a function. AWS sets `lambda:SourceFunctionArn` for the code only:
# https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html
CODE, LAMBDA = "the function's code", "Lambda itself"
FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:login-etl-prod-Function-1ABCDEFGHIJK"
SECRETS_MANAGER = f"secretsmanager.{REGION}.amazonaws.com"
SQS = f"sqs.{REGION}.amazonaws.com"
S3 = f"s3.{REGION}.amazonaws.com"
# Through which services KMS is called; None is a call of its own.
THROUGH = (None, SECRETS_MANAGER, SQS, S3)


@dataclass(frozen=True)
class Grant:
    """Actions that a role must have.

    Without resources they are allowed on all, because AWS supports no narrower resource. `via` is
    the only service through which KMS decrypts.
    """

    actions: tuple[str, ...]
    resources: tuple[str, ...] = ()
    users: tuple[str, ...] = (CODE, LAMBDA)
    via: str | None = None


TRACES = Grant(("xray:PutTraceSegments", "xray:PutTelemetryRecords"))
WRITE_LOGS = ("logs:CreateLogStream", "logs:PutLogEvents")
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html
NETWORK = Grant(
    (
        "ec2:CreateNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "ec2:DeleteNetworkInterface",
        "ec2:AssignPrivateIpAddresses",
        "ec2:UnassignPrivateIpAddresses",
    ),
    users=(LAMBDA,),
)

# What the vault does with its key. Nobody else may do the first.
OPENING = ("kms:DeriveSharedSecret", "kms:GetPublicKey")

# What each role needs. A resource that a stack does not have is left out.
ROLES = {
    "IngestRole": (
        Grant(("secretsmanager:GetSecretValue",), ("Salt", "WriterSecret")),
        Grant(("kms:Decrypt",), ("SecretsKey",), via=SECRETS_MANAGER),
        Grant(("kms:Decrypt",), ("Key",), via=SQS),
        Grant(("rds-db:connect",), ("login_writer",)),
        # https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
        Grant(
            ("sqs:ReceiveMessage", "sqs:DeleteMessage"),
            ("LoginQueue", "DeadLetterQueue"),
            (LAMBDA,),
        ),
        Grant(("sqs:GetQueueAttributes",), ("LoginQueue", "DeadLetterQueue")),
        Grant(("sqs:ChangeMessageVisibility",), ("LoginQueue",)),
        Grant(WRITE_LOGS, ("IngestLogGroup",)),
        TRACES,
    ),
    "MigrateRole": (
        Grant(
            ("secretsmanager:GetSecretValue",),
            (
                *("WriterSecret", "ReaderSecret", "ApiSecret", "ExportSecret", "VaultSecret"),
                *("OwnerSecret", "SaltToResalt"),
            ),
        ),
        Grant(
            ("kms:Decrypt",), ("SecretsKey", "OwnerKey", "KeyOfOwnerSecret"), via=SECRETS_MANAGER
        ),
        Grant(("s3:GetObject",), ("Erasure",)),
        Grant(("s3:ListBucket",), ("ErasureList",)),
        Grant(WRITE_LOGS, ("MigrateLogGroup",)),
        TRACES,
    ),
    "UpkeepRole": (Grant(("lambda:InvokeFunction",), ("MigrateFunction",)),),
    "ApiRole": (
        Grant(("secretsmanager:GetSecretValue",), ("ApiSecret",)),
        # Only with a password: a role that may read no secret decrypts none.
        Grant(("kms:Decrypt",), ("KeyOfApiSecret",), via=SECRETS_MANAGER),
        Grant(("rds-db:connect",), ("login_api",)),
        Grant(WRITE_LOGS, ("ApiLogGroup",)),
        TRACES,
    ),
    "ExportRole": (
        Grant(("secretsmanager:GetSecretValue",), ("ExportSecret",)),
        # Only with a password, as ApiRole.
        Grant(("kms:Decrypt",), ("KeyOfExportSecret",), via=SECRETS_MANAGER),
        Grant(("rds-db:connect",), ("login_export",)),
        Grant(("s3:PutObject", "s3:AbortMultipartUpload"), ("ExportedFile",)),
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
        Grant(("kms:GenerateDataKey", "kms:Decrypt"), ("ExportKey",), via=S3),
        Grant(WRITE_LOGS, ("ExportLogGroup",)),
        TRACES,
    ),
    "ExportRunRole": (Grant(("lambda:InvokeFunction",), ("ExportFunction",)),),
    # On a key of its own stack, it has its rights by the policy of the key.
    "VaultRole": (
        Grant(("secretsmanager:GetSecretValue",), ("Salt", "VaultSecret")),
        Grant(("kms:Decrypt",), ("SecretsKey",), via=SECRETS_MANAGER),
        *(Grant(OPENING, ("OlderVaultKey",), via=via) for via in THROUGH),
        Grant(("rds-db:connect",), ("login_vault",)),
        Grant(("s3:PutObject",), ("Erasure",)),
        Grant(WRITE_LOGS, ("VaultLogGroup",)),
        TRACES,
    ),
}
# The only service that assumes each role.
TRUSTED = {
    "ApiRole": "lambda.amazonaws.com",
    "ExportRole": "lambda.amazonaws.com",
    "ExportRunRole": "scheduler.amazonaws.com",
    "IngestRole": "lambda.amazonaws.com",
    "MigrateRole": "lambda.amazonaws.com",
    "UpkeepRole": "scheduler.amazonaws.com",
    "VaultRole": "lambda.amazonaws.com",
}
OTHER_SERVICES = ("ec2", "events", "s3", "sns")

# What senders need: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html
SENDING = {"Key": ("kms:GenerateDataKey", "kms:Decrypt"), "QueuePolicy": ("sqs:SendMessage",)}
UNLISTED_SOURCE = f"arn:aws:sns:{REGION}:{OTHER_ACCOUNT}:unlisted"
UNLISTED_SENDER = f"arn:aws:iam::{OTHER_ACCOUNT}:role/unlisted"

# A role of the stack's account that may do everything, but is not in ExportReaders.
UNLISTED_READER = f"arn:aws:iam::{ACCOUNT}:role/administrator"
EVERYTHING = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
# What the policy of the bucket decides for a reader: an action, and the resource.
READING_FILES = (
    ("s3:GetObject", "ExportedFile"),
    ("s3:GetObjectVersionForReplication", "ExportedFile"),
    ("s3:ListBucket", "ExportBucket"),
    ("s3:GetBucketLocation", "ExportBucket"),
)

# What the policy of the erasure list decides: an action, the resource, and who may do it beside the
# readers.
OF_ERASURES = (
    ("s3:PutObject", "Erasure", {"VaultRole"}),
    ("s3:PutObjectTagging", "Erasure", set()),
    ("s3:ReplicateObject", "Erasure", set()),
    ("s3:GetObject", "Erasure", {"MigrateRole", "a reader"}),
    ("s3:GetObjectVersion", "Erasure", set()),
    ("s3:GetObjectVersionForReplication", "Erasure", set()),
    ("s3:ListBucket", "ErasureList", {"MigrateRole", "a reader", "an administrator"}),
    ("s3:GetBucketLocation", "ErasureList", {"a reader", "an administrator"}),
    ("s3:PutBucketPolicy", "ErasureList", {"an administrator"}),
    ("s3:PutLifecycleConfiguration", "ErasureList", set()),
    ("s3:DeleteObject", "Erasure", set()),
    ("s3:DeleteObjectVersion", "Erasure", set()),
)

# The keys in the context of a call of a function URL:
# https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html
OF_URL = {"lambda:functionurlauthtype": "AWS_IAM", "lambda:invokedviafunctionurl": "true"}
FIND_THE_ADDRESS = ("cloudformation:DescribeStacks", "Stack", {})
# What the policies of people must allow: an action, the resource, and what the request must say of
# itself.
PEOPLE = {
    "AnalystsPolicy": (
        FIND_THE_ADDRESS,
        ("execute-api:Invoke", "HttpApi", {}),
        ("lambda:InvokeFunctionUrl", "FunctionUrl", OF_URL),
        ("lambda:InvokeFunction", "FunctionUrl", OF_URL),
    ),
    "VaultTokenPolicy": (FIND_THE_ADDRESS, ("execute-api:Invoke", "POST /token", {})),
    "VaultReaderPolicy": (FIND_THE_ADDRESS, ("execute-api:Invoke", "POST /reveal", {})),
    "VaultEraserPolicy": (FIND_THE_ADDRESS, ("execute-api:Invoke", "POST /erase", {})),
    "VaultAuditorPolicy": (FIND_THE_ADDRESS, ("execute-api:Invoke", "POST /audit", {})),
    "VaultVerifierPolicy": (FIND_THE_ADDRESS, ("execute-api:Invoke", "POST /verify", {})),
    "VaultHoneyPolicy": (FIND_THE_ADDRESS, ("execute-api:Invoke", "POST /honey", {})),
}

# Actions that no operation of the SDK is called after.
MORE_ACTIONS = {
    "lambda": ["lambda:InvokeFunctionUrl"],
    "s3": ["s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:ListMultipartUploadParts"],
}
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html#mpuAndPermissions
UPLOADS = {"CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"}

# The actions that are no operations of an SDK: a login to the database, and a call of an API.
NO_SDK = {
    "execute-api": ["Invoke", "InvalidateCache", "ManageConnections"],
    "rds-db": ["connect"],
}

# Resources of nobody's stack, by service.
OTHERS = {
    "cloudformation": "stack/other/1",
    "ec2": "network-interface/eni-1",
    "execute-api": "other/$default/GET/v1/freshness",
    "kms": "key/other",
    "lambda": "function:other",
    "logs": "log-group:other:log-stream:other",
    "rds-db": "dbuser:cluster-OTHER/login_writer",
    "s3": "other/user_logins/dt=2026-11-22/part-00000.parquet",
    "secretsmanager": "secret:other",
    "sqs": "other",
    "xray": "group/other",
}


@dataclass(frozen=True)
class Stack:
    """A kind of stack, its resources, and the ARNs that policies name."""

    deployment: Deployment
    resources: Json
    arns: dict[str, str]


def stacks(template: Json) -> Iterator[Stack]:
    """Yield the kinds of stack whose policies differ."""
    seen = set()
    memory: Memory = {}
    for deployment in deployments(template):
        resources = resolve(template, deployment, memory)["Resources"]
        others = ("ExportKey", "ExportBucketPolicy", "VaultKey", "NetworkPolicy")
        others += ("VaultErasureBucketPolicy",)
        judged = (*ROLES, *SENDING, *PEOPLE, *others)
        named = {name: resources.get(name) for name in judged}
        if (text := json.dumps(named)) not in seen:
            seen.add(text)
            yield Stack(deployment, resources, _arns(template, deployment))


def findings(template: Json) -> Iterator[str]:
    """Yield what the policies allow without need, and what they do not allow in spite of need."""
    for name in ("SourceArns", "SenderArns"):
        if name not in template["Parameters"]:
            yield f"there is no parameter {name}: no topic, rule or other account can send"
    for stack in stacks(template):
        yield from _of_sources(stack)
        yield from _of_senders(stack)
        yield from _of_log_groups(stack)
        if "ExportBucket" in stack.resources:
            yield from _of_readers(stack)
        if "VaultKey" in stack.resources:
            yield from _of_vault_key(stack)
        if "VaultErasureBucket" in stack.resources:
            yield from _of_erasures(stack)
        for policy in PEOPLE.keys() & stack.resources.keys():
            yield from _of_people(stack, policy)
        for role, resource in stack.resources.items():
            if resource["Type"] != "AWS::IAM::Role":
                continue
            if role in ROLES:
                yield from _of_trust(stack, role)
                yield from _of_role(stack, role)
            else:
                yield f"{role}: policies.py does not say what this role needs"


def calls_without_grant() -> list[str]:
    """Return the calls of the AWS SDK in the functions' code that no role grants to the code.

    The Rust SDK is generated from the same models as botocore: the method has the operation's name.
    """
    granted = {
        action
        for grants in ROLES.values()
        for grant in grants
        for action in grant.actions
        if CODE in grant.users
    }
    packages = [ROOT, *(ROOT / "crates" / name for name in ("api", "export", "vault"))]
    manifests = [path / "Cargo.toml" for path in packages if (path / "Cargo.toml").exists()]
    dependencies = "".join(path.read_text() for path in manifests)
    services = {*re.findall(r"^aws-sdk-(\w+) ?=", dependencies, re.MULTILINE)}
    sources = [path for package in packages for path in (package / "src").rglob("*.rs")]
    text = "".join(path.read_text() for path in sources)
    called = {
        _action(service, operation)
        for service in services
        for operation in _operations(service)
        if f".{xform_name(operation)}()" in text
    }
    if not called:
        return ["policies.py finds no call of the AWS SDK in the functions"]
    unknown = sorted(called - granted)
    return [f"a function calls {action}, which no role allows" for action in unknown]


def _of_role(stack: Stack, role: str) -> Iterator[str]:
    """Compare what a role allows with what it needs."""
    policies = _policies(stack, role)
    needed = {*_needed(stack, role)}
    named = {action for policy in policies for one in policy for action in one.actions}
    services = {action.split(":")[0] for action in (*named, *(case[1] for case in needed))}
    if unknown := services - {*OTHERS}:
        yield f"{role}: policies.py does not know the service {', '.join(sorted(unknown))}"
    for service in sorted(services & {*OTHERS}):
        targets = {n: arn for n, arn in stack.arns.items() if arn.split(":")[2] == service}
        through = THROUGH if service == "kms" else (None,)
        for action, user, via in product(_actions(service), (CODE, LAMBDA), through):
            for name, arn in targets.items():
                is_allowed = _allows(policies, user, action, arn, via)
                if is_allowed != ((user, action, arn, via) in needed):
                    verb = "may" if is_allowed else "may not"
                    yield f"{role}: {user} {verb} {action} on {name} (through {via})"


def _needed(stack: Stack, role: str) -> Iterator[tuple[str, str, str, str | None]]:
    in_vpc = "NetworkPolicy" in stack.resources and TRUSTED[role] == "lambda.amazonaws.com"
    for grant in (*ROLES[role], *([NETWORK] if in_vpc else [])):
        for action, user in product(grant.actions, grant.users):
            service = action.split(":")[0]
            for name, arn in stack.arns.items():
                if name in grant.resources or (not grant.resources and f":{service}:" in arn):
                    yield user, action, arn, grant.via


def _of_trust(stack: Stack, role: str) -> Iterator[str]:
    """Compare the services that may assume a role with the one that needs it."""
    policy = stack.resources[role]["Properties"]["AssumeRolePolicyDocument"]
    keys = {"aws:sourceaccount": ACCOUNT}
    services = {f"{name}.amazonaws.com" for name in OTHER_SERVICES} | {*TRUSTED.values()}
    for service in sorted(services):
        context = _context("", "sts:AssumeRole", "*", keys)
        is_trusted = evaluate_resource_policy(policy, context, service).decision == "Allow"
        if is_trusted != (service == TRUSTED[role]):
            yield f"{role}: {service} {'may' if is_trusted else 'may not'} assume it"


def _of_sources(stack: Stack) -> Iterator[str]:
    """Check that the topics and rules of SourceArns may send to the login queue, and no other.

    The key does not see which topic or rule sends; it sees the queue.
    """
    sources = _listed(stack, "SourceArns")
    queues = {name: stack.arns[name] for name in ("LoginQueue", "DeadLetterQueue")}
    for source, (queue, arn) in product((*sources, UNLISTED_SOURCE), queues.items()):
        own = source.split(":")[2]
        for service, resource in product(sorted({own, "s3"}), SENDING):
            is_listed = source in sources or (resource == "Key" and bool(sources))
            should = is_listed and service == own and queue == "LoginQueue"
            keys = {"aws:sourcearn": source, "kms:encryptioncontext:aws:sqs:arn": arn}
            for action in SENDING[resource]:
                context = _context("", action, arn, keys)
                policy, principal = _policy(stack, resource), f"{service}.amazonaws.com"
                does = evaluate_resource_policy(policy, context, principal).decision == "Allow"
                if does != should:
                    verb = "may" if does else "may not"
                    yield f"{resource}: {principal} {verb} {action} to {queue} from {source}"


def _of_senders(stack: Stack) -> Iterator[str]:
    """Check that the callers of SenderArns may send to the login queue, and no other."""
    senders = _listed(stack, "SenderArns")
    queues = {name: stack.arns[name] for name in ("LoginQueue", "DeadLetterQueue")}
    for sender, (queue, arn) in product((*senders, UNLISTED_SENDER), queues.items()):
        should = sender in senders and queue == "LoginQueue"
        keys = {"kms:viaservice": SQS, "kms:encryptioncontext:aws:sqs:arn": arn}
        for resource, actions in SENDING.items():
            for action in actions:
                context = _context(sender, action, arn, keys)
                policy = _policy(stack, resource)
                does = evaluate_resource_policy(policy, context).decision == "Allow"
                if does != should:
                    verb = "may" if does else "may not"
                    yield f"{resource}: {sender} {verb} {action} to {queue}"


def _of_readers(stack: Stack) -> Iterator[str]:
    """Check that the callers of ExportReaders may read the exported files, and nobody else may.

    Not even a role of the account that may do everything else. Nobody reads without TLS.
    """
    readers = _listed(stack, "ExportReaders")
    bucket, key = _policy(stack, "ExportBucketPolicy"), _policy(stack, "ExportKey")
    everything = parse_policy_document(EVERYTHING)
    for reader, (action, name) in product((*readers, UNLISTED_READER), READING_FILES):
        is_copy = action == "s3:GetObjectVersionForReplication"
        should = (reader in readers and not is_copy) or name == "ExportBucket"
        for secure in (True, False):
            context = _context(reader, action, stack.arns[name], {}, secure=secure)
            decided = evaluate_resource_policy(bucket, context).decision
            by_itself = evaluate(context, [everything] if reader == UNLISTED_READER else [])
            does = decided != "Deny" and "Allow" in (decided, by_itself.decision)
            if does != (should and secure):
                how = "with TLS" if secure else "without TLS"
                verb = "may" if does else "may not"
                yield f"ExportBucketPolicy: {reader} {verb} {action} on {name} {how}"
    for reader, via in product(readers, (None, S3, SQS)):
        keys = {"kms:viaservice": via} if via else {}
        context = _context(reader, "kms:Decrypt", stack.arns["ExportKey"], keys)
        # Not as a member of the account, whose own policies decide.
        does = evaluate_resource_policy(key, context, named_only=True).decision == "Allow"
        if does != (via == S3):
            yield f"ExportKey: {reader} {'may' if does else 'may not'} kms:Decrypt (through {via})"


def _of_vault_key(stack: Stack) -> Iterator[str]:
    """Check that the vault alone opens sealed values, and that no other role may use its key.

    A role of the account that may do everything may manage the key, but not open with it.
    """
    roles = [name for name, one in stack.resources.items() if one["Type"] == "AWS::IAM::Role"]
    callers = {name: (stack.arns[name], _policies(stack, name)) for name in roles}
    callers["an administrator"] = UNLISTED_READER, [parse_policy_document(EVERYTHING)]
    for (caller, (arn, policies)), action in product(callers.items(), _actions("kms")):
        context = _context(arn, action, stack.arns["VaultKey"], {})
        decided = combine_resource_policy(
            evaluate(context, policies), context, _policy(stack, "VaultKey"), ACCOUNT, required=True
        )
        should = {"VaultRole": action in OPENING, "an administrator": action != OPENING[0]}
        does = decided.decision == "Allow"
        if does != should.get(caller, False):
            yield f"VaultKey: {caller} {'may' if does else 'may not'} {action}"


def _of_erasures(stack: Stack) -> Iterator[str]:
    """Check that the vault alone writes erasures, and that nobody deletes one.

    Those who may read them are migrate and the callers of VaultErasureReaders.
    """
    roles = [name for name, one in stack.resources.items() if one["Type"] == "AWS::IAM::Role"]
    callers = {name: (stack.arns[name], _policies(stack, name)) for name in roles}
    callers["an administrator"] = UNLISTED_READER, [parse_policy_document(EVERYTHING)]
    callers |= {
        f"a reader ({arn})": (arn, [parse_policy_document(EVERYTHING)])
        for arn in _listed(stack, "VaultErasureReaders")
    }
    policy = _policy(stack, "VaultErasureBucketPolicy")
    for (caller, (arn, policies)), one in product(callers.items(), OF_ERASURES):
        action, name, allowed = one
        # A reader of the account may manage the bucket, if its own policies allow it.
        is_reader = caller.startswith("a reader")
        should = caller in allowed or (is_reader and {"a reader", "an administrator"} & allowed)
        for secure in (True, False):
            context = _context(arn, action, stack.arns[name], {}, secure=secure)
            decided = evaluate_resource_policy(policy, context).decision
            by_itself = evaluate(context, policies).decision
            does = decided != "Deny" and "Allow" in (decided, by_itself)
            if does != (bool(should) and secure):
                how = "with TLS" if secure else "without TLS"
                verb = "may" if does else "may not"
                yield f"VaultErasureBucketPolicy: {caller} {verb} {action} on {name} {how}"


def _of_people(stack: Stack, name: str) -> Iterator[str]:
    """Check that a policy for people allows one API, or one route, and its address only."""
    policy = [parse_policy_document(_policy(stack, name))]
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/person/session"
    needed = [(action, stack.arns.get(target), keys) for action, target, keys in PEOPLE[name]]
    named = {action for one in policy[0] for action in one.actions}
    services = {action.split(":")[0] for action in (*named, *(one[0] for one in needed))}
    if unknown := services - {*OTHERS}:
        yield f"{name}: policies.py does not know the service {', '.join(sorted(unknown))}"
    for target, arn in stack.arns.items():
        service = arn.split(":")[2]
        if service not in services:
            continue
        for action, keys in product(_actions(service), ({}, OF_URL)):
            should = any(
                (action, arn) == one[:2] and one[2].items() <= keys.items() for one in needed
            )
            does = evaluate(_context(session, action, arn, keys), policy).decision == "Allow"
            if does != should:
                verb = "may" if does else "may not"
                yield f"{name}: its holders {verb} {action} on {target}, with {keys}"


def _of_log_groups(stack: Stack) -> Iterator[str]:
    """Check that CloudWatch Logs may use the key for the log groups of the stack, and no other.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/encrypt-log-data-kms.html
    """
    service = f"logs.{REGION}.amazonaws.com"
    groups = [name for name in stack.arns if name.endswith("LogGroup")]
    for key, group in product(("Key", "SecretsKey"), (*groups, "another logs")):
        should = key == "Key" and group != "another logs"
        keys = {"kms:encryptioncontext:aws:logs:arn": stack.arns[group].partition(":log-stream")[0]}
        for action in ("kms:Encrypt", "kms:Decrypt", "kms:GenerateDataKey"):
            context = _context("", action, stack.arns[key], keys)
            policy = _policy(stack, key)
            does = evaluate_resource_policy(policy, context, service).decision == "Allow"
            if does != should:
                yield f"{key}: {service} {'may' if does else 'may not'} {action} for {group}"


def _listed(stack: Stack, parameter: str) -> list[str]:
    return [arn for arn in stack.deployment.parameters.get(parameter, "").split(",") if arn]


def _policy(stack: Stack, name: str) -> Json:
    properties = stack.resources[name]["Properties"]
    return properties.get("KeyPolicy") or properties["PolicyDocument"]


def _policies(stack: Stack, role: str) -> list[list[ParsedStatement]]:
    properties = stack.resources[role]["Properties"]
    documents = [policy["PolicyDocument"] for policy in properties.get("Policies", [])]
    for attached in properties.get("ManagedPolicyArns", []):
        [name] = [name for name, arn in stack.arns.items() if arn == attached]
        documents.append(_policy(stack, name))
    return [parse_policy_document(document) for document in documents]


def _allows(
    policies: list[list[ParsedStatement]], user: str, action: str, arn: str, via: str | None
) -> bool:
    keys = {"kms:viaservice": via} if via else {}
    keys |= {"lambda:sourcefunctionarn": FUNCTION} if user == CODE else {}
    session = f"arn:aws:sts::{ACCOUNT}:assumed-role/role/session"
    return evaluate(_context(session, action, arn, keys), policies).decision == "Allow"


def _context(
    principal: str, action: str, arn: str, keys: dict[str, str], *, secure: bool = True
) -> EvalContext:
    account = principal.split(":")[4] if principal else ""
    return EvalContext(
        principal_arn=principal,
        principal_type="AssumedRole",
        principal_account=account,
        action=action,
        resource_arn=arn,
        region=REGION,
        source_ip="203.0.113.7",
        secure_transport=secure,
        service_context=keys,
    )


def _arns(template: Json, deployment: Deployment) -> dict[str, str]:
    """Name the ARNs that a request could be about: of the stack's resources, and others."""
    found = arns(template, deployment)
    for name in [name for name in found if name.endswith("LogGroup")]:
        found[name] += ":log-stream:stream"
    parameters, start = deployment.parameters, f"{REGION}:{ACCOUNT}"
    if "DatabaseCluster" in found:
        found["OwnerSecret"] = resolve(template, deployment)["Outputs"]["OwnerSecretArn"]["Value"]
        found["OwnerKey"] = found["Key"]
        cluster = "DatabaseCluster.DBClusterResourceId"
    else:
        found["OwnerSecret"] = parameters["DatabaseSecretArn"]
        cluster = parameters["DatabaseResourceId"]
    if key := parameters["DatabaseSecretKeyArn"]:
        found["KeyOfOwnerSecret"] = key
    found |= _of_older_vault(parameters)
    found |= {"SaltToResalt": found["Salt"]} if parameters["Resalt"] else {}
    for secret in ("ApiSecret", "ExportSecret"):
        if secret in found:
            found[f"KeyOf{secret}"] = found["SecretsKey"]
    if "ExportBucket" in found:
        file = "user_logins/dt=2026-11-22/part-00000.parquet"
        found["ExportedFile"] = f"{found['ExportBucket']}/{file}"
    if bucket := found.get("VaultErasureBucket") or found.get("OlderErasureBucket"):
        found["ErasureList"] = bucket
        found["Erasure"] = f"{bucket}/erasures/2026-11-27T12:31:01.000001Z-7-{'0' * 36}.json"
    if parameters["DatabaseAuthentication"] == "iam":
        for user in ("login_writer", "login_api", "login_export", "login_vault", "login_owner"):
            found[user] = f"arn:aws:rds-db:{start}:dbuser:{cluster}/{user}"
    found["Stack"] = f"arn:aws:cloudformation:{start}:stack/{STACK}/{'0' * 36}"
    resources = resolve(template, deployment)["Resources"]
    found |= _routes(resources)
    if "FunctionUrl" in resources:
        found["FunctionUrl"] = found["ApiFunction"]
    for service, resource in OTHERS.items():
        place = "::" if service == "s3" else f"{start}:"
        found[f"another {service}"] = f"arn:aws:{service}:{place}{resource}"
    return found


def _of_older_vault(parameters: dict[str, str]) -> dict[str, str]:
    """Name the ARNs of a vault that the stack takes over."""
    found = {}
    if key := parameters["VaultKeyArn"]:
        found["OlderVaultKey"] = key
    if parameters["Vault"] == "true" and (bucket := parameters["VaultErasureBucketName"]):
        found["OlderErasureBucket"] = f"arn:aws:s3:::{bucket}"
    return found


def _routes(resources: Json) -> dict[str, str]:
    """Name the ARN of a request to each route. The analysts' API has one route for all requests."""
    found = {}
    for resource in resources.values():
        if resource["Type"] == "AWS::ApiGatewayV2::Route":
            api, route = (resource["Properties"][key] for key in ("ApiId", "RouteKey"))
            name, path = ("HttpApi", "GET/v1/freshness") if route == "$default" else (route, route)
            place = f"{REGION}:{ACCOUNT}:{api}/$default/{path.replace(' ', '')}"
            found[name] = f"arn:aws:execute-api:{place}"
    return found


@cache
def _actions(service: str) -> list[str]:
    more = MORE_ACTIONS.get(service, [])
    return sorted({_action(service, operation) for operation in _operations(service)}.union(more))


@cache
def _operations(service: str) -> list[str]:
    if service in NO_SDK:
        return NO_SDK[service]
    return botocore.session.get_session().get_service_model(service).operation_names


def _action(service: str, operation: str) -> str:
    """Name the action that an operation needs.

    https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsqs.html has no
    action for a batch: the action for a single message counts.
    """
    if service == "sqs":
        operation = operation.removesuffix("Batch")
    if (service, operation) == ("lambda", "Invoke"):
        operation = "InvokeFunction"
    if service == "s3" and operation in UPLOADS:
        operation = "PutObject"
    return f"{service}:{operation}"


def main() -> int:
    """Print what the policies get wrong."""
    template = transformed(ROOT / "template.yaml")
    found = sorted({*findings(template), *calls_without_grant()})
    for finding in found:
        print(finding)
    if not found:
        kinds = len([*stacks(template)])
        print(f"{kinds} kinds of stack: each role may do what it needs, and nothing else")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
