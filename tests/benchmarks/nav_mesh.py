"""End to end: ours against the usual lockstep pipeline, the same trajectories, settings and formats.

    python -m tests.benchmarks.nav_mesh [JOB] [--set KEY=VALUE] [--json]

Each side is a process of its own that is started cold, one after the other, on all cores of this machine. The
table gives seconds of work by stage, and the wall-clock time of the whole, start-up and publishing included.
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


def run_baseline(job: Job, episodes: list[tuple[str, int]], output: Path) -> dict[str, Any]:
    """The lockstep pipeline in a process of its own."""
    result = output.with_suffix(".json")
    order = orjson.dumps({"job": job.to_dict(), "episodes": episodes, "output": str(output)})
    began = time.perf_counter()
    command = [sys.executable, "-m", "tests.benchmarks.lockstep", str(result)]
    subprocess.run(command, input=order, stdout=subprocess.DEVNULL, check=True)
    figures: dict[str, Any] = orjson.loads(result.read_bytes())
    return {**figures, "wall_s": time.perf_counter() - began}


def report(baseline: dict[str, Any], ours: dict[str, Any]) -> str:
    """The table, as text."""
    lines = [f"{'seconds of work':<18}{'lockstep':>10}{'nimbusd':>10}"]
    for stage in STAGES:
        if stage in baseline["seconds"] or stage in ours["seconds"]:
            cells = (side["seconds"].get(stage) for side in (baseline, ours))
            lines.append(f"{stage:<18}" + "".join(f"{'' if s is None else f'{s:.2f}':>10}" for s in cells))
    rows = {
        "wall clock, s": (baseline["wall_s"], ours["wall_s"]),
        "frames": (baseline["frames"], ours["frames"]),
        "frames/s": (baseline["frames"] / baseline["wall_s"], ours["frames"] / ours["wall_s"]),
        "ms/frame": (1e3 * baseline["wall_s"] / baseline["frames"], 1e3 * ours["wall_s"] / ours["frames"]),
    }
    lines += [f"{name:<18}{a:>10.2f}{b:>10.2f}" for name, (a, b) in rows.items()]
    return "\n".join([*lines, f"speed-up {baseline['wall_s'] / ours['wall_s']:.2f}x"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, nargs="?", default=Path("examples/nav_mesh.yaml"))
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nav_mesh-") as folder:
        root = Path(folder)
        ours, episodes = run_ours(args.job, args.overrides, root / "ours")
        baseline = run_baseline(read_job(args.job, overrides=args.overrides), episodes, root / "lockstep")
    if baseline["frames"] != ours["frames"]:
        sys.exit(f"the two sides made {baseline['frames']} and {ours['frames']} frames of the same episodes")
    if args.json:
        print(json.dumps({"lockstep": baseline, "nimbusd": ours, "speedup": baseline["wall_s"] / ours["wall_s"]}))
    else:
        print(report(baseline, ours))


if __name__ == "__main__":
    main()
