"""Tests of the lake: exports to a real S3 emulator, read by programs of others.

They need Postgres and the programs `migrate` and `export`. `python -m lake`, behind `make
test-lake`, repeats them with more rows and more kills, and with readers that are too large for
`make test`.
"""
