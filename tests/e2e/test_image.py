"""The bootstrap runs on Lambda's Amazon Linux, from a zip and in a container image."""

import re
import subprocess

import pytest
from samtranslator.yaml_helper import yaml_parse

from deploy import packages
from deploy.packages import PackageError
from dev import ROOT
from dev.stack import PACKAGE

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
    image = packages.image_template(
        "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn/login-etl@sha256:" + "0" * 64
    )

    functions = {"IngestFunction", "MigrateFunction"}
    changed = {name for name in zipped if zipped[name] != image[name]}
    assert changed == {"Globals", "Resources"}
    assert {
        name
        for name, resource in zipped["Resources"].items()
        if resource != image["Resources"][name]
    } == functions
    assert zipped["Globals"]["Function"].keys() - image["Globals"]["Function"].keys() == {
        "CodeUri",
        "Handler",
        "Runtime",
        "Layers",
    }


def _readelf(what: str) -> str:
    """Run readelf of binutils, which come with every C compiler."""
    command = ["readelf", "--wide", what, PACKAGE / "bootstrap"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
