"""A clone without symbolic links says in one sentence what is wrong, and its way out leads out; so does Windows."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import REPOSITORY

IMPORT = [sys.executable, "-c", "import nimbusd.stages.errors"]


def import_in(folder: Path, command: list[str] = IMPORT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.skipif(not (REPOSITORY / ".git").exists() or shutil.which("git") is None, reason="no clone, or no git")
def test_a_clone_without_links_names_the_commands_that_make_them(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    command = ["git", "clone", "--quiet", "--config", "core.symlinks=false", str(REPOSITORY), str(clone)]
    subprocess.run(command, check=True, timeout=60)
    assert (clone / "nimbusd/stages").read_text() == "../stages"
    shutil.copy(REPOSITORY / "nimbusd/__init__.py", clone / "nimbusd/__init__.py")
    sentence = last_line(import_in(clone))
    assert sentence.startswith("ImportError: nimbusd is cloned without symbolic links, and ")
    ways_out = sentence.split("`")[1::2]
    assert len(ways_out) == 2
    for way_out in ways_out:
        subprocess.run(shlex.split(way_out), cwd=clone, check=True, timeout=60)
    assert import_in(clone).returncode == 0
    assert (clone / "nimbusd/__init__.py").read_text() == (REPOSITORY / "nimbusd/__init__.py").read_text()


def test_windows_is_told_where_nimbusd_runs(tmp_path: Path) -> None:
    code = "import sys; sys.platform = 'win32'; import nimbusd.client"
    assert last_line(import_in(REPOSITORY, [sys.executable, "-c", code])) == (
        "ImportError: nimbusd runs on Linux, not on Windows itself. Install it in WSL 2: `wsl --install`."
    )
