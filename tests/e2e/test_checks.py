"""What `make check` finds in documents, tried on a document made for it."""

from pathlib import Path

import pytest

from dev.checks import commands, documents, markdown

pytestmark = pytest.mark.without_emulator

DOCUMENT = """
# The `make` page

Run `make up`, or `make send
FILE=x`. A program: `make`. A path: `.ci/run`. A table | with `a \\| make x`.

    make down

    not a command

```sh
# a comment
NAME=value make top
SALT=$(aws sts get-caller-identity)
printf 'a' \\
    | openssl dgst
```

```console
$ make run
make believe
```

## Who is there

```sql
SELECT 1;
```

`SELECT pg_reload_conf()`, `SELECT`, [here](#who-is-there), [there](#nowhere), [gone](gone.md).

```text
make noise
```

```
make what
```
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the document into a folder of its own."""
    (tmp_path / "README.md").write_text(DOCUMENT)
    (tmp_path / "CHANGELOG.md").write_text("`make old`\n")
    monkeypatch.setattr(markdown, "ROOT", tmp_path)
    monkeypatch.setattr(documents, "ROOT", tmp_path)


def test_commands_are_found_in_each_form() -> None:
    found = [(one.text, one.line) for one in markdown.commands()]

    assert sorted(found, key=lambda one: one[1]) == [
        ("make up", 4),
        ("make send FILE=x", 4),
        (".ci/run", 5),
        ("make down", 7),
        ("NAME=value make top", 13),
        ("SALT=$(aws sts get-caller-identity)", 14),
        ("printf 'a' | openssl dgst", 16),
        ("make run", 20),
        ("SQL: Who is there", 26),
        ("SQL: SELECT pg_reload_conf()", 30),
    ]


def test_commands_without_a_key_are_problems() -> None:
    problems = list(documents.unknown_commands())

    unknown = [problem for problem in problems if problem.startswith("README.md")]
    assert [problem.split("`")[1] for problem in unknown] == [
        "SALT=$(aws sts get-caller-identity)",
        "printf 'a' | openssl dgst",
        "SQL: Who is there",
        "SQL: SELECT pg_reload_conf()",
    ]
    assert "commands.py: no document shows `make deploy`" in problems


def test_the_longest_key_counts() -> None:
    assert commands.key("make test") == "make test"
    assert commands.key("make test-localstack") == "make test-localstack"
    assert commands.key("make test-localstack ENDPOINT=x") == "make test-localstack ENDPOINT"
    assert commands.key("make testing") is None
    assert commands.key("NAME=value make top") == "make top"


def test_broken_links_are_problems() -> None:
    assert list(documents.broken_links()) == [
        "README.md:30: #nowhere leads to no heading",
        "README.md:30: gone.md does not exist",
    ]


def test_fences_without_a_language_are_problems() -> None:
    assert list(markdown.unknown_languages("README.md")) == [
        "README.md:36: a fenced block in the language ''"
    ]


def test_a_test_that_is_gone_is_a_problem() -> None:
    lost = list(documents.lost_tests())

    assert len(lost) == len(commands.TESTED)


def test_a_table_that_differs_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("up: build ## Start it\ndown: ## Stop it\n")
    (tmp_path / "README.md").write_text("| `make up` | Start it |\n| `make down FAST=1` | Stop |\n")

    assert list(documents.wrong_table()) == ["README.md and `make help` differ in `make down`"]


def test_a_long_readme_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("word " * 901)

    assert list(documents.too_long()) == [
        "README.md has 1 lines and 901 words; allowed: 120 and 900"
    ]
