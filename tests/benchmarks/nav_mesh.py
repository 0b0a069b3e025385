"""End to end: ours against the usual lockstep pipeline, the same trajectories, settings and formats.

    python -m tests.benchmarks.nav_mesh [JOB] [--set KEY=VALUE] [--json]

Each side is a process of its own that is started cold, one after the other, on all cores of this machine. The
table gives seconds of work by stage, and the wall-clock time of the whole, start-up and publishing included.
Lockstep runs twice: with Blender's stock denoiser and lights (`stock`), and with the settings we chose (`ours`);
`tests.benchmarks.blender_frames` shows that the two look alike. Our seconds are summed over the workers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from nimbusd.job import Job, read_job

STAGES = ("load", "randomize", "plan", "render", "store", "publish")


def run_ours(job_file: Path, overrides: list[str], output: Path) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    """`nimbusctl run`; returns its figures and the episodes it committed, by scene and index."""
    command = [sys.executable, "-m", "nimbusd.cli", "run", str(job_file), "--output", str(output), "--json"]
    command += [part for change in overrides for part in ("--set", change)]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    wall_s = time.perf_counter() - began
    seconds: Counter[str] = Counter()
    frames, episodes = 0, []
    for line in done.stdout.splitlines():
        event = json.loads(line)
        if event["event"] == "episode_committed":
            seconds.update(event["timings_s"])
            frames += event["frames"]
            episodes.append((event["scene"], event["index"]))
    return {"seconds": dict(seconds), "frames": frames, "wall_s": wall_s}, sorted(episodes)


def run_baseline(job: Job, episodes: list[tuple[str, int]], output: Path, *, stock: bool) -> dict[str, Any]:
    """The lockstep pipeline in a process of its own."""
    result = output.with_suffix(".json")
    order = orjson.dumps({"job": job.to_dict(), "episodes": episodes, "output": str(output), "stock": stock})
    began = time.perf_counter()
    command = [sys.executable, "-m", "tests.benchmarks.lockstep", str(result)]
    subprocess.run(command, input=order, stdout=subprocess.DEVNULL, check=True)
    figures: dict[str, Any] = orjson.loads(result.read_bytes())
    return {**figures, "wall_s": time.perf_counter() - began}


def report(sides: dict[str, dict[str, Any]]) -> str:
    """The table, as text: a column a side, ours last."""
    lines = [f"{'seconds of work':<18}" + "".join(f"{name:>18}" for name in sides)]
    for stage in STAGES:
        if any(stage in side["seconds"] for side in sides.values()):
            cells = (side["seconds"].get(stage) for side in sides.values())
            lines.append(f"{stage:<18}" + "".join(f"{'' if s is None else f'{s:.2f}':>18}" for s in cells))
    rows = {
        "wall clock, s": [side["wall_s"] for side in sides.values()],
        "frames": [side["frames"] for side in sides.values()],
        "frames/s": [side["frames"] / side["wall_s"] for side in sides.values()],
        "ms/frame": [1e3 * side["wall_s"] / side["frames"] for side in sides.values()],
        "our speed-up": list(speedups(sides).values()),
    }
    lines += [f"{name:<18}" + "".join(f"{value:>18.2f}" for value in values) for name, values in rows.items()]
    return "\n".join(lines)


def speedups(sides: dict[str, dict[str, Any]]) -> dict[str, float]:
    """How many times as long each side took as ours."""
    return {name: side["wall_s"] / sides["nimbusd"]["wall_s"] for name, side in sides.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, nargs="?", default=Path("examples/nav_mesh.yaml"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    sides: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="nav_mesh-") as folder:
        root = Path(folder)
        ours, episodes = run_ours(args.job, args.overrides, root / "ours")
        job = read_job(args.job, overrides=args.overrides)
        for name, stock in (("lockstep, stock", True), ("lockstep, ours", False)):
            sides[name] = run_baseline(job, episodes, root / f"lockstep-{stock}", stock=stock)
    sides["nimbusd"] = ours
    for name, side in sides.items():
        if side["frames"] != ours["frames"]:
            sys.exit(f"{name} made {side['frames']} frames of the episodes of which nimbusd made {ours['frames']}")
    if args.json:
        print(json.dumps({"sides": sides, "speedups": speedups(sides)}))
    else:
        print(report(sides))


if __name__ == "__main__":
    main()
