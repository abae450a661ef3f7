"""Tests of the analysts' API and page on a plain server, by outside judges and as an attacker.

They need Postgres, the programs `migrate` and `api`, and Chromium, but no emulated AWS. The tests
of signed calls through API Gateway are in tests/e2e.
"""
