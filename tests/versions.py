"""Checks versions: of Rust against the promise, and of what is fuzzed against what is deployed."""

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
    promised = tomllib.loads(Path("Cargo.toml").read_text())["package"]["rust-version"]
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


def drifted() -> list[str]:
    """Name the crates of which another version is fuzzed than is deployed."""
    deployed, fuzzed = locked("Cargo.lock"), locked("tests/fuzz/Cargo.lock")
    names = {name for name, _ in deployed}
    return [
        f"{name} {version} is fuzzed, and not deployed: copy its version to tests/fuzz/Cargo.lock"
        for name, version in sorted(fuzzed - deployed)
        if name in names
    ]


def locked(lock: str) -> set[tuple[str, str]]:
    """Read the names and versions in a lock file."""
    packages = tomllib.loads(Path(lock).read_text())["package"]
    return {(package["name"], package["version"]) for package in packages}


if __name__ == "__main__":
    print(tested())
    sys.exit("\n".join([*too_new(), *drifted()]) or None)
