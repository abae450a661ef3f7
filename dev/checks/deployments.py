"""Resolves a template as CloudFormation does, for each kind of stack that its parameters allow.

Nothing is sent to AWS: names and ids are made up, in the form that AWS gives them. An unknown
function, or a parameter without an example, is an error, because a judge would not see its value.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations, product
from types import MappingProxyType
from typing import Any

ACCOUNT = "111122223333"
OTHER_ACCOUNT = "444455556666"
REGION = "eu-central-1"
STACK = "login-etl-prod"
# CloudFormation appends 12 characters to the names that it makes.
SUFFIX = "1ABCDEFGHIJK"

_HERE, _ELSEWHERE = f"{REGION}:{ACCOUNT}", f"arn:aws:iam::{OTHER_ACCOUNT}"
# Values for the parameters that are empty by default, or have no default.
EXAMPLES = {
    "AlarmTopicArn": f"arn:aws:sns:{_HERE}:on-call",
    "AnalystsCertificateArn": f"arn:aws:acm:{_HERE}:certificate/of-the-page",
    "AnalystsOidcSecretArn": f"arn:aws:secretsmanager:{_HERE}:secret:oidc-AbCdEf",
    "AnalystsSecurityGroupIds": "sg-0123456789abcdef1",
    "AnalystsSubnetIds": "subnet-0123456789abcdef2,subnet-0123456789abcdef3",
    "DatabaseCaBundle": "/opt/ca.pem",
    "DatabaseCaLayerArn": f"arn:aws:lambda:{_HERE}:layer:ca:1",
    "DatabaseHost": f"logins.cluster-abcdefghijkl.{REGION}.rds.amazonaws.com",
    "DatabaseResourceId": "cluster-ABCDEFGHIJKL01234567890123",
    "DatabaseSecretArn": f"arn:aws:secretsmanager:{_HERE}:secret:owner-AbCdEf",
    "DatabaseSecretKeyArn": f"arn:aws:kms:{_HERE}:key/of-the-owners-secret",
    "DatabaseSnapshot": "login-etl-prod-before-the-fault",
    "ExpectedEnvelopes": "sns,eventbridge",
    "ExportReaders": f"{_ELSEWHERE}:role/reader,arn:aws:iam::{ACCOUNT}:user/reader",
    "GitHubEnvironment": "production",
    "GitHubSubject": "repo:owner@1234567/login-etl@12345678",
    "LogFilter": "login_etl=debug",
    "LoginRetentionDays": "90",
    "Resalt": "true",
    "ReservedConcurrency": "10",
    "SecurityGroupIds": "sg-0123456789abcdef0",
    "SenderArns": f"{_ELSEWHERE}:role/sender,{_ELSEWHERE}:user/sender",
    "SourceArns": f"arn:aws:sns:{_HERE}:topic,arn:aws:events:{_HERE}:rule/rule",
    "StackName": STACK,
    "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
    "VaultErasureBucketName": "erasures-of-an-older-stack",
    "VaultErasureReaders": f"{_ELSEWHERE}:role/auditor,arn:aws:iam::{ACCOUNT}:user/auditor",
    "VaultKeyArn": f"arn:aws:kms:{_HERE}:key/of-an-older-stack",
}

# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html#arns-syntax
PARTITIONS = {"cn-": ("aws-cn", "amazonaws.com.cn"), "us-gov-": ("aws-us-gov", "amazonaws.com")}
PARTITIONS |= {"eusc-": ("aws-eusc", "amazonaws.eu")}

# The property with the name of a resource, for those whose name the template sets.
NAMES = {
    "AWS::CloudWatch::Alarm": "AlarmName",
    "AWS::CloudWatch::Dashboard": "DashboardName",
    "AWS::ECR::Repository": "RepositoryName",
    "AWS::Logs::QueryDefinition": "Name",
    "AWS::SQS::Queue": "QueueName",
}
# The resource in an ARN: service, then the text before the name. IAM has no region, S3 also has no
# account.
ARNS = {
    "AWS::CloudWatch::Alarm": ("cloudwatch", "alarm:"),
    "AWS::IAM::ManagedPolicy": ("iam", "policy/"),
    "AWS::IAM::Role": ("iam", "role/"),
    "AWS::KMS::Key": ("kms", "key/"),
    "AWS::Lambda::Alias": ("lambda", "function:"),
    "AWS::Lambda::Function": ("lambda", "function:"),
    "AWS::Logs::LogGroup": ("logs", "log-group:"),
    "AWS::RDS::DBCluster": ("rds", "cluster:"),
    "AWS::S3::Bucket": ("s3", ""),
    "AWS::SecretsManager::Secret": ("secretsmanager", "secret:"),
    "AWS::SQS::Queue": ("sqs", ""),
}
REF_IS_ARN = {
    "AWS::ElasticLoadBalancingV2::LoadBalancer",
    "AWS::ElasticLoadBalancingV2::TargetGroup",
    "AWS::IAM::ManagedPolicy",
    "AWS::Lambda::Alias",
    "AWS::SecretsManager::Secret",
}

Json = Any
NO_VALUE = object()
# The parameters and conditions that a resource or an output depends on, with their values.
Read = dict[tuple[str, str], Json]
# What was resolved before of one template, for one name of the stack and one region.
Memory = dict[str, list[tuple[Read, Json]]]


@dataclass(frozen=True)
class Deployment:
    """A stack: its parameters, its name and its region."""

    parameters: dict[str, str]
    # The values that differ from those of the other kinds of stack.
    choice: str = ""
    stack: str = STACK
    region: str = REGION

    @property
    def partition(self) -> str:
        """Return the partition of the region."""
        return self._partition[0]

    @property
    def url_suffix(self) -> str:
        """Return the domain of AWS in the region."""
        return self._partition[1]

    @property
    def _partition(self) -> tuple[str, str]:
        return next(
            (value for start, value in PARTITIONS.items() if self.region.startswith(start)),
            ("aws", "amazonaws.com"),
        )

    def __str__(self) -> str:
        """Name what the stack's kind depends on."""
        return self.choice


