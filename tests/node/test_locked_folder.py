"""A folder is its owner's as long as that lives, whoever sweeps, and from whichever namespace."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nimbusd.locked_folder import LockedFolder, sweep
from nimbusd.node.folders import FolderPlaces

PREFIX = "held-"
OWNER = """
import sys
from pathlib import Path
from nimbusd.locked_folder import LockedFolder
print(LockedFolder(Path(sys.argv[1]), "held-").path, flush=True)
sys.stdin.read()
"""
RENDERER = """
import sys
from pathlib import Path
from nimbusd.renderers.scratch import Scratch
print(Scratch(Path(sys.argv[1])).path, flush=True)
sys.stdin.read()
"""
NODE = """
import sys
from nimbusd.node.folders import FolderPlaces
with FolderPlaces.choose().folders() as folders:
    print(folders.sockets, folders.memory, folders.disk, folders.temporary, flush=True)
    sys.stdin.read()
"""


def owner(code: str, *args: str, own_pids: bool = False) -> subprocess.Popen[str]:
    """A process that holds a folder until its input ends."""
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"] if own_pids else []
    argv = [*apart, sys.executable, "-c", code, *args]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.fixture(scope="module")
def namespaces() -> None:
    """Skips where processes cannot be given namespaces of their own."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no `unshare` here")
    tried = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "true"], capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"namespaces are refused here: {tried.stderr.strip()}")


def test_a_closed_folder_is_gone_with_all_that_is_in_it_and_may_be_closed_twice(tmp_path: Path) -> None:
    folder = LockedFolder(tmp_path, PREFIX)
    (folder.path / "deep").mkdir()
    folder.close()
    folder.close()
    assert not [*tmp_path.iterdir()]


def test_a_sweep_takes_what_a_killed_owner_left_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "held-unlike-ours").mkdir()
    (tmp_path / "held-file1234").touch()
    (tmp_path / "held-link1234").symlink_to(tmp_path / "held-unlike-ours")
    ours = LockedFolder(tmp_path, PREFIX)
    with owner(OWNER, str(tmp_path)) as killed:
        left = Path(line(killed))
        assert sweep(tmp_path, PREFIX) == []
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert left.is_dir()
        assert sweep(tmp_path, PREFIX) == [left]
    assert not left.exists()
    assert ours.path.is_dir()
    assert len([*tmp_path.iterdir()]) == 4
    ours.close()


def test_a_child_process_does_not_keep_the_folder_of_its_dead_parent(tmp_path: Path) -> None:
    code = OWNER.replace("print(", "import subprocess; subprocess.Popen(['sleep', '60']); print(")
    with owner(code, str(tmp_path)) as killed:
        left = Path(line(killed))
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert sweep(tmp_path, PREFIX) == [left]


def test_an_owner_whose_new_folder_is_swept_before_it_is_locked_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweeper holds the lock, the owner waits for it, and finds its folder gone."""
    lock = fcntl.flock
    swept: list[Path] = []

    def sweep_first(descriptor: int, how: int) -> None:
        if how == fcntl.LOCK_SH and not swept:
            swept.extend(sweep(tmp_path, PREFIX))
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    folder = LockedFolder(tmp_path, PREFIX)
    assert len(swept) == 1
    assert folder.path.is_dir()
    assert folder.path != swept[0]
    folder.close()


def test_many_owners_and_sweepers_at_once_lose_no_folder(tmp_path: Path) -> None:
    over = threading.Event()

    def sweep_on() -> None:
        while not over.is_set():
            sweep(tmp_path, PREFIX)

    sweepers = [threading.Thread(target=sweep_on) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for _ in range(200):
            folder = LockedFolder(tmp_path, PREFIX)
            (folder.path / "file").touch()
            folder.close()
    finally:
        over.set()
        for sweeper in sweepers:
            sweeper.join()


@pytest.mark.processes
def test_a_node_in_another_pid_namespace_leaves_the_folders_of_a_living_node(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, namespaces: None
) -> None:
    runtime = tmp_path_factory.mktemp("node")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(runtime))
    monkeypatch.setenv("CACHE_DIRECTORY", str(runtime))
    # In a namespace of its own the first has pid 1, the second as well: neither sees the other's.
    with owner(NODE, own_pids=True) as first, owner(NODE, own_pids=True) as second:
        held = [[Path(word) for word in line(process).split()] for process in (first, second)]
        with FolderPlaces.choose().folders():
            assert all(folder.is_dir() for folders in held for folder in folders)
            assert len([*runtime.iterdir()]) == 12, [*runtime.iterdir()]
        for process in (first, second):
            process.communicate(timeout=60)
    assert not [*runtime.iterdir()]


@pytest.mark.processes
def test_a_renderer_in_another_pid_namespace_leaves_the_scratch_folder_of_a_living_one(
    tmp_path: Path, namespaces: None
) -> None:
    with owner(RENDERER, str(tmp_path)) as living:
        folder = Path(line(living))
        with owner(RENDERER, str(tmp_path), own_pids=True) as other:
            beside = Path(line(other))
            assert {*tmp_path.iterdir()} == {folder, beside}
            other.communicate(timeout=60)
        assert [*tmp_path.iterdir()] == [folder]
        living.communicate(timeout=60)
