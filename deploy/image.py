"""Pushes the container image of a commit to ECR, once: `make image-push`.

A tag is a commit, and never moves. So a second push of a commit must not push; it succeeds if ECR
has the same image, and fails if ECR has another.
"""

import argparse
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path, PurePath

import boto3
from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, ClientError

REPOSITORY = "login-etl"
# Without these, ECR would convert the manifest.
MANIFESTS = [
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
]


class ImageError(Exception):
    """Why the image was not pushed."""


def push(ecr: BaseClient, registry: str, tag: str, image: Path, local_name: str) -> str:
    """Push an image that Docker has, unless ECR has it; return its URI.

    Two images are the same if their configurations are: these contain the checksums of the layers.
    """
    uri = f"{registry}/{REPOSITORY}:{tag}"
    there = _pushed_configuration(ecr, tag)
    if there is None:
        subprocess.run(["docker", "tag", local_name, uri], check=True)
        subprocess.run(["docker", "push", uri], check=True)
    elif there != _saved_configuration(image):
        raise ImageError(
            f"{uri} exists with another image, and a tag never moves. Each build makes another "
            "image: deploy the existing image, or commit and push again."
        )
    return uri


def _region(registry: str) -> str:
    """Read the region in the host of a registry of ECR."""
    found = re.fullmatch(r"\d{12}\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?", registry)
    if found is None:
        raise ImageError(f"{registry} is not the host of a registry in ECR")
    return found[1]


def _pushed_configuration(ecr: BaseClient, tag: str) -> str | None:
    """Return the digest of an image's configuration in ECR, or None if the tag does not exist."""
    try:
        answer = ecr.batch_get_image(
            repositoryName=REPOSITORY, imageIds=[{"imageTag": tag}], acceptedMediaTypes=MANIFESTS
        )
    except ecr.exceptions.RepositoryNotFoundException:
        raise ImageError(
            f"ECR has no repository {REPOSITORY}: create it with make image-registry"
        ) from None
    manifests = [json.loads(image["imageManifest"]) for image in answer["images"]]
    if not manifests:
        codes = {failure["failureCode"] for failure in answer["failures"]}
        if codes - {"ImageNotFound"}:
            raise ImageError(f"ECR did not say whether {tag} exists: {', '.join(sorted(codes))}")
        return None
    # An index has no configuration, and is no image that we push.
    return manifests[0].get("config", {}).get("digest", "")


def _saved_configuration(image: Path) -> str:
    """Return the digest of an image's configuration in a file that `docker save` wrote."""
    with tarfile.open(image) as archive:
        manifest = archive.extractfile("manifest.json")
        if manifest is None:
            raise ImageError(f"{image} has no manifest")
        [saved] = json.load(manifest)
    # blobs/sha256/<digest>, or <digest>.json of an older Docker.
    return f"sha256:{PurePath(saved['Config']).stem}"


def main() -> int:
    """Push the image that the command line names."""
    parser = argparse.ArgumentParser(prog="deploy.image", description=__doc__)
    parser.add_argument("registry", help="host of the registry")
    parser.add_argument("tag")
    parser.add_argument("image", type=Path, help="file that docker save wrote")
    parser.add_argument("local_name", help="name of the image in Docker")
    arguments = parser.parse_args()
    try:
        ecr = boto3.client("ecr", region_name=_region(arguments.registry))
        print(push(ecr, **vars(arguments)))
    except (BotoCoreError, ClientError, ImageError) as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:  # Docker has said why
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
