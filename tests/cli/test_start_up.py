"""`nimbusctl --help`, shell completion and `status` load nothing heavy. By name: the benchmark `start_up` has times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"av", "numpy", "pyarrow", "pydantic"}
NO_MASTER = "ipc:///nonexistent/socket"
PROGRAM = """
import atexit, json, os, pathlib, sys
atexit.register(lambda: pathlib.Path(os.environ["MODULES"]).write_text(json.dumps(list(sys.modules))))
from nimbusd.cli import main
main()
"""


class Ended:
    """A `nimbusctl` that has ended. heavy: the heavy modules that it had loaded."""

    def __init__(self, folder: Path, *args: str, **environment: str) -> None:
        modules = folder / "modules.json"
        self.done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *args],
            capture_output=True,
            text=True,
            timeout=60,
            env=os.environ | environment | {"MODULES": str(modules)},
        )
        loaded: list[str] = json.loads(modules.read_text())
        assert "nimbusd.cli" in loaded
        self.heavy = HEAVY.intersection(loaded)


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "--help")
    assert "Jobs of a cluster:" in ended.done.stdout
    assert not ended.heavy


@pytest.mark.parametrize("more", [(), ("a_job",), ("--json",)])
def test_status_loads_nothing_heavy(tmp_path: Path, more: tuple[str, ...]) -> None:
    ended = Ended(tmp_path, "status", "--master", NO_MASTER, *more)
    assert "there is no such socket" in ended.done.stderr
    assert ended.done.returncode == 3
    assert not ended.heavy


@pytest.mark.parametrize("command", ["submit", "top", "watch", "logs", "nodes", "token", "keygen"])
def test_commands_of_a_cluster_load_nothing_heavy(tmp_path: Path, command: str) -> None:
    ended = Ended(tmp_path, command, "--help")
    assert f"Usage: nimbusctl {command}" in ended.done.stdout
    assert not ended.heavy


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("", ["status"]),
        ("sta", ["status"]),
        ("--ver", ["--version"]),
        ("status --op", ["--open"]),
        ("status ", []),  # the jobs of a master that is not there
    ],
)
def test_completion_loads_nothing_heavy(tmp_path: Path, words: str, offered: list[str]) -> None:
    ended = Ended(
        tmp_path,
        _NIMBUSCTL_COMPLETE="bash_complete",
        COMP_WORDS=f"nimbusctl {words}",
        COMP_CWORD=str(words.count(" ") + 1),
        NIMBUS_MASTER=NO_MASTER,
    )
    assert ended.done.returncode == 0, ended.done.stderr
    names = [line.partition(",")[2] for line in ended.done.stdout.split()]
    assert set(offered) <= set(names) if words == "" else names == offered
    assert not ended.heavy
