"""Checks for which `make check` has no ready-made tool; each module is a program."""
