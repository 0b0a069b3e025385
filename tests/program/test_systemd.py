"""The files in systemd/: systemd takes them, they fit the programs and each other, and the recipe installs them all."""

from __future__ import annotations

import configparser
import errno
import os
import re
import shlex
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from nimbusd.config import MasterConfig, WorkerConfig, read_config
from nimbusd.daemon import cli
from nimbusd.job.model import Limits
from nimbusd.program.systemd import why_hidden
from tests.support.cluster import REPOSITORY

SYSTEMD = REPOSITORY / "systemd"
ROLES = ("master", "worker")
MOST_EXPOSED = 2.5
"""Of 10, as `systemd-analyze security` counts. The units are below it; what loosens them must be meant."""

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


class Unit:
    """A unit file: the values of each setting, in order."""

    def __init__(self, path: Path) -> None:
        self._values: dict[str, list[str]] = {}
        for line in path.read_text().splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> str:
        (value,) = self._values[name]
        return value

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def words(self) -> str:
        return " ".join(value for values in self._values.values() for value in values)


def unit(role: str) -> Unit:
    return Unit(SYSTEMD / f"nimbusd-{role}.service")


def seconds(span: str) -> int:
    number, factor = re.fullmatch(r"(\d+)(min)?", span).groups()  # type: ignore[union-attr]
    return int(number) * (60 if factor else 1)


def lines(name: str) -> list[list[str]]:
    """The entries of a sysusers or tmpfiles file."""
    text = (SYSTEMD / name).read_text()
    return [shlex.split(line) for line in text.splitlines() if line and not line.startswith("#")]


def installed_as(name: str) -> str:
    """The place that a file names as its own."""
    found = re.search(r"Install as (/[\w./-]+)", (SYSTEMD / name).read_text())
    assert found is not None, f"{name} does not say where it belongs"
    return found[1]


def help_of(role: str) -> str:
    return CliRunner().invoke(cli, [role, "--help"]).output


# --- systemd takes them ---


