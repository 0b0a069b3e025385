"""End to end through Gaussian splats: ours against the usual lockstep pipeline, the same trajectories and formats.

    python -m tests.benchmarks.nav_gs [JOB] [--set KEY=VALUE] [--json]

Each side is a process of its own, started cold but with compiled kernels in the cache, one after the other, on all
cores of this machine. Lockstep runs twice: with the original splatting algorithm (`original`), and with our
rasterizer (`ours`), so that only the way of working differs. Our seconds are summed over the workers. Exits with 1
where ours is less than GOAL times as fast as the lockstep pipeline with the original algorithm.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from nimbusd.job import Job, read_job
from nimbusd.renderers.gs_cpu import warm_up
from tests.benchmarks.nav_mesh import report, run_ours, speedups

GOAL = 2.2


def run_baseline(job: Job, episodes: list[tuple[str, int]], output: Path, *, ours: bool) -> dict[str, Any]:
    """The lockstep pipeline in a process of its own."""
    order, result = output.with_suffix(".order.json"), output.with_suffix(".json")
    order.write_bytes(orjson.dumps({"job": job.to_dict(), "episodes": episodes, "output": str(output), "ours": ours}))
    began = time.perf_counter()
    command = [sys.executable, "-m", "tests.benchmarks.gs_lockstep", str(order), str(result)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    figures: dict[str, Any] = orjson.loads(result.read_bytes())
    return {**figures, "wall_s": time.perf_counter() - began}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, nargs="?", default=Path("examples/nav_gs.yaml"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    sides: dict[str, dict[str, Any]] = {}
    warm_up()
    with tempfile.TemporaryDirectory(prefix="nav_gs-") as folder:
        root = Path(folder)
        ours, episodes = run_ours(args.job, args.overrides, root / "ours")
        job = read_job(args.job, overrides=args.overrides)
        for name, same in (("lockstep, original", False), ("lockstep, ours", True)):
            sides[name] = run_baseline(job, episodes, root / f"lockstep-{same}", ours=same)
    sides["nimbusd"] = ours
    for name, side in sides.items():
        if side["frames"] != ours["frames"]:
            sys.exit(f"{name} made {side['frames']} frames of the episodes of which nimbusd made {ours['frames']}")
    if args.json:
        print(json.dumps({"sides": sides, "speedups": speedups(sides)}))
    else:
        print(report(sides))
    sys.exit(speedups(sides)["lockstep, original"] < GOAL)


if __name__ == "__main__":
    main()
