"""State folders are closed to others, and nobody else may write where a daemon imports from."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nimbusd.chaos.processes import Daemon
from nimbusd.config import ConfigError
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.program.import_folders import check_import_folders
from nimbusd.program.private_state import keep_private
from nimbusd.stages.store.durable import write_file
from tests.support.cluster import Cluster


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.iterdir()]}


@contextlib.contextmanager
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


@pytest.mark.processes
def test_whatever_the_umask_others_see_nothing_of_a_masters_and_a_nodes_state(tmp_path: Path) -> None:
    with open_umask(), Cluster(tmp_path, bind="tcp://127.0.0.1:*") as cluster:
        keys = {"master_key": str(cluster.state / "master.pub"), "key": str(cluster.state / "admin.key")}
        node = cluster.join_node("w1", cluster.client(**keys).token().token)
        cluster.master.wait_for("node w1 joined")
        states = {**modes(cluster.state), **modes(tmp_path / "w1")}
        node.signal(signal.SIGTERM)
        node.wait()
    assert {"ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "master.key", "joined.json"} <= states.keys()
    assert {name: mode for name, mode in states.items() if mode & 0o077 and not name.endswith(".pub")} == {}


def test_a_state_folder_of_before_is_closed_and_that_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = tmp_path / "master"
    state.mkdir()
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "admin.key"):
        (state / name).write_text("")
        (state / name).chmod(0o664)
    state.chmod(0o755)
    with caplog.at_level(logging.WARNING):
        keep_private(state)
    assert modes(state) == {"master": 0o700, "ledger.sqlite": 0o600, "ledger.sqlite-wal": 0o600, "admin.key": 0o600}
    assert f"{state} had mode 0755: it is closed to other users now" in caplog.text
    assert "ledger.sqlite had mode 0664" in caplog.text
    caplog.clear()
    keep_private(state)
    assert caplog.text == ""


def test_a_folder_with_other_things_in_it_is_not_closed_and_refused_if_others_may_write_to_it(tmp_path: Path) -> None:
    (tmp_path / "of another program").write_text("")
    tmp_path.chmod(0o755)
    keep_private(tmp_path / ".")
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    tmp_path.chmod(0o1777)
    with pytest.raises(ConfigError, match=r"has mode 1777, so that others could replace the ledger.*--state"):
        keep_private(tmp_path)


def test_the_folders_above_are_made_so_that_others_cannot_write_to_them(tmp_path: Path) -> None:
    with open_umask():
        keep_private(tmp_path / "share" / "nimbusd" / "master")
    assert modes(tmp_path / "share")["share"] == modes(tmp_path / "share")["nimbusd"] == 0o755


def test_a_folder_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot use the state folder .*file/state: Not a directory"):
        keep_private(tmp_path / "file" / "state")


@pytest.mark.processes
def test_a_token_may_come_by_standard_input_where_no_other_user_sees_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "nimbusd", "worker", "--state", str(tmp_path / "node"), "--join", "-"]
    done = subprocess.run(command, input="nimbus1.none\n", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "token" in done.stderr


def test_the_ledger_in_an_output_folder_is_as_open_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with Ledger.open(tmp_path / "ledger.sqlite"):
            found = modes(tmp_path)
    finally:
        os.umask(before)
    assert found["ledger.sqlite"] == found["ledger.sqlite-wal"] == 0o644


def test_files_of_a_piece_are_as_open_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        write_file(tmp_path / "frame.png", b"")
    finally:
        os.umask(before)
    assert modes(tmp_path)["frame.png"] == 0o664


# --- what is imported ---


def test_our_own_import_folders_are_closed_to_others() -> None:
    check_import_folders(())


def test_an_import_folder_that_others_may_write_to_is_refused_unless_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    components = tmp_path / "components"
    components.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(components), str(tmp_path / "not there")])
    check_import_folders(())
    components.chmod(0o777)
    says = rf"imported from {components}, .*belongs to \w+ and has mode 0777.*trusted_import_folders = \[\"{components}"
    with pytest.raises(ConfigError, match=says):
        check_import_folders(())
    check_import_folders((components,))
    check_import_folders((tmp_path,))


@pytest.mark.processes
@pytest.mark.parametrize("role", ["master", "worker"])
def test_a_daemon_does_not_start_where_others_may_change_what_it_imports(tmp_path: Path, role: str) -> None:
    components = tmp_path / "components"
    components.mkdir()
    components.chmod(0o777)
    argv = [sys.executable, "-m", "nimbusd", role, "--state", str(tmp_path / "state")]
    daemon = Daemon(argv, tmp_path / "log", {"PYTHONPATH": str(components)})
    assert daemon.wait() == 2
    assert daemon.said(f"modules are imported from {components} (of PYTHONPATH), and others than this user may change")
    assert not (tmp_path / "state").exists()
