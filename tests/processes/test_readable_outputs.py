"""Outputs that somebody may only read: they are verified, shown, replayed and told of, and nothing is written there."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.core.records import JobRow, State
from nimbusd.master.ledger.copy import copy_ledger
from nimbusd.master.ledger.ledger import Ledger, LedgerError
from nimbusd.master.output.folder import ledger_path
from nimbusd.master.output.report import job_in_output
from tests.support.finished_outputs import NIMBUSCTL, environment, finished
from tests.support.records import record_of

pytestmark = pytest.mark.processes

NOBODY = 65534


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished output where others can get at it; the folders of pytest are closed to them."""
    folder = Path(f"/var/tmp/nimbusd-test-{os.getpid()}")
    folder.mkdir(mode=0o755)
    try:
        yield finished(folder)
    finally:
        shutil.rmtree(folder)


def state_of(output: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of every file and folder."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in [output, *output.rglob("*")]}


def as_nobody(output: Path, *args: object, reads_all: bool = True) -> subprocess.CompletedProcess[str]:
    """Run nimbusctl as a user who owns nothing and may write nowhere. Skips where we are not root, or others kept out.

    reads_all: they may read everything, so that this repository and its Python may lie in a private folder.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user, by `setpriv`")
    if closed := [str(parent) for parent in output.parents if not parent.stat().st_mode & stat.S_IXOTH]:
        pytest.skip(f"other users may not enter {', '.join(closed)}")
    become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    if reads_all:
        become += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return run([*become, *NIMBUSCTL, *map(str, args)], output)


def on_a_read_only_mount(output: Path, *args: object) -> subprocess.CompletedProcess[str]:
    """Run nimbusctl where the output is mounted read-only. Skips where we may not mount."""
    words = " ".join(map(str, [*NIMBUSCTL, *args]))
    mount = f"mount --bind {output} {output} && mount -o remount,bind,ro {output}"
    tried = subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"mounting is refused here: {tried.stderr.strip()}")
    return run(["unshare", "-m", "sh", "-c", f"{mount} && exec {words}"], output)


def run(command: list[str], output: Path) -> subprocess.CompletedProcess[str]:
    before = state_of(output)
    # Its own folder for temporary files, which others may not write to, is not what this is about.
    env = environment(HOME="/var/tmp", TMPDIR="/var/tmp")
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, cwd="/var/tmp")
    assert "Traceback" not in done.stderr
    assert state_of(output) == before
    return done


def test_who_may_only_read_an_output_verifies_shows_replays_and_is_told_of_it(output: Path) -> None:
    for args, says in (
        (("verify", output), "OK: "),
        (("show", output, "--episodes", "0"), "2 in 2 scenes"),
        (("status", output), "2 of 2"),
        (("replay", "attic/0", "--output", output), "came out equal"),
    ):
        done = as_nobody(output, *args)
        assert done.returncode == 0, done.stderr
        assert says in done.stdout


def test_an_output_that_is_mounted_read_only_is_verified(output: Path) -> None:
    done = on_a_read_only_mount(output, "verify", output)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, f"OK: {output}")


def test_what_would_have_to_write_says_so_in_a_sentence(output: Path) -> None:
    done = on_a_read_only_mount(output, "publish", output)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Read-only file system" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_ledger_at_work_is_read_by_who_may_not_write_to_it(output: Path) -> None:
    """Its log is alive, and holds what the database does not have yet."""
    with Ledger.open(ledger_path(output)) as ledger:
        key = EpisodeKey(JobId("toy"), "cellar", 0)
        ledger.apply([record_of(key, State.QUARANTINED, stage="plan", reason="dark", detail="no light")])
        (log := ledger_path(output).with_name("ledger.sqlite-wal")).chmod(0o644)
        assert log.stat().st_size > 0
        done = as_nobody(output, "logs", output)
    assert done.returncode == 0, done.stderr
    assert "cellar/0  quarantined  plan: dark, no light" in done.stdout


def test_a_ledger_that_may_not_be_read_is_told_in_a_sentence(output: Path) -> None:
    with closed_to_others(ledger_path(output)):
        done = as_nobody(output, "status", output, reads_all=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "error: " in done.stderr


@contextlib.contextmanager
def closed_to_others(path: Path) -> Iterator[None]:
    path.chmod(0o600)
    try:
        yield
    finally:
        path.chmod(0o644)


# --- copies of ledgers ---


def row(name: str) -> JobRow:
    return JobRow(JobId(name), "f" * 64, {"scenes": []}, "somebody", 0, 0, True, "", 1.0)


def test_copies_of_a_ledger_that_is_written_to_are_each_of_one_moment(tmp_path: Path) -> None:
    """Written in pairs, and moved from the log into the database again and again, also between two files' copies."""
    path, copies = tmp_path / "ledger.sqlite", tmp_path / "copies"
    copies.mkdir()
    with Ledger.open(path) as ledger:
        for number in range(40):
            with ledger._transaction():
                for side in ("left", "right"):
                    query = "INSERT INTO job VALUES (NULL,?,'','{}','',0,0,1,'',0,'running','','{}','{}')"
                    ledger._db.execute(query, (f"{side}{number}",))
            if number % 3 == 0:
                ledger._db.execute(f"PRAGMA wal_checkpoint({('PASSIVE', 'RESTART', 'TRUNCATE')[number % 9 // 3]})")
            copy = copy_ledger(path, copies)
            with Ledger._reading(copy, path) as read:
                assert len(read.jobs()) == 2 * (number + 1)
            shutil.rmtree(copies)
            copies.mkdir()


def test_a_copy_that_the_log_was_begun_anew_under_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, copies = tmp_path / "ledger.sqlite", tmp_path / "copies"
    copies.mkdir()
    with Ledger.open(path) as ledger:
        ledger.put_job(row("one"))
        copyfile, copied = shutil.copyfile, []

        def copy_and_write(source: Path, target: Path) -> None:
            copyfile(source, target)
            copied.append(source.name)
            if copied == ["ledger.sqlite"]:  # the log that is copied next has nothing of what went before
                ledger._db.execute("PRAGMA wal_checkpoint(RESTART)")
                ledger.put_job(row("two"))

        monkeypatch.setattr(shutil, "copyfile", copy_and_write)
        with Ledger._reading(copy_ledger(path, copies), path) as read:
            assert [job.job for job in read.jobs()] == ["one", "two"]
        assert copied.count("ledger.sqlite") == 2


def test_a_copy_of_what_is_no_ledger_is_an_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(LedgerError, match=r"cannot read the ledger .*No such file"):
        Ledger.read_copy(tmp_path / "missing.sqlite")
    assert not [*tmp_path.iterdir()]


# --- jobs that are not complete, in outputs of plain runs ---


def test_an_output_with_nothing_in_it_is_incomplete_and_tells_why(tmp_path: Path) -> None:
    faults = {"kind": "raise", "marks": str(tmp_path), "always": True}
    incomplete = finished(tmp_path, render={"component": "tests.support.toy:FaultyRenderer", "args": faults})
    (tmp_path / "at").mkdir()

    def told(*args: object) -> tuple[int, str]:
        done = subprocess.run([*NIMBUSCTL, *map(str, args)], capture_output=True, text=True, env=environment())
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    status, text = told("verify", incomplete)
    assert status == 7
    assert text == f"incomplete: {incomplete}: 0 of 2 episodes committed, 2 were set aside\n"
    status, text = told("status", incomplete)
    assert status == 1
    assert "incomplete" in text
    assert "attic" in text
    status, text = told("logs", incomplete, "--episode", "attic/0")
    assert status == 0
    assert "attic/0  quarantined" in text
    status, text = told("logs", incomplete, "--episode", "atic/0")
    assert status == 2
    assert "job toy has no scene 'atic'; the nearest are: toy/attic/0" in text
    status, text = told("logs", incomplete, "--episode", "attic/7")
    assert status == 2
    status, text = told("status", tmp_path / "at")
    assert status == 1
    assert "holds no job" in text


def test_a_job_that_was_killed_is_stopped_and_not_running(output: Path) -> None:
    with Ledger.open(ledger_path(output)) as ledger:
        ledger._db.execute("UPDATE job SET state = 'running'")
    report = job_in_output(output)
    assert report.summary.state == "stopped"
    assert "the same `nimbusctl run` goes on with it" in report.summary.why
