"""Checks that every dependency supports the rust-version in Cargo.toml."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path


def number(version: str) -> tuple[int, ...]:
    """Parse a version; 1.95 equals 1.95.0."""
    parts = [int(part) for part in version.split(".")]
    return tuple(parts + [0] * (3 - len(parts)))


def describe() -> str:
    """Describe the rust-version of Cargo.toml and the installed version."""
    package = tomllib.loads(Path("Cargo.toml").read_text())["workspace"]["package"]
    version = subprocess.run(["rustc", "--version"], check=True, stdout=subprocess.PIPE, text=True)
    installed = version.stdout.split()[1]
    return f"rust-version in Cargo.toml is {package['rust-version']}; installed is {installed}"


def too_new() -> list[str]:
    """Return the dependencies that need a newer Rust than rust-version."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    rust_version = packages[metadata["resolve"]["root"]]["rust_version"]
    return [
        f"{package['name']} {package['version']} needs Rust {package['rust_version']}"
        for package in packages.values()
        if package["rust_version"] and number(package["rust_version"]) > number(rust_version)
    ]


if __name__ == "__main__":
    print(describe())
    sys.exit("\n".join(too_new()) or None)
