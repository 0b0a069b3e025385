"""Navigation end to end, ours against lockstep pipelines: what `nav_mesh` and `nav_gs` share."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from nimbusd.job import Job, read_job
from nimbusd.makers.arithmetic import maker_environment
from nimbusd.stages.stage_names import STAGES


def compare(doc: str | None, example: Path, baseline: str, variants: Mapping[str, dict[str, bool]]) -> dict[str, float]:
    """Do what the command line asks for, and print it. Returns how many times as long each side took as ours.

    doc: of the program. baseline: module of the lockstep pipeline; variants: what each side tells it, by name.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path, nargs="?", default=example)
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    sides: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix=f"{example.stem}-") as folder:
        root = Path(folder)
        ours, episodes = run_ours(args.job, args.overrides, root / "ours")
        job = read_job(args.job, overrides=args.overrides)
        for number, (name, options) in enumerate(variants.items()):
            sides[name] = run_baseline(baseline, job, episodes, root / f"lockstep-{number}", options)
    sides["nimbusd"] = ours
    for name, side in sides.items():
        if side["frames"] != ours["frames"]:
            sys.exit(f"{name} made {side['frames']} frames of the episodes of which nimbusd made {ours['frames']}")
    if args.json:
        print(json.dumps({"sides": sides, "speedups": speedups(sides)}))
    else:
        print(report(sides))
    return speedups(sides)


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


def run_baseline(
    module: str, job: Job, episodes: list[tuple[str, int]], output: Path, options: dict[str, bool]
) -> dict[str, Any]:
    """The lockstep pipeline in a process of its own."""
    result = output.with_suffix(".json")
    order = orjson.dumps({"job": job.to_dict(), "episodes": episodes, "output": str(output), "options": options})
    began = time.perf_counter()
    command = [sys.executable, "-m", module, str(result)]
    env = maker_environment(os.environ)  # with the same instructions as ours
    subprocess.run(command, input=order, env=env, stdout=subprocess.DEVNULL, check=True)
    figures: dict[str, Any] = orjson.loads(result.read_bytes())
    return {**figures, "wall_s": time.perf_counter() - began}


def report(sides: dict[str, dict[str, Any]]) -> str:
    """The table, as text: a column a side, ours last."""
    lines = [f"{'seconds of work':<18}" + "".join(f"{name:>18}" for name in sides)]
    for stage in (*STAGES, "publish"):
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
    """The time of each side, as a multiple of ours."""
    return {name: side["wall_s"] / sides["nimbusd"]["wall_s"] for name, side in sides.items()}
