"""The check finds a name that X-Ray rejects, and fails where it would read no name."""

import shutil
from pathlib import Path

import pytest

from dev import ROOT
from dev.checks import xray_names


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Copy the sources."""
    return Path(shutil.copytree(ROOT / "src", tmp_path / "src"))


def _replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_names_in_the_sources_are_accepted(sources: Path) -> None:
    assert {"batch", "read", "decode", "write"} <= {*xray_names.names(sources)}
    assert xray_names.findings(sources) == []


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("telemetry/batch.rs", '("decode"', '("decode, mask and write"'),
        ("telemetry/trace.rs", 'segment("batch"', 'segment("batch!"'),
    ],
)
def test_rejected_name_put_back_is_found(sources: Path, file: str, old: str, new: str) -> None:
    _replace(sources / file, old, new)

    [finding] = xray_names.findings(sources)

    assert new.split('"')[1] in finding


def test_stages_that_moved_are_an_error(sources: Path) -> None:
    (sources / "other.rs").write_text("fn stages() -> Vec<Stage> { Vec::new() }")

    with pytest.raises(SystemExit, match=r"other\.rs"):
        xray_names.names(sources)
