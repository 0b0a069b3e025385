"""Files that compute workers leave in TMPDIR go with them, however they end, and with the node."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from nimbusd.config import ConfigError
from nimbusd.node.folders import FolderPlaces
from tests.processes.test_run_processes import run, start, write_job
from tests.support.cluster import come_to_their_end
from tests.support.toy_jobs import TOYS

pytestmark = pytest.mark.processes


def noting_job(folder: Path, *, kill: bool = False) -> Path:
    (folder / "notes").mkdir()
    notes = {"notes": str(folder / "notes"), "kill": kill}
    pipeline = {
        "plan": TOYS["plan"],
        "render": {"component": "tests.support.machine_components:TemporaryFilesRenderer", "args": notes},
    }
    return write_job(folder, pipeline=pipeline, limits={"beat_timeout_s": 20.0})


def noted(folder: Path) -> set[Path]:
    """The files that compute workers left, one each."""
    notes = [note.read_text() for note in (folder / "notes").iterdir()]
    return {Path(note) for note in notes if note}  # one that was killed as it noted has not noted


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the node's plans and temporary files."""
    folder = tmp_path_factory.mktemp("c")
    monkeypatch.setenv("CACHE_DIRECTORY", str(folder))
    return folder


def test_temporary_files_of_workers_that_ended_and_that_were_killed_are_gone(tmp_path: Path, cache: Path) -> None:
    status, events = run(noting_job(tmp_path, kill=True), "--workers", "1", "--spares", "0")
    assert status == 0, events
    left = noted(tmp_path)
    assert len(left) == 2, "one worker was killed, another took its place"
    assert len({file.parent for file in left}) == 2, "each had a folder of its own"
    assert all(file.is_relative_to(cache) for file in left)
    assert not [*cache.iterdir()]


def test_what_workers_of_a_killed_node_left_goes_with_the_next_node(tmp_path: Path, cache: Path) -> None:
    process = start(noting_job(tmp_path), "--workers", "1", "--spares", "0")
    assert process.stdout is not None
    while "episode_committed" not in process.stdout.readline():
        pass
    workers = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    come_to_their_end(workers)  # what they write while they die, nobody sweeps yet
    assert any(file.exists() for file in noted(tmp_path))
    with FolderPlaces.choose().folders():
        assert not any(file.exists() for file in noted(tmp_path))


def test_the_setting_says_where_temporary_files_go(tmp_path: Path, cache: Path) -> None:
    (chosen := tmp_path / "chosen").mkdir()
    with FolderPlaces.choose(chosen).folders() as folders:
        assert folders.temporary.parent == chosen
        assert folders.disk.parent == cache
    with pytest.raises(ConfigError, match=r"`temporary` is .*missing, no folder that can be written to"):
        FolderPlaces.choose(tmp_path / "missing")


def test_temporary_files_lie_where_sockets_among_them_can_have_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / ("long" * 10)))
    (tmp_path / ("long" * 10)).mkdir()
    with FolderPlaces.choose().folders() as folders:
        longest = folders.temporary / "12345" / "pymp-12345678" / "listener-12345678"
        assert len(os.fsencode(longest)) <= 107
