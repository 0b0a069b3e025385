"""Settings that cannot be used end the daemons with status 2, which systemd does not try again, and one sentence."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nimbusd.config import ConfigError, WorkerConfig, read_config
from nimbusd.daemon import cli
from nimbusd.node.networked import NetworkedNode
from nimbusd.program import ended
from nimbusd.program.private_state import keep_private
from nimbusd.transport.security.keys import generate, write_pair

LOCAL = "tcp://127.0.0.1:1"


@pytest.mark.parametrize(
    ("role", "text", "told"),
    [
        ("master", "[master", "is not TOML"),
        ("master", "[master]\nbnid = []", "unknown key 'bnid'; did you mean 'bind'?"),
        ("master", "[mastr]", "unknown section [mastr]; did you mean 'master'?"),
        ("worker", "wrkers = 3", "key 'wrkers' stands in no section: write it below [master] or [worker]"),
        (
            "master",
            '[master]\nheartbeat_s = "x"',
            "[master]: heartbeat_s: must be a number, but it is 'x'",
        ),
        ("master", "[master]\nheartbeat_s = inf", "heartbeat_s: must be a finite number"),
        ("master", "[master]\nheartbeat_s = -1", "heartbeat_s: must be greater than 0, but it is -1"),
        ("master", "[master]\nbind = 3", "bind: must be a list, but it is 3"),
        ("master", "[master]\nadvertise = 3", "advertise: must be text"),
        ("master", '[master]\ngroup = ""', "group: must not be empty"),
        ("worker", "[worker]\nworkers = true", "workers: must be a whole number, but it is true"),
        ("worker", "[worker]\nworkers = 300", "workers: must be 256 or less, but it is 300"),
        ("worker", '[worker]\ngpus = ["x"]', "gpus.0: must be a whole number, but it is 'x'"),
        ("master", "master = 3", "master is not a section: write [master] on a line of its own"),
        ("master", '[master]\nbind = ["nonsense"]', "address 'nonsense' is not of the form"),
        ("worker", '[worker]\nname = "a b\\u001b[31m"', r"'a b\x1b[31m' is not 1 to 63 letters"),
        (
            "worker",
            f'[worker]\nmaster = "{LOCAL}"\nallow_any_local_user = true\ntemporary = "/missing"',
            "`temporary` is /missing, no folder",
        ),
        (
            "worker",
            f'[worker]\nmaster = "{LOCAL}"\nallow_any_local_user = true\ngpus = [99]',
            "`gpus` names GPU 99",
        ),
    ],
)
def test_a_settings_file_that_cannot_be_used_ends_the_daemon_for_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], role: str, text: str, told: str
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    status = ended(cli, "nimbusd", [role, "--config", str(path), "--state", str(tmp_path / "state")])
    said = capsys.readouterr().err
    assert status == 2, said
    assert told in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("master", "--config", "/missing.toml"), "cannot read /missing.toml: No such file"),
        (("worker", "--join", "no-token"), "that is no join token"),
        (("mastr",), "There is no command 'mastr'. Did you mean master?"),
    ],
)
def test_options_that_cannot_be_used_end_the_daemon_for_good(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], told: str
) -> None:
    assert ended(cli, "nimbusd", [*args, "--state", str(tmp_path)]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.processes
def test_the_daemon_itself_ends_with_that_status() -> None:
    command = [sys.executable, "-m", "nimbusd", "master", "--config", "/missing.toml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: cannot read /missing.toml: No such file or directory\n"


def test_a_state_folder_that_cannot_be_one_is_a_setting(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ConfigError, match=f"cannot use the state folder {folder}: .*Name another"):
            keep_private(folder)


def test_a_full_disk_is_no_mistake_in_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, **_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        keep_private(tmp_path / "state")


def joined(state: Path, name: str) -> Path:
    """The state folder of a node that has joined a master under this name."""
    write_pair(generate(), state, "node")
    note = {"address": "tcp://192.0.2.1:7600", "master_key": generate().public, "node": name}
    (state / "joined.json").write_text(json.dumps(note))
    return state


async def test_a_node_whose_machine_got_another_name_is_who_it_joined_as(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    config = read_config(WorkerConfig, None, "worker", state=joined(tmp_path, "gpu-7"))
    assert config.name != "gpu-7"
    with caplog.at_level("INFO"):
        server = NetworkedNode(config)
    server.kill()
    server._link.close()
    assert "node gpu-7 works for the master at tcp://192.0.2.1:7600" in caplog.text
    assert "cores: 1 by affinity" in caplog.text


async def test_a_node_that_is_given_another_name_than_it_joined_by_is_told_so(tmp_path: Path) -> None:
    config = read_config(WorkerConfig, None, "worker", state=joined(tmp_path, "gpu-7"), name="gpu-8")
    with pytest.raises(ConfigError, match="joined its master as 'gpu-7', not as 'gpu-8'"):
        NetworkedNode(config)


async def test_a_node_of_a_local_master_has_the_name_that_it_is_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"state": tmp_path, "name": "gpu-8", "master": LOCAL, "allow_any_local_user": True}
    with caplog.at_level("INFO"):
        server = NetworkedNode(read_config(WorkerConfig, None, "worker", **settings))
    server.kill()
    server._link.close()
    assert f"node gpu-8 works for the master at {LOCAL}" in caplog.text
