"""The project on one machine: a throwaway Postgres, an AWS emulator, and the tests between them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EVENTS = ROOT / "events"
TARGET = ROOT / "target"
