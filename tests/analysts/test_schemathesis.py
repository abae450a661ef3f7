"""Requests that Schemathesis makes from the document; `make schemathesis` sends more of them."""

from pathlib import Path

from analysts import contract
from analysts.server import Api

# Takes less than a minute on an idle machine.
EXAMPLES = 100


def test_no_check_fails(api: Api, tmp_path: Path) -> None:
    report = contract.run(api, tmp_path, examples=EXAMPLES, seed=1)

    assert report["exit_code"] == 0, (tmp_path / "output.txt").read_text()
    assert report["failures"] == []
    assert {name: phase["status"] for name, phase in report["phases"].items()} == {
        "examples": "success",
        "coverage": "success",
        "fuzzing": "success",
        "stateful": "success",
    }
    assert report["operations"]["tested"] == report["operations"]["total"]
    assert report["test_cases"]["generated"] > 1000
