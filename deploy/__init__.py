"""Operators' commands for a deployed stack, and its container image."""