@pytest.fixture
def unit_here(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A unit whose program exists."""
    program = tmp_path / "nimbusd"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    source = SYSTEMD / f"nimbusd-{request.param}.service"
    path = tmp_path / source.name
    path.write_text(source.read_text().replace("/opt/nimbusd/bin/nimbusd", str(program)))
    return path


def analyze(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", "--no-pager", *args], capture_output=True, text=True, timeout=60)


@needs_systemd
@pytest.mark.parametrize("unit_here", ROLES, indirect=True)
def test_systemd_finds_nothing_wrong_with_a_unit(unit_here: Path) -> None:
    done = analyze("verify", "--man=no", str(unit_here))
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit_here", ROLES, indirect=True)
def test_a_unit_is_little_exposed(unit_here: Path) -> None:
    done = analyze("security", "--offline=true", str(unit_here))
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) < MOST_EXPOSED, done.stdout


@needs_systemd
@pytest.mark.skipif(os.geteuid() != 0, reason="users are made by root only")
def test_systemd_makes_the_user_and_the_folders(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    for tool, name in (("systemd-sysusers", "nimbusd.sysusers"), ("systemd-tmpfiles", "nimbusd.tmpfiles")):
        options = ["--create"] if tool == "systemd-tmpfiles" else []
        done = subprocess.run([tool, *options, f"--root={tmp_path}", SYSTEMD / name], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    users = (tmp_path / "etc/passwd").read_text()
    assert all(f"{unit(role)['User']}:" in users for role in ROLES)
    assert re.search(r"^nimbusd-admin:.*:nimbusd-master$", (tmp_path / "etc/group").read_text(), re.MULTILINE)
    assert stat.S_IMODE((tmp_path / "srv/nimbusd").stat().st_mode) == 0o2775


# --- they fit the programs ---


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_starts_its_daemon_with_options_that_it_has(role: str) -> None:
    program, command, *options = shlex.split(unit(role)["ExecStart"])
    assert (program, command) == ("/opt/nimbusd/bin/nimbusd", role)
    for option in options:
        assert not option.startswith("-") or option in help_of(role)


@pytest.mark.parametrize("role", ROLES)
def test_a_unit_names_the_files_that_are_installed(role: str) -> None:
    assert installed_as(f"{role}.toml") in shlex.split(unit(role)["ExecStart"])
    assert unit(role)["EnvironmentFile"] == "-" + installed_as("nimbusd.env")


@pytest.mark.parametrize(("model", "role"), [(MasterConfig, "master"), (WorkerConfig, "worker")])
def test_example_settings_are_valid_and_so_are_those_that_are_commented_out(
    model: type[Any], role: str, tmp_path: Path
) -> None:
    example = (SYSTEMD / f"{role}.toml").read_text()
    read_config(model, SYSTEMD / f"{role}.toml", role)
    everything = tmp_path / "everything.toml"
    everything.write_text(re.sub(r"^# (?=\w+ = )", "", example, flags=re.MULTILINE))
    assert everything.read_text() != example
    read_config(model, everything, role)


def test_the_environment_file_names_the_variable_of_the_join_token() -> None:
    names = re.findall(r"^# (\w+)=", (SYSTEMD / "nimbusd.env").read_text(), re.MULTILINE)
    assert "NIMBUSD_JOIN" in names
    assert "NIMBUSD_JOIN" in help_of("worker")


@pytest.mark.parametrize("role", ROLES)
def test_the_manager_hears_the_daemon_alone_and_signals_the_daemon_alone(role: str) -> None:
    assert (unit(role)["Type"], unit(role)["NotifyAccess"], unit(role)["KillMode"]) == ("notify", "main", "mixed")


@pytest.mark.parametrize("role", ROLES)
def test_a_daemon_is_started_again_unless_it_was_asked_to_end_or_its_settings_are_wrong(role: str) -> None:
    assert (unit(role)["Restart"], unit(role)["StartLimitIntervalSec"]) == ("on-failure", "0")
    program = CliRunner().invoke(cli, [role, "--no-such-option"])
    assert str(program.exit_code) == unit(role)["RestartPreventExitStatus"]


def test_a_node_has_longer_to_stop_than_a_silent_episode_has_to_live() -> None:
    assert seconds(unit("worker")["TimeoutStopSec"]) > 2 * Limits().beat_timeout_s


def test_the_state_folder_is_the_one_that_the_daemon_would_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    for role, model in (("master", MasterConfig), ("worker", WorkerConfig)):
        monkeypatch.setenv("STATE_DIRECTORY", f"/var/lib/{unit(role)['StateDirectory']}")
        assert model().state == Path("/var/lib/nimbusd") / role
        assert unit(role)["StateDirectoryMode"] == "0700", "there are keys in it"


def test_gpus_are_allowed_to_the_worker_alone() -> None:
    assert unit("worker").all("DeviceAllow") == ["char-nvidia* rw", "char-drm rw"]
    assert unit("worker")["PrivateDevices"] == "no"
    assert unit("master")["PrivateDevices"] == "yes"


def test_the_masters_local_socket_lies_in_its_runtime_folder() -> None:
    config = read_config(MasterConfig, SYSTEMD / "master.toml", "master")
    (local,) = [address for address in config.bind if address.startswith("ipc://")]
    assert local.startswith(f"ipc:///run/{unit('master')['RuntimeDirectory']}/")


# --- they fit each other, and the recipe ---


def test_master_and_worker_are_users_of_their_own_who_share_a_group_that_is_made() -> None:
    made = {line[1]: line[4] for line in lines("nimbusd.sysusers") if line[0] == "u"}
    users = {role: unit(role)["User"] for role in ROLES}
    assert made.keys() == set(users.values())
    assert users["master"] != users["worker"]
    assert made[users["worker"]] == f"/var/cache/{unit('worker')['CacheDirectory']}"
    groups = {line[1] for line in lines("nimbusd.sysusers") if line[0] == "g"}
    (shared,) = {unit(role)["Group"] for role in ROLES}
    assert shared in groups
    assert {unit(role)["UMask"] for role in ROLES} == {"0002"}, "each must be able to remove what the other made"
    for _, user, group in (line for line in lines("nimbusd.sysusers") if line[0] == "m"):
        assert user in made
        assert group in groups | {"video", "render"}


def test_operators_may_use_the_masters_socket_and_workers_may_not() -> None:
    config = read_config(MasterConfig, SYSTEMD / "master.toml", "master")
    members = {(line[1], line[2]) for line in lines("nimbusd.sysusers") if line[0] == "m"}
    assert (unit("master")["User"], config.group) in members, "the master can give its socket to the group"
    assert (unit("worker")["User"], config.group) not in members
    assert config.group != unit("worker")["Group"]
    assert not config.allow_any_local_user


def test_the_master_may_give_its_socket_to_a_group() -> None:
    filters = unit("master").all("SystemCallFilter")
    assert filters.index("@chown") > filters.index("~@privileged"), "which @chown is a part of; the later one counts"


def test_neither_daemon_sees_the_others_state() -> None:
    for role, other in (ROLES, reversed(ROLES)):
        hidden = unit(role)["InaccessiblePaths"].split()
        assert f"-/var/lib/{unit(other)['StateDirectory']}" in hidden
        assert f"-/run/{unit(other)['RuntimeDirectory']}" in hidden


def test_every_folder_that_is_made_is_used_by_the_units_and_belongs_to_root() -> None:
    used = " ".join(unit(role).words() for role in ROLES)
    for _, path, _, owner, group, _ in lines("nimbusd.tmpfiles"):
        assert re.search(rf"[ =-]{path}\b", used), f"no unit uses {path}"
        assert owner == "root"
        assert group in ("root", unit("worker")["Group"])


def test_a_service_says_why_it_cannot_go_to_a_home_folder() -> None:
    denied, read_only = PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EROFS, "Read-only")
    service = {"STATE_DIRECTORY": "/var/lib/nimbusd/master"}
    assert "ProtectHome=" in why_hidden(Path("/home/ada/out"), denied, service)
    assert "ReadWritePaths=" in why_hidden(Path("/data/out"), read_only, service)
    assert why_hidden(Path("/data/out"), denied, service) == ""
    assert why_hidden(Path("/home/ada/out"), denied, {}) == ""


def test_the_drop_in_has_what_older_systemds_do_not_know() -> None:
    drop_in = configparser.ConfigParser()
    drop_in.optionxform = str  # type: ignore[assignment,method-assign]
    drop_in.read(SYSTEMD / "restart-backoff.conf")
    assert set(drop_in["Service"]) == {"RestartSteps", "RestartMaxDelaySec"}
    assert not any(unit(role).all(name) for role in ROLES for name in drop_in["Service"])


def test_the_recipe_installs_every_file() -> None:
    recipe = (REPOSITORY / "docs/operating.md").read_text()
    for path in SYSTEMD.iterdir():
        assert f"systemd/{path.name}" in recipe, f"{path.name} is not in docs/operating.md"
        if path.suffix != ".service":
            assert installed_as(path.name) in recipe
