"""Jobs are read in a process of their own: whatever components do when they are imported, the command tells it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nimbusd.job import JobError, read_apart, read_job
from tests.job.test_job_file import CHECKED, JOB
from tests.support.cluster import PATIENCE_S, REPOSITORY, come_to_their_end


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", f"{REPOSITORY}{os.pathsep}{tmp_path}")
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


def planner(job_file: Path, code: str) -> None:
    """Have the job's planner be in a module of `code`."""
    (job_file.parent / "own_planner.py").write_text(f"from {CHECKED} import RobotPlanner as Own\n{code}\n")
    job_file.write_text(JOB.replace(f"{CHECKED}:RobotPlanner", "own_planner:Own"))


def told(job_file: Path, timeout_s: float = PATIENCE_S) -> str:
    with pytest.raises(JobError) as caught:
        read_apart(job_file, timeout_s=timeout_s)
    (problem,) = caught.value.problems
    return problem.text


def test_a_job_is_the_same_wherever_it_is_read(job_file: Path) -> None:
    checked = read_apart(job_file, overrides=["seed=7"], output=Path("there"))
    assert checked.job == read_job(job_file, overrides=["seed=7"], output=Path("there"))
    assert checked.output_at == str(job_file) + ":1"
    assert checked.written["plan"] == {"fps": 5, "map": "floor.png"}
    assert "meshes/flat.glb does not exist" in checked.findings.errors[0].text


def test_mistakes_have_their_places(job_file: Path) -> None:
    job_file.write_text(JOB.replace("seed: 5", "sead: 5"))
    with pytest.raises(JobError) as caught:
        read_apart(job_file, overrides=["name=/"])
    assert [problem.where for problem in caught.value.problems] == ["--set name", f"{job_file}:2"]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import os, signal; print('so far'); os.kill(os.getpid(), signal.SIGSEGV)", "was killed by SIGSEGV"),
        ("import os; os._exit(3)", "ended with status 3"),
        ("import sys; sys.exit()", "ended with status 0 and without an answer"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("import os; os.write(2, b'x\\n' * 1000000); os._exit(1)", "its last words were:\n  x\n"),
        ("import os; os.fork() or os.execvp('sleep', ['sleep', '1000']); os._exit(4)", "ended with status"),
        ("raise RuntimeError('not today')", "RuntimeError: not today"),
        ("class Own(Own):\n  def needs(self): raise KeyError('x')", "KeyError: 'x'"),
        ("def (", "SyntaxError"),
    ],
)
def test_what_components_do_when_they_are_imported_is_told(job_file: Path, code: str, sentence: str) -> None:
    planner(job_file, code)
    text = told(job_file)
    assert sentence in text
    assert len(text) < 3000


def test_a_component_that_hangs_is_told_with_its_stack(job_file: Path) -> None:
    planner(job_file, "import time; time.sleep(1000)")
    text = told(job_file, 10.0)
    assert "took more than 10 s" in text
    assert "own_planner.py" in text


def test_nothing_is_left_running(job_file: Path) -> None:
    (job_file.parent / "meshes").mkdir()
    (job_file.parent / "meshes/flat.glb").touch()
    left = "import subprocess, threading, time; p = subprocess.Popen(['sleep', '1000'])\n"
    left += f"open({str(job_file.parent / 'pid')!r}, 'w').write(str(p.pid))\n"
    planner(job_file, left + "threading.Thread(target=time.sleep, args=(1000,)).start()")
    assert read_apart(job_file).job.stages["plan"].component == "own_planner:Own"
    come_to_their_end([int((job_file.parent / "pid").read_text())])


def test_a_module_of_the_current_folder_is_no_module_of_ours(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = job_file.parent / "elsewhere"
    elsewhere.mkdir()
    for name in ("random", "numpy", "json", "nimbusd"):
        (elsewhere / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(elsewhere)
    assert read_apart(job_file).job.name == "toy"


def test_run_and_check_do_not_import_components(job_file: Path, tmp_path: Path) -> None:
    planner(job_file, f"import os; open({str(tmp_path / 'pids')!r}, 'a').write(f'{{os.getpid()}}\\n')")
    for command in (["check", str(job_file)], ["run", str(job_file)]):
        process = subprocess.Popen([sys.executable, "-m", "nimbusd.cli", *command], stderr=subprocess.PIPE, text=True)
        assert "meshes/flat.glb does not exist" in process.communicate(timeout=PATIENCE_S)[1] or command[0] == "check"
        assert process.returncode == 2
        assert str(process.pid) not in (tmp_path / "pids").read_text().split()
    assert len((tmp_path / "pids").read_text().split()) == 2


def test_bytes_that_are_no_text_are_told(job_file: Path) -> None:
    with pytest.raises(JobError, match="cannot be read: No such file"):
        read_apart(Path(os.fsdecode(b"/no\xff.yaml")))
    with pytest.raises(JobError, match="no file or message can hold"):
        read_apart(job_file, output=Path(os.fsdecode(b"/no\xff")))
