"""Runs the system on one machine: a throwaway Postgres, an AWS emulator and the deployed stack."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EVENTS = ROOT / "events"
TARGET = ROOT / "target"
# The program that starts an emulator so that no other user can use it.
# -P keeps its folder out of the module path: two modules there have the emulators' names.
PRIVATE_EMULATOR = ["-P", ROOT / "dev" / "private_emulator.py"]
