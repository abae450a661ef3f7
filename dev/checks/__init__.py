"""Checks that no tool of `make check` makes: each is a program of its own."""