def deployments(template: Json) -> list[Deployment]:
    """Find the kinds of stack that the parameters allow.

    These are all combinations of the values of which a condition or a rule knows, each with as few
    and with as many of the empty parameters set as the rules permit.
    """
    parameters = template.get("Parameters", {})
    read = set(_refs([template.get("Conditions", {}), template.get("Rules", {})]))
    ruled = set(_refs(template.get("Rules", {})))
    choices = {
        name: [str(value) for value in parameter["AllowedValues"]]
        for name, parameter in parameters.items()
        if "AllowedValues" in parameter and name in read
    }
    defaults = {name: str(one.get("Default", "")) for name, one in parameters.items()}
    for name, value in _compared(list(template.get("Conditions", {}).values())):
        if name in defaults and name not in choices and value not in {"", defaults[name]}:
            choices[name] = [defaults[name], value]
    empty = [name for name, value in defaults.items() if not value]
    for name, example in _examples(empty).items():
        if not re.fullmatch(parameters[name].get("AllowedPattern", ".*"), example):
            raise ValueError(f"AllowedPattern of {name} refuses {example}")
    groups = _ruled_together(template, [name for name in empty if name in ruled])
    others = _examples(name for name in empty if name not in ruled)
    found = []
    for chosen in product(*choices.values()):
        base = defaults | dict(zip(choices, chosen, strict=True))
        smallest, largest = dict(base), base | others
        for group in groups:
            permitted = group.permitted(base)
            if not permitted:
                break
            smallest |= permitted[0]
            largest |= permitted[-1]
        else:
            choice = ", ".join(f"{name}={base[name]}" for name in choices)
            found += [Deployment(smallest, choice), Deployment(largest, choice)]
    return found


class _Group:
    """Rules, and the empty parameters that they read."""

    def __init__(self, names: list[str], rules: Json) -> None:
        sizes = range(len(names) + 1)
        self.sets = [_examples(some) for size in sizes for some in combinations(names, size)]
        self.rules = rules
        self.read = sorted({*_refs(rules)} - {*names})
        self.known: dict[tuple[str, ...], list[dict[str, str]]] = {}

    def permitted(self, base: dict[str, str]) -> list[dict[str, str]]:
        """Return the examples that the rules permit beside other parameters, the fewest first."""
        key = tuple(base[name] for name in self.read)
        if key not in self.known:
            rules = {"Rules": self.rules}
            self.known[key] = [one for one in self.sets if not broken_rules(rules, base | one)]
        return self.known[key]


def _ruled_together(template: Json, names: list[str]) -> list[_Group]:
    """Group the rules that read a parameter in common among these, with their parameters.

    No rule reads parameters of two groups, so the values of each group can be chosen on their own.
    """
    groups: list[tuple[list[str], Json]] = []
    for name, rule in template.get("Rules", {}).items():
        read = {*_refs(rule)} & {*names}
        joined = [group for group in groups if read & {*group[0]}]
        groups = [group for group in groups if group not in joined]
        together = read.union(*(group[0] for group in joined))
        rules = {key: one for group in joined for key, one in group[1].items()} | {name: rule}
        groups.append(([one for one in names if one in together], rules))
    return [_Group(*group) for group in groups]


