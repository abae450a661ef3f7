"""Simulates a stack under a rate of logins: what breaks first, and what a month costs."""
