"""Outputs of small plain runs, for tests of the commands that read them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.toy_jobs import scenes, write_toy_job

REPOSITORY = Path(__file__).parents[2]
NIMBUSCTL = (sys.executable, "-m", "nimbusd.cli")


def small_job(folder: Path, **pipeline: Any) -> Path:
    """A job of two scenes with one episode each, stored as a real dataset in `<folder>/out`."""
    folder.mkdir(exist_ok=True)
    stages = {"store": {"component": "NavWriter", "args": {"media": "image"}}, **pipeline}
    limits = {"beat_timeout_s": 20.0}
    return write_toy_job(
        folder / "job.yaml", stages, scenes=scenes("attic", "kitchen"), episodes_per_scene=1, limits=limits
    )


def environment(**changes: str) -> dict[str, str]:
    """Of a command: ours, with the components of the tests."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), **changes}


def finished(folder: Path, **pipeline: Any) -> Path:
    """The output folder of such a job after `nimbusctl run`."""
    job = small_job(folder, **pipeline)
    command = [*NIMBUSCTL, "run", str(job), "--workers", "1", "--spares", "0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=240)
    assert done.returncode in (0, 1), done.stderr
    return folder / "out"
