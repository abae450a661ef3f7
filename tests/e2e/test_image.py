"""The bootstrap runs on Lambda's Amazon Linux, from a zip and in a container image."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from samtranslator.yaml_helper import yaml_parse

from deploy import image, packages
from deploy.image import ImageError
from deploy.packages import PackageError
from dev import ROOT, emulator
from dev.emulator import REGION, Feature, Kind
from dev.local_system import make_directory
from dev.stack import PACKAGE

REGISTRY = "111122223333.dkr.ecr.us-east-1.amazonaws.com"
# Stands in for Docker, and pushes an image with a configuration of 64 times "a".
DOCKER = """#!{python}
import json, pathlib, sys
import boto3
pathlib.Path("{log}").open("a").write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "push":
    manifest = {{
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {{
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": 2,
            "digest": "sha256:" + "a" * 64,
        }},
        "layers": [],
    }}
    boto3.client("ecr").put_image(
        repositoryName="login-etl",
        imageTag=sys.argv[2].rsplit(":")[1],
        imageManifest=json.dumps(manifest),
    )
"""
# https://docs.aws.amazon.com/linux/al2023/ug/core-glibc.html
GLIBC_OF_AL2023 = (2, 34)
# The libraries of glibc; the last two are empty since 2.34.
LIBRARIES = {
    "ld-linux-aarch64.so.1",
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "libpthread.so.0",
}


def test_bootstrap_needs_no_newer_glibc_than_lambdas() -> None:
    required = re.findall(r"GLIBC_(\d+)\.(\d+)", _readelf("--version-info"))

    assert required != []
    assert max((int(major), int(minor)) for major, minor in required) <= GLIBC_OF_AL2023


def test_bootstrap_links_only_glibc() -> None:
    required = set(re.findall(r"\(NEEDED\).*\[(.+)\]", _readelf("--dynamic")))

    assert "libc.so.6" in required
    assert required <= LIBRARIES


def test_image_puts_bootstrap_where_lambda_looks() -> None:
    instructions = (ROOT / "deploy" / "Dockerfile").read_text()

    assert "COPY --chmod=755 bootstrap ${LAMBDA_RUNTIME_DIR}/bootstrap" in instructions
    assert re.search(
        r"^FROM public\.ecr\.aws/lambda/provided:al2023@sha256:[0-9a-f]{64}$",
        instructions,
        re.MULTILINE,
    )


def test_image_outside_ecr_is_refused() -> None:
    for uri in ("login-etl:arm64", "111122223333.dkr.ecr.eu-central-1.amazonaws.com/login-etl"):
        with pytest.raises(PackageError, match="is not the URI of an image in ECR"):
            packages.image_template(uri)


def test_image_template_differs_only_in_image() -> None:
    zipped = yaml_parse((ROOT / "template.yaml").read_text())
    changed_template = packages.image_template(
        "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn/login-etl@sha256:" + "0" * 64
    )

    others = {"ApiFunction", "ExportFunction", "MigrateFunction", "VaultFunction"}
    functions = others | {"IngestFunction"}
    changed = {name for name in zipped if zipped[name] != changed_template[name]}
    assert changed == {"Globals", "Resources"}
    assert {
        name
        for name, resource in zipped["Resources"].items()
        if resource != changed_template["Resources"][name]
    } == functions
    code = {
        name: changed_template["Resources"][name]["Properties"].get("CodeUri") for name in functions
    }
    assert code == {
        "ApiFunction": str(ROOT / "crates" / "api"),
        "ExportFunction": str(ROOT / "crates" / "export"),
        "IngestFunction": None,
        "MigrateFunction": str(ROOT),
        "VaultFunction": str(ROOT / "crates" / "vault"),
    }
    before, after = zipped["Globals"]["Function"], changed_template["Globals"]["Function"]
    assert before.keys() - after.keys() == {"CodeUri", "Handler", "Runtime", "Layers"}


@pytest.mark.needs(Feature.IMAGES)
def test_second_push_of_commit_pushes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = _saved_image(tmp_path, "a" * 64), _saved_image(tmp_path, "b" * 64)
    docker = tmp_path / "docker"
    docker.write_text(DOCKER.format(python=sys.executable, log=tmp_path / "log"))
    docker.chmod(0o755)
    started = emulator.start(Kind.MINISTACK, make_directory() / "emulator", tmp_path / "emulator")
    for name, value in started.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    try:
        ecr = started.client("ecr")
        with pytest.raises(ImageError, match="ECR has no repository login-etl"):
            image.push(ecr, REGISTRY, "0123-arm64", one, "login-etl:arm64")
        ecr.create_repository(repositoryName="login-etl", imageTagMutability="IMMUTABLE")

        first = image.push(ecr, REGISTRY, "0123-arm64", one, "login-etl:arm64")
        second = image.push(ecr, REGISTRY, "0123-arm64", one, "login-etl:arm64")
        with pytest.raises(ImageError, match="exists with another image, and a tag never moves"):
            image.push(ecr, REGISTRY, "0123-arm64", other, "login-etl:arm64")
    finally:
        started.stop()

    assert first == second == f"{REGISTRY}/login-etl:0123-arm64"
    assert (tmp_path / "log").read_text().splitlines() == [
        f"tag login-etl:arm64 {first}",
        f"push {first}",
    ]


def _saved_image(folder: Path, configuration: str) -> Path:
    """Write the part of a saved image that says what the image is."""
    path = folder / f"{configuration[0]}.tar"
    content = json.dumps([{"Config": f"blobs/sha256/{configuration}", "Layers": []}]).encode()
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return path


def _readelf(what: str) -> str:
    """Run readelf of binutils, which come with every C compiler."""
    command = ["readelf", "--wide", what, PACKAGE / "bootstrap"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