def stacks(
    template: Json,
    stack: str = STACK,
    region: str = REGION,
    values: Mapping[str, str] = MappingProxyType({}),
) -> list[tuple[Deployment, Json]]:
    """Return the resources of each kind of stack. `values` replace parameters that are set."""
    return _stacks(json.dumps(template, default=str), stack, region, tuple(values.items()))


@lru_cache(maxsize=4)  # several rules read the same stacks
def _stacks(
    text: str, stack: str, region: str, values: tuple[tuple[str, str], ...]
) -> list[tuple[Deployment, Json]]:
    template = json.loads(text)
    memory: Memory = {}
    found = []
    for deployment in deployments(template):
        given = {name: value for name, value in values if deployment.parameters[name]}
        parameters = deployment.parameters | given
        named = replace(deployment, parameters=parameters, stack=stack, region=region)
        found.append((named, resolve(template, named, memory)["Resources"]))
    return found


def broken_rules(template: Json, parameters: dict[str, str]) -> list[str]:
    """Return the descriptions of the assertions that these parameters break."""
    broken = []
    for rule in template.get("Rules", {}).values():
        if "RuleCondition" in rule and not _holds(rule["RuleCondition"], parameters, {}):
            continue
        broken += [
            assertion["AssertDescription"]
            for assertion in rule["Assertions"]
            if not _holds(assertion["Assert"], parameters, {})
        ]
    return broken


def resolve(template: Json, deployment: Deployment, memory: Memory | None = None) -> Json:
    """Return the resources and outputs of a stack, without functions and conditions.

    Stacks that are given the same memory share what is equal in them.
    """
    return _Resolver(template, deployment).resolve({} if memory is None else memory)


def arns(template: Json, deployment: Deployment) -> dict[str, str]:
    """Return the ARN of each resource of a stack whose type has a known form of ARN."""
    resolver = _Resolver(template, deployment)
    resources = resolver.resolve({})["Resources"]
    return {name: resolver.arn_of(name) for name in resources if resources[name]["Type"] in ARNS}


