"""A thousand faults of all kinds, and what they cost: nothing lost, nothing made twice.

    python -m tests.benchmarks.chaos [--count 1000] [--episodes 240] [--set KEY=VALUE] [OPTION OF nimbusctl chaos ...]

Runs `nimbusctl chaos --compare` on a toy job whose episodes take a tenth of a second each and are stored by the real
writer, as LeRobot datasets, so that `verify` reads a dataset after every fault. All options go on to it; its exit
status is ours. About 3 s per fault on two cores, so an hour or less for a thousand.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from nimbusd.stages import ComponentArgs, Observation, Sequence
from tests.support.toy import FRAMES, ToyRenderer


class PacedArgs(ComponentArgs):
    """seconds: that an episode takes to render."""

    seconds: float = 0.1


class PacedRenderer(ToyRenderer):
    """Renders at a steady pace, so that faults find somebody at work."""

    args_model = PacedArgs
    args: Any

    def gen_obs(self, seq: Sequence) -> Observation:
        for _ in range(FRAMES):
            time.sleep(self.args.seconds / FRAMES)
            self.beat()
        return super().gen_obs(seq)


def write_job(path: Path, episodes: int, scenes: int = 3, seconds: float = 0.1, writer: str = "NavWriter") -> Path:
    """A job of `episodes` toy episodes in all; a fifth of the plans fail and are replaced."""
    job = {
        "name": "storm",
        "seed": 7,
        "output": str(path.parent / "out"),
        "scenes": [{"name": f"scene{number}"} for number in range(scenes)],
        "episodes_per_scene": max(1, episodes // scenes),
        "max_tries_per_episode": 10,
        "pipeline": {
            "load": {"component": "tests.support.toy:ToyLoader"},
            "randomize": {"component": "tests.support.toy:ToyRandomizer"},
            "plan": {"component": "tests.support.toy:ToyPlanner", "args": {"fail_share": 0.2}},
            "render": {"component": "tests.benchmarks.chaos:PacedRenderer", "args": {"seconds": seconds}},
            "store": {"component": writer, "args": {"codec": "h264"} if writer == "NavWriter" else {}},
        },
    }
    path.write_text(yaml.safe_dump(job))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", default="1000")
    parser.add_argument("--episodes", type=int, default=240, help="of each job")
    args, others = parser.parse_known_args()
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        job = write_job(Path(folder) / "storm.yaml", args.episodes)
        command = [sys.executable, "-m", "nimbusd.cli", "chaos", str(job), "--compare", "--count", args.count, *others]
        sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
