"""Checks that Cargo.toml promises a Rust version that every dependency accepts."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path


def number(version: str) -> tuple[int, ...]:
    """Make 1.95 and 1.95.0 one version."""
    parts = [int(part) for part in version.split(".")]
    return tuple(parts + [0] * (3 - len(parts)))


def tested() -> str:
    """Say which Rust is promised, and which one builds and tests it here."""
    promised = tomllib.loads(Path("Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    version = subprocess.run(["rustc", "--version"], check=True, stdout=subprocess.PIPE, text=True)
    return f"Cargo.toml promises Rust {promised}; this is {version.stdout.split()[1]}"


def too_new() -> list[str]:
    """Name the dependencies that need a newer Rust than Cargo.toml promises."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    promised = packages[metadata["resolve"]["root"]]["rust_version"]
    return [
        f"{package['name']} {package['version']} needs Rust {package['rust_version']}"
        for package in packages.values()
        if package["rust_version"] and number(package["rust_version"]) > number(promised)
    ]


if __name__ == "__main__":
    print(tested())
    sys.exit("\n".join(too_new()) or None)
