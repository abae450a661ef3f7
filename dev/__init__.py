"""Runs the system on one machine: a throwaway Postgres, an AWS emulator and the deployed stack."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EVENTS = ROOT / "events"
TARGET = ROOT / "target"
