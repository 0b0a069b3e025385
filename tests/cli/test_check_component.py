"""`nimbusctl check --component`: the table, the JSON and the exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from nimbusd.cli import cli

pytestmark = pytest.mark.processes


def test_a_component_that_keeps_the_contract_ends_with_status_0(tmp_path: Path) -> None:
    (tmp_path / "args.yaml").write_text("fail_share: 0.5\n")
    options = ["--args", f"@{tmp_path / 'args.yaml'}", "--runs", "6"]
    done = CliRunner().invoke(cli, ["check", "--component", "tests.support.toy:ToyPlanner", *options])
    assert done.exit_code == 0, done.output
    assert "every line of the contract holds" in done.output
    assert "which is a result" in done.output


def test_a_component_that_fails_ends_with_status_2_and_says_where() -> None:
    command = ["check", "--component", "tests.support.broken_contracts:DoubleLoader", "--runs", "4", "--json"]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 2, done.output
    told = json.loads(done.output)
    assert not told["ok"]
    assert told["stage"] == "load"
    assert [row["line"] for row in told["findings"] if row["verdict"] == "fails"] == ["results"]


def test_a_component_that_cannot_run_here_ends_with_status_3() -> None:
    done = CliRunner().invoke(cli, ["check", "--component", "tests.support.broken_contracts:StrandedPlanner"])
    assert done.exit_code == 3, done.output
    assert "no_such_module_anywhere" in done.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "Give either a JOB file, or --component"),
        (["job.yaml", "--component", "NavPlanner"], "Give either a JOB file, or --component"),
        (["--component", "NavPlanner", "--args", "[3]"], "is no mapping"),
        (["--component", "NavPlanner", "--args", "@none.yaml"], "No such file"),
        (["--component", "NavPlanner", "--beside", "{cook: {}}"], "must be a stage"),
    ],
)
def test_wrong_options_are_told_before_anything_runs(options: list[str], words: str) -> None:
    done = CliRunner().invoke(cli, ["check", *options])
    assert done.exit_code == 2
    assert words in done.output.replace("\n", " "), done.output
