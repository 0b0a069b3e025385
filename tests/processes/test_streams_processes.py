"""Commands with standard streams as shells leave them: closed, full, broken, and terminals that can do little."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimbusd.master.output.report import job_in_output
from tests.support.finished_outputs import NIMBUSCTL, environment, finished, small_job

pytestmark = pytest.mark.processes

CLOSED = [">&-", "<&-", "2>&-", "<&- >&- 2>&-"]
ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished(tmp_path_factory.mktemp("finished"))


def shell(line: str, *args: object, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which "$@" is nimbusctl with `args`."""
    command = ["bash", "-c", line, "bash", *NIMBUSCTL, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**env), timeout=240, cwd=cwd)


def is_complete(output: Path) -> bool:
    return job_in_output(output).summary.state == "complete"


@pytest.mark.parametrize("closed", CLOSED[-1:])
def test_a_run_with_closed_streams_makes_all_its_episodes(tmp_path: Path, closed: str) -> None:
    done = shell(f'"$@" {closed}', "run", small_job(tmp_path), "--workers", "1", "--spares", "0")
    assert done.returncode == 0, done.stderr
    assert is_complete(tmp_path / "out")
    assert "Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("line", "why"),
    [('"$@" > /dev/full', "No space left on device"), ('"$@" | true; exit ${PIPESTATUS[0]}', "Broken pipe")],
)
def test_a_run_whose_progress_cannot_be_shown_goes_on_and_ends_as_it_does(tmp_path: Path, line: str, why: str) -> None:
    done = shell(line, "run", small_job(tmp_path), "--workers", "1", "--spares", "0")
    assert done.returncode == 0
    assert is_complete(tmp_path / "out")
    told = f"warning: the progress is not shown any more, the run goes on: cannot write to standard output: {why}\n"
    assert done.stderr == told


def test_a_command_with_closed_streams_ends_as_it_does(output: Path) -> None:
    done = shell("; ".join(f'"$@" {closed}; [ $? = 0 ] || echo {closed!r} >&2' for closed in CLOSED), "status", output)
    assert done.stderr == ""


COMMANDS: list[tuple[object, ...]] = [
    ("--help",),
    ("check", "job.yaml"),
    ("verify", "out"),
    ("show", "out", "--episodes", "0"),
]


@pytest.mark.parametrize("args", COMMANDS, ids=lambda args: "-".join(args))
def test_a_command_ends_quietly_when_its_reader_goes_and_tells_when_its_disk_is_full(
    output: Path, args: tuple[object, ...]
) -> None:
    lines = "\n".join(
        [
            'exec 3> >(true); wait $!; "$@" >&3; echo $? >&2',
            '"$@" > /dev/full; echo $? >&2',
        ]
    )
    done = shell(lines, *args, cwd=output.parent)
    full = "error: cannot write to standard output: No space left on device"
    assert done.stderr.splitlines() == ["141", full, "1"]


def test_head_has_what_it_wanted(output: Path) -> None:
    done = shell('"$@" | head -1', "status", output)
    assert done.stdout.startswith("job")
    assert done.stderr == ""


def test_what_is_not_for_a_terminal_is_neither_wrapped_nor_cut_nor_coloured(output: Path) -> None:
    for columns in ("20", "²"):
        done = shell('"$@"', "status", output, COLUMNS=columns)
        assert str(output) in done.stdout, columns
        assert ESCAPE not in done.stdout
        assert "Traceback" not in done.stderr


def in_a_terminal(*args: object, **env: str) -> tuple[int, str]:
    """Exit status of nimbusctl and what it wrote to a terminal."""
    ours, theirs = pty.openpty()
    told: list[bytes] = []

    def read() -> Iterator[bytes]:
        while True:
            try:
                yield os.read(ours, 65536)
            except OSError:  # they have closed it
                return

    reader = threading.Thread(target=lambda: told.extend(read()))
    process = subprocess.Popen(
        [*NIMBUSCTL, *map(str, args)], stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**env)
    )
    os.close(theirs)
    reader.start()
    status = process.wait(timeout=240)
    reader.join(timeout=60)
    os.close(ours)
    return status, b"".join(told).decode()


def test_a_terminal_that_understands_no_escapes_gets_plain_lines(tmp_path: Path) -> None:
    status, told = in_a_terminal("run", small_job(tmp_path), "--workers", "1", "--spares", "0", TERM="dumb")
    assert status == 0
    assert ESCAPE not in told
    assert re.search(r"\[2/2\] \w+/0: 10 frames", told), told
    assert "toy complete: 2 of 2 episodes" in told


def test_a_terminal_of_an_odd_size_is_taken_as_it_is(output: Path) -> None:
    status, told = in_a_terminal("status", output, TERM="xterm", COLUMNS="0", LINES="x")
    assert status == 0
    assert "Traceback" not in told
    assert "2 of 2" in told


def test_a_command_that_nobody_knows_is_told_with_the_nearest(output: Path) -> None:
    done = shell('"$@"', "statsu", output)
    assert done.returncode == 2
    assert "There is no command 'statsu'. Did you mean status?" in done.stderr
    done = shell('"$@"', "token", "creaet")
    assert "There is no command 'creaet'. Did you mean create?" in done.stderr


def test_the_shell_completes_commands(output: Path) -> None:
    done = shell('"$@"', _NIMBUSCTL_COMPLETE="bash_complete", COMP_WORDS="nimbusctl sta", COMP_CWORD="1")
    assert done.stdout == "plain,status\n"


def test_help_keeps_the_lines_that_belong_apart() -> None:
    told = shell('"$@"', "simulate", "--help").stdout
    assert "\\b" not in told
    assert "\n    nimbusctl simulate --scenes 2560" in told
