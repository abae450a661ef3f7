"""The vault of a stack on this machine: the KMS that its function calls, and those who may call it.

MiniStack decides by the policies of the template, and its KMS does not agree on keys. LocalStack's
KMS agrees on keys, and ignores policies. So the stack is in a MiniStack whose functions call the
KMS of a LocalStack.
"""

import json
from pathlib import Path
from urllib.parse import urlsplit

from dev import emulator, stack
from dev.emulator import REGION, Emulator, Kind

# The output with the policy for each route of the vault.
POLICIES = {
    "token": "VaultTokenPolicyArn",
    "reveal": "VaultReaderPolicyArn",
    "erase": "VaultEraserPolicyArn",
    "audit": "VaultAuditorPolicyArn",
    "verify": "VaultVerifierPolicyArn",
    "honey": "VaultHoneyPolicyArn",
}
# A command of `login-etl` for each. MiniStack's CloudTrail does not have what LocalStack's KMS did,
# so `vault agree` needs a file.
EXAMPLES = {
    "token": "token --field ip",
    "reveal": "reveal TOKEN --reason test --ticket SEC-1",
    "erase": "erase TOKEN --reason test --ticket SEC-1",
    "audit": "vault agree --cloudtrail FILE",
    "verify": "vault verify",
    "honey": "vault honey 3 --reason test --ticket SEC-1",
}
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}],
}
SESSION_NAME = "ann"


def start_kms(directory: Path, log: Path) -> Emulator:
    """Start the emulator whose KMS agrees on keys; only this user's processes can use it."""
    return emulator.start(Kind.LOCALSTACK, directory, log, SERVES_FUNCTIONS="true")


def create_key(kms: Emulator) -> str:
    """Create a key as the template does; return its ARN."""
    key = kms.client("kms").create_key(KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")
    return key["KeyMetadata"]["Arn"]


def url(aws: Emulator, stack_name: str) -> str:
    """Return an address of the stack's API that can be reached: the host of the output cannot."""
    api = urlsplit(stack.outputs(aws, stack_name)["VaultUrl"]).netloc.split(".")[0]
    return f"{aws.endpoint}/_aws/execute-api/{api}/$default"


def profiles(aws: Emulator, stack_name: str) -> str:
    """Create a role for each route; return their profiles for a credentials file."""
    found = stack.outputs(aws, stack_name)
    texts = []
    for command, policy in POLICIES.items():
        session = create_session(aws, f"{stack_name}-{command}", found[policy])
        lines = [f"{name.lower()} = {value}\n" for name, value in session.items()]
        texts.append("".join([f"\n[{command}]\n", *lines]).replace("aws_region", "region"))
    return "".join(texts)


def create_session(aws: Emulator, role: str, policy: str | None) -> dict[str, str]:
    """Create a role, by choice with a policy; return the environment of a session of the role."""
    iam, sts = aws.client("iam"), aws.client("sts")
    arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]["Arn"]
    if policy:
        iam.attach_role_policy(RoleName=role, PolicyArn=policy)
    made = sts.assume_role(RoleArn=arn, RoleSessionName=SESSION_NAME)["Credentials"]
    return {
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        "AWS_SESSION_TOKEN": made["SessionToken"],
    }
