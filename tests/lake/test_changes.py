"""A day is exported again when it changes, and only then."""

from datetime import timedelta
from pathlib import Path

import pytest
from e2e.documented import sql

from dev.lake import PREFIX
from lake import sample, summary
from lake.readers import READERS, Objects
from lake.servers import Export

ERASE = sql("Delete or change rows", "lake.md").replace("'the user'", "%(user)s")


def key(age: int) -> str:
    """Return the key of the object of the day before this many days."""
    return f"{PREFIX}dt={sample.today() - timedelta(age)}/part-00000.parquet"


def write(export: Export, age: int, *names: str, in_ledger: bool = True) -> None:
    """Write logins of the day before this many days."""
    day = sample.today() - timedelta(age)
    with export.connect() as owner:
        sample.write(owner, [sample.login(name, day) for name in names], in_ledger=in_ledger)


def assert_equal(export: Export, folder: Path) -> None:
    """Compare the lake with the table, by all readers."""
    with export.connect() as owner:
        expected = summary.of_table(owner)
    objects = Objects(export.lake, export.lake.download(folder))
    for name, read in READERS.items():
        assert read(objects) == expected, name


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    """Return the keys that are new or were written again."""
    return {key for key, version in after.items() if before.get(key) != version}


def test_second_run_writes_no_object(export: Export) -> None:
    for age in (0, 1, 13):
        write(export, age, "anna", "boris")
    export.succeed()
    before = export.versions()

    printed = export.succeed()

    assert "days=0" in printed
    assert len(before) == 3
    assert export.versions() == before


@pytest.mark.parametrize("age", [0, 1, 13, 14])
def test_late_message_is_exported_once(export: Export, tmp_path: Path, age: int) -> None:
    for each in (0, 1, 13, 14):
        write(export, each, "anna")
    export.succeed()
    before = export.versions()

    write(export, age, "late")
    export.succeed()
    first = export.versions()
    export.succeed()

    assert changed(before, first) == {key(age)}
    assert export.versions() == first
    assert_equal(export, tmp_path)


def test_late_message_may_open_a_day(export: Export, tmp_path: Path) -> None:
    write(export, 0, "anna")
    export.succeed()

    write(export, 13, "late")
    export.succeed()

    assert set(export.versions()) == {key(0), key(13)}
    assert_equal(export, tmp_path)


@pytest.mark.parametrize("age", [1, 40])
def test_erased_token_leaves_the_lake(export: Export, tmp_path: Path, age: int) -> None:
    write(export, age, "anna", "boris", "anna", in_ledger=age < 15)
    write(export, 2, "boris")
    export.succeed()
    before = export.versions()

    with export.connect() as owner:
        owner.execute(ERASE, {"user": "anna"})
    export.succeed()
    first = export.versions()
    export.succeed()

    assert changed(before, first) == {key(age)}
    assert export.versions() == first
    days = export.lake.download(tmp_path)
    assert not [
        file for file in days.glob("*/*") if sample.device("anna").encode() in file.read_bytes()
    ]
    assert_equal(export, tmp_path)


def test_day_may_lose_all_rows(export: Export, tmp_path: Path) -> None:
    write(export, 1, "anna")
    write(export, 2, "boris")
    export.succeed()

    with export.connect() as owner:
        owner.execute(ERASE, {"user": "anna"})
    export.succeed()

    assert export.books()[str(sample.today() - timedelta(1))].rows == 0
    assert_equal(export, tmp_path)


def test_late_message_after_erasure_is_exported(export: Export, tmp_path: Path) -> None:
    write(export, 3, "anna", "boris")
    export.succeed()
    with export.connect() as owner:
        owner.execute(ERASE, {"user": "anna"})
    export.succeed()

    write(export, 3, "late")
    export.succeed()

    assert export.books()[str(sample.today() - timedelta(3))].rows == 2
    assert_equal(export, tmp_path)


def test_new_tokens_are_exported(export: Export, tmp_path: Path) -> None:
    for age in (1, 40):
        write(export, age, "anna", "boris", in_ledger=age < 15)
    export.succeed()
    before = export.versions()

    with export.connect() as owner, owner.transaction():
        owner.execute("UPDATE user_logins SET masked_ip = md5(masked_ip) || md5(masked_ip)")
        owner.execute("SELECT lake.mark_changed(day) FROM lake.exports")
    export.succeed()

    assert changed(before, export.versions()) == {key(1), key(40)}
    assert_equal(export, tmp_path)


def test_missing_row_fails_the_run(export: Export) -> None:
    write(export, 1, "anna", "boris")
    write(export, 2, "anna")
    with export.connect() as owner:
        owner.execute("DELETE FROM user_logins WHERE user_id = 'boris'")

    done = export.run()

    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert str(sample.today() - timedelta(1)) in said
    assert sample.device("anna") not in said
    # The other day is exported all the same.
    assert set(export.versions()) == {key(2)}
    assert set(export.books()) == {str(sample.today() - timedelta(2))}
    assert export.unfinished_uploads() == 0


def test_mismatch_keeps_the_older_object(export: Export) -> None:
    write(export, 1, "anna", "boris")
    export.succeed()
    before = export.versions()
    with export.connect() as owner:
        owner.execute("DELETE FROM user_logins WHERE user_id = 'boris'")
    write(export, 1, "late")

    done = export.run()

    assert done.returncode == 1
    assert export.versions() == before


def test_dropped_day_stays_in_the_lake(export: Export) -> None:
    day = sample.today() - timedelta(1)
    write(export, 1, "anna")
    export.succeed()
    before = export.versions()
    with export.connect() as owner:
        owner.execute(f"DROP TABLE user_logins_{day:%Y_%m_%d}")

    export.succeed()
    with export.connect() as owner:
        owner.execute("SELECT lake.mark_changed(%s)", [day])
    done = export.run()

    assert done.returncode == 1
    assert str(day) in done.stdout + done.stderr
    assert export.versions() == before
