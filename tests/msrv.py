"""Checks that Cargo.toml promises no older Rust than a dependency declares."""

import json
import subprocess
import sys


def number(version: str) -> tuple[int, ...]:
    """Make 1.95 and 1.95.0 one version."""
    parts = [int(part) for part in version.split(".")]
    return tuple(parts + [0] * (3 - len(parts)))


def main() -> None:
    """Exit with the dependencies that need a newer Rust, if there are any."""
    command = ["cargo", "metadata", "--locked", "--format-version", "1"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    packages = {package["id"]: package for package in metadata["packages"]}
    promised = packages[metadata["resolve"]["root"]]["rust_version"]
    newer = [
        f"{package['name']} {package['version']} needs Rust {package['rust_version']}"
        for package in packages.values()
        if package["rust_version"] and number(package["rust_version"]) > number(promised)
    ]
    if newer:
        sys.exit("\n".join([f"rust-version is {promised}, but", *newer]))


if __name__ == "__main__":
    main()
