from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from nimbusd.cli.check import check
from nimbusd.core.ids import JobId
from nimbusd.core.records import JobRow
from nimbusd.job import read_job
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.ledger.reads import LedgerIdentity
from nimbusd.master.output.folder import ledger_path, remember_job
from tests.job.test_job_file import JOB


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "meshes").mkdir()
    (tmp_path / "meshes/flat.glb").touch()
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(check, [str(arg) for arg in args], catch_exceptions=False)


def errors_of(*args: str | Path) -> dict[str, str]:
    """Place → sentence of every error that `check --json` tells."""
    result = run(*args, "--json")
    assert result.exit_code == 2
    return {error["where"]: error["text"] for error in orjson.loads(result.stdout)["errors"]}


def test_a_good_job_is_summed_up(job_file: Path) -> None:
    result = run(job_file)
    assert result.exit_code == 0
    for words in ("4: flat, house_000", "exactly 8 (2 per scene)", "RobotPlanner 1.2.0", "OK: toy can run"):
        assert words in result.output


def test_a_module_that_is_not_installed_here_is_a_warning(job_file: Path) -> None:
    result = run(job_file, "--json")
    assert result.exit_code == 0
    (warning,) = orjson.loads(result.stdout)["warnings"]
    assert warning["where"] == f"{job_file}:15"
    assert "no_such_module_anywhere" in warning["text"]


def test_a_missing_scene_file_is_named_with_the_line_of_its_key(job_file: Path, tmp_path: Path) -> None:
    (tmp_path / "meshes/flat.glb").unlink()
    errors = errors_of(job_file)
    assert list(errors) == [f"{job_file}:5"]
    assert f"{tmp_path}/meshes/flat.glb does not exist" in errors[f"{job_file}:5"]


def test_an_output_that_is_a_file_is_an_error(job_file: Path) -> None:
    (text,) = errors_of(job_file, "--output", job_file).values()
    assert "is a file, not a folder" in text


def test_an_output_of_another_job_is_an_error_and_of_this_job_is_not(job_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "there"
    ledger_path(output).parent.mkdir(parents=True)
    job = read_job(job_file)
    with Ledger.open(ledger_path(output)) as ledger:
        ledger.put_job(JobRow(JobId("toy"), job.fingerprint(), job.to_dict(), "me", 0, 0, True, "", 0.0))
    assert run(job_file, "--output", output).exit_code == 0
    (text,) = errors_of(job_file, "--output", output, "--set", "seed=6").values()
    assert "belongs to job 'toy' with other scenes, seed or pipeline" in text


def test_an_output_of_a_master_s_job_is_an_error_for_others_with_the_ways_out(job_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "there"
    (output / ".pieces/one").mkdir(parents=True)
    (output / ".nimbusd").mkdir()
    remember_job(output, read_job(job_file), tmp_path / "master.sqlite", LedgerIdentity("l", 1, "t"), 1)
    assert run(job_file, "--output", output).exit_code == 0
    (text,) = errors_of(job_file, "--output", output, "--set", "seed=6").values()
    assert "holds job 'toy' with other scenes, seed or pipeline" in text
    (text,) = errors_of(job_file, "--output", output, "--set", "name=other").values()
    assert "belongs to job 'toy'" in text
    assert f"nimbusctl output move {output} FOLDER" in text


def test_every_error_of_the_file_is_printed_and_counted(job_file: Path) -> None:
    job_file.write_text(JOB.replace("seed: 5\n", "sead: 5\n").replace("fps: 5", "fpz: 5"))
    result = run(job_file)
    assert result.exit_code == 2
    assert "job.yaml:2: unknown key 'sead'; did you mean 'seed'?" in result.output
    assert "2 errors: this job cannot run" in result.output
