"""Deploys the very packages that another job built and tested: `python -m deploy.packages --help`.

The pipeline builds in a job that has no AWS credentials. This job passes on the checksums of its
packages; a job that deploys builds nothing and accepts only packages with these checksums.

The command `image` writes the template whose ingest function is a container image.
"""

import argparse
import hashlib
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from dev import ROOT, TARGET

# The program for the smoke test, built for the machine that runs it.
PROGRAM = "cli/login-etl"
# `make zip`, `make image` and `make login-etl` write these files.
PACKAGES = (
    "zip/{0}/bootstrap/bootstrap.zip",
    "zip/{0}/migrate/bootstrap.zip",
    "zip/{0}/api/bootstrap.zip",
    "zip/{0}/export/bootstrap.zip",
    "zip/{0}/vault/bootstrap.zip",
    "image/{0}.tar",
    PROGRAM,
)
# The template whose functions are the packages; `make deploy` deploys it.
TEMPLATE = TARGET / "packages" / "template.json"
# The template whose ingest function is an image; `make deploy IMAGE_URI=…` builds and deploys it.
IMAGE_TEMPLATE = TARGET / "packages" / "image.json"
# Lambda and SAM refuse these properties for a container image. The template sets them in Globals.
ZIP_ONLY = ("CodeUri", "Handler", "Runtime", "Layers")
# An image in ECR. SAM would look for any other image in the local Docker.
IMAGE_URI = re.compile(
    r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(\.cn)?/[\w./-]+(:[\w.-]+|@sha256:[0-9a-f]{64})"
)


class PackageError(Exception):
    """Why the packages must not be deployed."""


def checksums(architecture: str, target: Path = TARGET) -> str:
    """Return `<path>=<SHA-256>` of each package that was built for an architecture."""
    paths = [package.format(architecture) for package in PACKAGES]
    built = [path for path in paths if (target / path).exists()]
    return " ".join(f"{path}={_sha256(target / path)}" for path in built)


def verify(expected: str, target: Path = TARGET, needed: str | None = None) -> list[str]:
    """Compare the packages with checksums that `checksums` returned; return their paths.

    Fails also if there is no checksum of the package that the caller needs.
    """
    sums = dict(entry.split("=") for entry in expected.split())
    if not sums:
        raise PackageError("there is no checksum to compare with")
    if needed and needed not in sums:
        raise PackageError(f"there is no checksum of {needed}")
    for path, checksum in sums.items():
        if not (target / path).is_file():
            raise PackageError(f"{path} is missing")
        if _sha256(target / path) != checksum:
            raise PackageError(f"{path} is not the package that was built: its SHA-256 differs")
    if PROGRAM in sums:
        # An artifact of GitHub has lost this bit.
        (target / PROGRAM).chmod(0o755)
    return list(sums)


def template(environment: str, expected: str, target: Path = TARGET) -> dict[str, Any]:
    """Verify the packages, and return the template with the packages of an environment in it."""
    verified = verify(expected, target)
    found = yaml_parse((ROOT / "template.yaml").read_text())
    architecture = _architecture(environment) or found["Parameters"]["Architecture"]["Default"]
    del found["Globals"]["Function"]["CodeUri"]
    for resource in found["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            program = resource["Metadata"]["BuildProperties"]["Binary"]
            path = f"zip/{architecture}/{program}/bootstrap.zip"
            if path not in verified:
                raise PackageError(f"there is no checksum of {path}")
            resource["Properties"]["CodeUri"] = str(target / path)
    return found


def image_template(image_uri: str) -> dict[str, Any]:
    """Return the template with an image in ECR as the ingest function; the others stay zips."""
    if not IMAGE_URI.fullmatch(image_uri):
        raise PackageError(f"{image_uri} is not the URI of an image in ECR, with a tag or a digest")
    found = yaml_parse((ROOT / "template.yaml").read_text())
    settings = found["Globals"]["Function"]
    zip_only = {name: settings.pop(name) for name in ZIP_ONLY}
    for name, resource in found["Resources"].items():
        if name == "IngestFunction":
            resource["Properties"] |= {"PackageType": "Image", "ImageUri": image_uri}
            del resource["Metadata"]["BuildMethod"], resource["Metadata"]["BuildProperties"]
        elif resource["Type"] == "AWS::Serverless::Function":
            properties = zip_only | resource["Properties"]
            # The template is written to another folder.
            resource["Properties"] = properties | {"CodeUri": str(ROOT / properties["CodeUri"])}
    return found


def _architecture(environment: str) -> str | None:
    """Return the architecture that samconfig.toml sets for an environment."""
    settings = tomllib.loads((ROOT / "samconfig.toml").read_text())
    overrides = settings[environment]["global"]["parameters"]["parameter_overrides"]
    return dict(override.split("=", 1) for override in overrides).get("Architecture")


def _write(found: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    """Run the command that the command line names."""
    parser = argparse.ArgumentParser(prog="deploy.packages", description=__doc__)
    commands = parser.add_subparsers(required=True, dest="command")
    commands.add_parser("checksums", help="print the checksums").add_argument("architecture")
    compare = commands.add_parser("verify", help="compare the packages")
    compare.add_argument("checksums")
    compare.add_argument("needed", help="path of the package that will be used")
    prepare = commands.add_parser("prepare", help="compare the packages, and write the template")
    prepare.add_argument("environment")
    prepare.add_argument("checksums")
    image = commands.add_parser("image", help="write the template with an image in ECR")
    image.add_argument("image_uri")
    arguments = parser.parse_args()
    try:
        match arguments.command:
            case "checksums":
                print(f"{arguments.architecture}={checksums(arguments.architecture)}")
            case "verify":
                verify(arguments.checksums, needed=arguments.needed)
            case "prepare":
                _write(template(arguments.environment, arguments.checksums), TEMPLATE)
            case "image":
                _write(image_template(arguments.image_uri), IMAGE_TEMPLATE)
    except PackageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
