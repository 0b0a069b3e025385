"""The end of commands: an expected error is one sentence with the right status, others have a traceback."""

from __future__ import annotations

import errno
import sys

import click
import pytest

from nimbusd.config import ConfigError
from nimbusd.program import Commands, ended
from nimbusd.program.streams import StreamLost
from nimbusd.stages.errors import StoreError

NO_ROOM = OSError(errno.ENOSPC, "No space left on device", "/data/out/piece")
LOCKED = PermissionError(errno.EACCES, "Permission denied", "/data/out")
STORE = StoreError("the dataset cannot be written")


def program(error: BaseException) -> Commands:
    """With one command, `fail`, that raises an error."""
    commands = Commands("program")

    @commands.command()
    def fail() -> None:
        raise error

    return commands


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (STORE, 1, "error: the dataset cannot be written\n"),
        (ConfigError("`state` is no folder"), 2, "error: `state` is no folder\n"),
        (NO_ROOM, 1, "error: /data/out/piece: No space left on device. Make room on its disk.\n"),
        (LOCKED, 1, "error: /data/out: Permission denied. Have its owner permit it, or name another.\n"),
        (
            ExceptionGroup("tasks", [LOCKED, ExceptionGroup("more", [STORE, LOCKED])]),
            1,
            "error: /data/out: Permission denied. Have its owner permit it, or name another.\n"
            "error: the dataset cannot be written\n",
        ),
        (ExceptionGroup("tasks", [ConfigError("no slot")]), 2, "error: no slot\n"),
        (KeyboardInterrupt(), 130, "\n"),
        (BaseExceptionGroup("tasks", [STORE, KeyboardInterrupt()]), 130, ""),
        (click.ClickException("no camera"), 1, "Error: no camera\n"),
        (StreamLost(OSError(errno.ENOSPC, "full")), 1, "error: cannot write to standard output: full\n"),
        (StreamLost(BrokenPipeError(errno.EPIPE, "broken")), 141, ""),
        (SystemExit(5), 5, ""),
        (SystemExit("what is wrong"), 1, "what is wrong\n"),
    ],
)
def test_what_can_be_told_is_a_sentence_with_its_status(
    error: BaseException, status: int, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nimbusd.program.command_line.discard_output", lambda: None)
    assert ended(program(error), "program", ["fail"]) == status
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), ExceptionGroup("tasks", [STORE, KeyError()])])
def test_what_nobody_foresaw_has_a_traceback_and_asks_for_a_report(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(program(error), "program", ["fail"]) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "did not foresee this. Please report it" in told.splitlines()[-1]


@pytest.mark.parametrize(("word", "hint"), [("fial", " Did you mean fail?"), ("zzz", "")])
def test_a_misspelt_command_is_told_the_nearest(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(program(STORE), "program", [word]) == 2
    assert f"There is no command '{word}'.{hint}\n" in capsys.readouterr().err


def test_a_command_that_says_nothing_ends_well() -> None:
    commands = Commands("program")
    commands.command("rest")(lambda: sys.stdout.write(""))
    assert ended(commands, "program", ["rest"]) == 0
