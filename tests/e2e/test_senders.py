"""Who may send to the queue: the policies of the queue and of its key, and messages through SNS.

MiniStack evaluates the policy of a queue when SNS delivers a message. No emulator evaluates the
policy of the key of an encrypted queue, so MiniStack's evaluator decides it here.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

import pytest
from ministack.core.iam_evaluator import EvalContext, evaluate_resource_policy
from samtranslator.yaml_helper import yaml_parse

from dev import ROOT
from dev.emulator import REGION, Feature
from dev.logins import login
from dev.stack import WAITER_CONFIG, read_template
from e2e.deployment import Database
from e2e.driver import wait_until

ACCOUNT = "111122223333"
OTHER_ACCOUNT = "444455556666"
NAMES = {
    "Partition": "aws",
    "Region": REGION,
    "AccountId": ACCOUNT,
    "URLSuffix": "amazonaws.com",
    "StackName": "stack",
}
NO_VALUE = {"Ref": "AWS::NoValue"}
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:stack-logins"
DEAD_LETTER_QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:stack-DeadLetterQueue"
QUEUES = {"LoginQueue": QUEUE, "DeadLetterQueue": DEAD_LETTER_QUEUE}
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/1"

TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:logins"
RULE = f"arn:aws:events:{REGION}:{OTHER_ACCOUNT}:rule/bus/logins"
ROLE = f"arn:aws:iam::{OTHER_ACCOUNT}:role/sender"
SNS, EVENTBRIDGE = "sns.amazonaws.com", "events.amazonaws.com"
ALLOWED = {"SourceArns": f"{TOPIC},{RULE}", "SenderArns": ROLE}
SENDERS_STACK = "login-etl-senders"
ENCRYPTION = ("kms:GenerateDataKey", "kms:Decrypt")


@dataclass(frozen=True)
class Sender:
    """Who sends: a service for one of its resources, or a role."""

    arn: str
    service: str | None = None

    def may(self, policy: dict[str, Any], action: str, resource: str, **context: str) -> bool:
        """Return whether a policy allows this sender an action."""
        if self.service:
            context["aws:sourcearn"] = self.arn
        request = EvalContext(
            principal_arn="*" if self.service else self.arn,
            principal_type="Service" if self.service else "AssumedRole",
            principal_account="" if self.service else self.arn.split(":")[4],
            action=action,
            resource_arn=resource,
            region=REGION,
            secure_transport=True,
            service_context=context,
        )
        return evaluate_resource_policy(policy, request, service=self.service).decision == "Allow"


SENDERS = (Sender(TOPIC, SNS), Sender(RULE, EVENTBRIDGE), Sender(ROLE))
STRANGERS = (
    Sender(f"{TOPIC}-of-another", SNS),
    Sender(RULE.replace(OTHER_ACCOUNT, "777788889999"), EVENTBRIDGE),
    Sender("arn:aws:s3:::bucket", "s3.amazonaws.com"),
    Sender(f"{ROLE}-of-another"),
    Sender(f"arn:aws:iam::{OTHER_ACCOUNT}:root"),
)


def test_default_policies_name_no_sender() -> None:
    key, queue = _policies()

    assert [statement["Sid"] for statement in key["Statement"]] == [
        "TheAccountDecides",
        "EncryptTheLogs",
    ]
    assert [statement["Sid"] for statement in queue["Statement"]] == ["RefuseWithoutTls"]


@pytest.mark.parametrize("sender", SENDERS)
def test_named_sender_may_only_send_logins(sender: Sender) -> None:
    key, queue = _policies(**ALLOWED)
    through_sqs = {"kms:viaservice": f"sqs.{REGION}.amazonaws.com"}

    assert sender.may(queue, "sqs:SendMessage", QUEUE)
    assert all(sender.may(key, action, KEY, **_context(), **through_sqs) for action in ENCRYPTION)

    assert not sender.may(queue, "sqs:SendMessage", DEAD_LETTER_QUEUE)
    assert not sender.may(queue, "sqs:ReceiveMessage", QUEUE)
    assert not sender.may(key, "kms:Decrypt", KEY, **through_sqs)
    assert not sender.may(key, "kms:Decrypt", KEY, **_context(DEAD_LETTER_QUEUE), **through_sqs)
    assert not sender.may(key, "kms:Encrypt", KEY, **_context(), **through_sqs)


@pytest.mark.parametrize("sender", STRANGERS)
def test_other_senders_may_not_send(sender: Sender) -> None:
    _, queue = _policies(**ALLOWED)

    assert not sender.may(queue, "sqs:SendMessage", QUEUE)


@pytest.mark.parametrize("sender", SENDERS)
def test_sender_is_refused_without_the_parameters(sender: Sender) -> None:
    key, queue = _policies()

    assert not sender.may(queue, "sqs:SendMessage", QUEUE)
    assert not any(sender.may(key, action, KEY, **_context()) for action in ENCRYPTION)


@pytest.mark.parametrize(
    ("parameter", "value", "accepted"),
    [
        ("SourceArns", "", True),
        ("SourceArns", f"{TOPIC}.fifo,{RULE}", True),
        ("SourceArns", f"{TOPIC}, {RULE}", False),
        ("SourceArns", f"{TOPIC}:a-subscription", False),
        ("SourceArns", f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/bus", False),
        ("SourceArns", "arn:aws:s3:::bucket", False),
        ("SourceArns", TOPIC.replace("logins", "*"), False),
        ("SenderArns", "", True),
        (
            "SenderArns",
            f"{ROLE},arn:aws:iam::{ACCOUNT}:root,arn:aws-cn:iam::{ACCOUNT}:user/a",
            True,
        ),
        ("SenderArns", f"arn:aws:iam::{ACCOUNT}:role/*", False),
        ("SenderArns", f"arn:aws:sts::{ACCOUNT}:assumed-role/sender/session", False),
        ("SenderArns", "*", False),
    ],
)
def test_parameters_accept_only_whole_arns(parameter: str, value: str, accepted: bool) -> None:
    pattern = read_template()["Parameters"][parameter]["AllowedPattern"]

    assert bool(re.fullmatch(pattern, value)) == accepted


def test_role_decrypts_through_sqs_only() -> None:
    key, _ = _policies(**ALLOWED)
    directly, through = {}, {"kms:viaservice": f"sqs.{REGION}.amazonaws.com"}

    allowed = [
        Sender(ROLE).may(key, "kms:Decrypt", KEY, **_context(), **way)
        for way in (directly, through)
    ]

    assert allowed == [False, True]


@pytest.mark.needs(Feature.CUSTOM_RESOURCES | Feature.ROLES)
def test_only_named_topics_deliver(database: Database) -> None:
    clients = database.emulator.client
    sns = clients("sns")
    topics = {name: sns.create_topic(Name=name)["TopicArn"] for name in ("wrapped", "raw", "other")}
    database.parameters["SourceArns"] = f"{topics['wrapped']},{topics['raw']}"
    database.template = _with_queue_policy(database.template)
    database.deploy()
    queue = database.output("QueueArn")
    database.formation.create_stack(
        StackName=SENDERS_STACK, TemplateBody=_documented_template(topics["raw"], queue)
    )
    database.formation.get_waiter("stack_create_complete").wait(
        StackName=SENDERS_STACK, WaiterConfig=WAITER_CONFIG
    )
    for name in ("wrapped", "other"):
        sns.subscribe(TopicArn=topics[name], Protocol="sqs", Endpoint=queue)

    # MiniStack logs what is published, so it contains no raw value.
    for name in ("other", "raw", "wrapped"):
        sns.publish(TopicArn=topics[name], Message=_login(name))
    event = {"Source": "test", "DetailType": "login", "Detail": _login("by rule")}
    clients("events").put_events(Entries=[event])
    wait_until(lambda: len(database.users()) == 3, database.users)
    assert database.stores_login("directly")

    assert database.users() == ["by rule", "directly", "raw", "wrapped"]


def _login(user: str) -> str:
    return json.dumps(login(user_id=user, ip=None, device_id=None))


def _documented_template(topic: str, queue: str) -> str:
    """Return the resources that docs/deployment.md shows, with a topic and a queue."""
    section = (ROOT / "docs" / "deployment.md").read_text().split("\n### Who may send\n")[1]
    shown = re.search(r"^```yaml\n(.+?)^```", section, re.DOTALL | re.MULTILINE)[1]
    filled = shown.replace("<ARN of the topic>", topic).replace("<QueueArn>", queue)
    return json.dumps({"Resources": yaml_parse(filled)})


def _with_queue_policy(template: str) -> str:
    """Add the policy of the queues, except that it requires TLS, which MiniStack has not."""
    policy = read_template()["Resources"]["QueuePolicy"]
    document = policy["Properties"]["PolicyDocument"]
    [tls, *document["Statement"]] = document["Statement"]
    assert tls["Sid"] == "RefuseWithoutTls"
    changed = json.loads(template)
    changed["Resources"]["QueuePolicy"] = policy
    return json.dumps(changed)


def _context(queue: str = QUEUE) -> dict[str, str]:
    """Return what SQS passes to KMS with each use of the key."""
    return {"kms:encryptioncontext:aws:sqs:arn": queue}


def _policies(**parameters: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the policies of the key and the queue, as a deployment with these parameters has."""
    resources = read_template()["Resources"]
    settings = {"SourceArns": "", "SenderArns": ""} | parameters
    key = resources["Key"]["Properties"]["KeyPolicy"]
    queue = resources["QueuePolicy"]["Properties"]["PolicyDocument"]
    return _resolve(key, settings), _resolve(queue, settings)


def _resolve(value: Any, settings: dict[str, str]) -> Any:  # noqa: ANN401, PLR0911 - one for each function
    """Resolve the functions of CloudFormation that the two policies use."""
    match value:
        case [*items]:
            resolved = [_resolve(item, settings) for item in items]
            return [item for item in resolved if item != NO_VALUE]
        case {"Fn::If": ["HasSources" | "HasSenders" as condition, yes, no]}:
            is_set = settings[condition.removeprefix("Has").removesuffix("s") + "Arns"]
            return _resolve(yes if is_set else no, settings)
        case {"Fn::Split": [separator, {"Ref": parameter}]}:
            return settings[parameter].split(separator)
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{AWS::(\w+)\}", lambda found: NAMES[found[1]], text)
        case {"Fn::GetAtt": [queue, "Arn"]}:
            return QUEUES[queue]
        case {**pairs}:
            return {key: _resolve(item, settings) for key, item in pairs.items()}
    return value
