"""A renderer's temporary folder never outlives its owner for long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nimbusd.renderers.scratch import Scratch

OWNER = "import sys; from pathlib import Path; from nimbusd.renderers.scratch import Scratch; "


def test_close_removes_the_folder_and_may_be_called_twice(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path)
    (scratch.path / "frame.bmp").write_bytes(b"x")
    scratch.close()
    scratch.close()
    assert list(tmp_path.iterdir()) == []


def test_an_owner_that_ends_with_an_exception_leaves_nothing(tmp_path: Path) -> None:
    code = OWNER + f"s = Scratch(Path({str(tmp_path)!r})); (s.path / 'frame').touch(); raise SystemError('boom')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "boom" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_a_killed_owners_folder_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    code = OWNER + f"s = Scratch(Path({str(tmp_path)!r})); print(s.path, flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as killed,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living,
    ):
        folders: list[Path] = []
        for process in (killed, living):
            assert process.stdout is not None
            folders.append(Path(os.fsdecode(process.stdout.readline()).strip()))
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
        assert len(list(tmp_path.iterdir())) == 2
        mine = Scratch(tmp_path)
        assert {*tmp_path.iterdir()} == {folders[1], mine.path}
        mine.close()
        living.communicate()
    assert list(tmp_path.iterdir()) == []