class _Resolver:
    def __init__(self, template: Json, deployment: Deployment) -> None:
        self.template = template
        self.deployment = deployment
        self.resources = template["Resources"]
        self.conditions = template.get("Conditions", {})
        self.pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::NoValue": NO_VALUE,
            "AWS::Partition": deployment.partition,
            "AWS::Region": deployment.region,
            "AWS::StackId": self.arn("cloudformation", f"stack/{deployment.stack}/{'0' * 36}"),
            "AWS::StackName": deployment.stack,
            "AWS::URLSuffix": deployment.url_suffix,
        }
        self.held: dict[str, bool] = {}
        self.read: Read = {}

    def resolve(self, memory: Memory) -> Json:
        sections = {}
        for section in ("Resources", "Outputs"):
            sections[section] = {
                name: self.part(one, memory.setdefault(f"{section} {name}", []))
                for name, one in self.template.get(section, {}).items()
                if "Condition" not in one or self.holds(one["Condition"])
            }
        return sections

    def part(self, value: Json, memory: list[tuple[Read, Json]]) -> Json:
        for read, part in memory:
            if all(self.look_up(*place) == before for place, before in read.items()):
                return part
        self.read = {}
        part = self.value(value)
        memory.append((self.read, part))
        self.read = {}
        return part

    def look_up(self, kind: str, name: str) -> Json:
        return self.holds(name) if kind == "Condition" else self.deployment.parameters[name]

    def holds(self, name: str) -> bool:
        if name not in self.held:
            values = self.deployment.parameters | self.pseudo
            self.held[name] = _holds({"Condition": name}, values, self.conditions)
        self.read["Condition", name] = self.held[name]
        return self.held[name]

    def value(self, value: Json) -> Json:
        if isinstance(value, list):
            return [one for one in map(self.value, value) if one is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        [*names] = value
        if len(names) == 1 and names[0] in self.functions:
            return self.functions[names[0]](value[names[0]])
        if len(names) == 1 and names[0].startswith("Fn::"):
            raise ValueError(f"{names[0]} is not known")
        present = {name: self.value(one) for name, one in value.items()}
        return {name: one for name, one in present.items() if one is not NO_VALUE}

    @cached_property
    def functions(self) -> dict[str, Callable[[Json], Json]]:
        return {
            "Ref": self.ref,
            "Fn::Cidr": lambda args: [f"{self.value(args[0])}#{n}" for n in range(int(args[1]))],
            "Fn::GetAtt": self.attribute,
            "Fn::GetAZs": lambda _: [f"{self.deployment.region}{zone}" for zone in "abc"],
            "Fn::If": lambda args: self.value(args[1 if self.holds(args[0]) else 2]),
            "Fn::Join": lambda args: args[0].join(map(str, self.value(args[1]))),
            "Fn::Select": lambda args: self.value(args[1])[int(self.value(args[0]))],
            "Fn::Split": lambda args: str(self.value(args[1])).split(args[0]),
            "Fn::Sub": self.sub,
        }

    def ref(self, name: str) -> Json:
        if name in self.pseudo:
            return self.pseudo[name]
        if name in self.deployment.parameters:
            self.read["Parameter", name] = value = self.deployment.parameters[name]
            of_list = self.template["Parameters"][name]["Type"].startswith(("Comma", "List"))
            return [part.strip() for part in value.split(",")] if of_list else value
        kind = self.resources[name]["Type"]
        if kind in REF_IS_ARN:
            return self.arn_of(name)
        if kind == "AWS::SQS::Queue":
            place = f"{self.deployment.region}.{self.deployment.url_suffix}"
            return f"https://sqs.{place}/{ACCOUNT}/{self.name(name)}"
        return self.name(name)

    def attribute(self, args: Json) -> str:
        name, attribute = args if isinstance(args, list) else args.split(".", 1)
        if attribute.endswith("SecretArn"):
            return self.arn("secretsmanager", f"secret:rds!cluster-{'0' * 36}-AbCdEf")
        kind = self.resources[name]["Type"]
        if attribute.endswith("Arn") or (attribute == "Id" and kind in REF_IS_ARN):
            # The attribute of a log group ends in ":*": https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/aws-resource-logs-loggroup.html
            return self.arn_of(name) + (":*" if kind == "AWS::Logs::LogGroup" else "")
        return self.name(name) if attribute.endswith("Name") else f"{name}.{attribute}"

    def sub(self, args: Json) -> str:
        text, given = args if isinstance(args, list) else (args, {})

        def resolved(found: re.Match[str]) -> str:
            name = found[1]
            if name.startswith("!"):
                return f"${{{name[1:]}}}"
            if name in given:
                return str(self.value(given[name]))
            return str(self.attribute(name) if "." in name else self.ref(name))

        return re.sub(r"\$\{([^}]+)\}", resolved, text)

    def name(self, name: str) -> str:
        resource = self.resources[name]
        given = resource.get("Properties", {}).get(NAMES.get(resource["Type"], ""))
        made = f"{self.deployment.stack}-{name}-{SUFFIX}"
        # The name of a bucket is in lower case.
        made = made.lower() if resource["Type"] == "AWS::S3::Bucket" else made
        return self.value(given) if given else made

    def arn_of(self, name: str) -> str:
        kind = self.resources[name]["Type"]
        service, start = ARNS.get(kind, (kind.split("::")[1].lower(), ""))
        return self.arn(service, start + self.name(name))

    def arn(self, service: str, resource: str) -> str:
        region = "" if service in {"iam", "s3"} else self.deployment.region
        account = "" if service == "s3" else ACCOUNT
        return f"arn:{self.deployment.partition}:{service}:{region}:{account}:{resource}"


def _holds(expression: Json, values: Mapping[str, Json], conditions: Json) -> bool:
    def value(one: Json) -> str:
        return values[one["Ref"]] if isinstance(one, dict) else str(one)

    def holds(one: Json) -> bool:
        return _holds(one, values, conditions)

    [(function, args)] = expression.items()
    match function:
        case "Condition":
            return holds(conditions[args])
        case "Fn::And":
            return all(map(holds, args))
        case "Fn::Contains":
            return value(args[1]) in map(str, args[0])
        case "Fn::Equals":
            return value(args[0]) == value(args[1])
        case "Fn::Not":
            return not holds(args[0])
        case "Fn::Or":
            return any(map(holds, args))
    raise ValueError(f"{function} is not known")


def _examples(names: Iterable[str]) -> dict[str, str]:
    names = [*names]
    if missing := [name for name in names if name not in EXAMPLES]:
        raise ValueError(f"EXAMPLES in deployments.py has no value for {', '.join(missing)}")
    return {name: EXAMPLES[name] for name in names}


def _compared(value: Json) -> Iterator[tuple[str, str]]:
    """Yield the parameters that are compared with a text, and the text."""
    if isinstance(value, dict):
        if isinstance(value.get("Fn::Equals"), list):
            # cfn-lint sorts the two.
            sides = value["Fn::Equals"]
            names = [side["Ref"] for side in sides if isinstance(side, dict)]
            yield from product(names, [str(side) for side in sides if not isinstance(side, dict)])
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _compared(one)


def _refs(value: Json) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("Ref"), str):
            yield value["Ref"]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from _refs(one)
