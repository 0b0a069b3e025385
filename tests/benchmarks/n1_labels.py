"""Planned drives as InternNav's loader reads them: goals, pixels and labels.

    python -m tests.benchmarks.n1_labels [JOB] [--set KEY=VALUE] [--drives 20] [--samples 200] [--json]

Plans drives of a job and does the arithmetic of `navdp_lerobot_dataset.py` with them, for so many items of each drive:

- the greatest error of a point goal against the stored states;
- the share of items whose pixel goal lies in the picture;
- the share of labels' steps that stand still because the goal was reached;
- the share of the other steps with a number beyond -1 … 1, which the policy's diffusion clips; their 99th percentile.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.job import Job, read_job
from nimbusd.stages import PlanningFailed, Sequence
from nimbusd.stages.seeds import stream
from nimbusd.stages.store.formats.n1.trees import N1_BASE
from tests.support.internnav_loader import PREDICTED, draw_sample, label, label_frames, pixel_goal, steps_of


def drives(job: Job, count: int) -> list[Sequence]:
    """The first `count` drives that can be planned, taken from all scenes in turn.

    Raises PlanningFailed, the last one, where more than ten times as many cannot.
    """
    loader, planner = job.make("load"), job.make("plan")
    scenes = list(job.scenes)
    planned: list[Sequence] = []
    index = failed = 0
    while len(planned) < count:
        for name in scenes[: count - len(planned)]:
            scene = loader.load_asset(job.scene_config(name))
            try:
                planned.append(planner.gen_sequence(scene, stream(job.seed, name, index, "plan")))
            except PlanningFailed as failure:
                failed += 1
                print(f"{name} {index}: {failure.reason}", file=sys.stderr)
                if failed > 10 * count:
                    raise
        index += 1
    return planned


def figures(seq: Sequence, samples: int, rng: np.random.Generator) -> dict[str, Any]:
    """The figures of one drive as lists over its items."""
    (camera,) = seq.cameras
    poses = np.asarray(seq.T_world_camera[camera.name])
    mounting = N1_BASE @ seq.T_base_camera[camera.name]
    state = seq.states["observation.state"].values.astype(np.float64)
    found: dict[str, list[Any]] = {"error_m": [], "seen": [], "still": [], "clipped": [], "largest": []}
    for _ in range(samples):
        item = draw_sample(len(seq), rng)
        moved, yaw = state[item.target - 1, :2] - state[item.pixel, :2], state[item.pixel, 3]
        c, s = np.cos(yaw), np.sin(yaw)
        goal = steps_of(poses, mounting, item.pixel, item.target)[-1]
        wanted = np.array([c * moved[0] + s * moved[1], c * moved[1] - s * moved[0]])
        found["error_m"].append(float(np.abs(goal[:2] - wanted).max()))
        u, v = pixel_goal(goal, camera.matrix(), mounting)
        found["seen"].append(0 < u < camera.width and 0 < v < camera.height)
        moves = np.diff(label_frames(item.start, item.target)) > 0
        steps = np.abs(label(poses, mounting, item.start, item.target))[moves]
        found["still"].append(PREDICTED - int(moves.sum()))
        found["clipped"].extend((steps > 1).any(axis=1).tolist())
        found["largest"].extend(steps[:, :2].max(axis=1).tolist())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="?", type=Path, default=Path("examples/nav_n1.yaml"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--drives", type=int, default=20)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    planned = drives(read_job(args.job, overrides=args.set), args.drives)
    rng = np.random.default_rng(0)
    each = [figures(seq, args.samples, rng) for seq in planned]
    whole = {key: np.concatenate([np.asarray(drive[key], np.float64) for drive in each]) for key in each[0]}
    lengths = [len(seq) for seq in planned]
    result = {
        "drives": len(planned),
        "frames": [min(lengths), float(np.mean(lengths)), max(lengths)],
        "path_m": float(np.mean([seq.notes["path_length_m"] for seq in planned])),
        "items": len(whole["seen"]),
        "point_goal_error_m": float(whole["error_m"].max()),
        "pixel_goal_seen": float(whole["seen"].mean()),
        "steps_still": float(whole["still"].mean() / PREDICTED),
        "steps_clipped": float(whole["clipped"].mean()),
        "step_99": float(np.percentile(whole["largest"], 99)),
    }
    print(json.dumps(result) if args.json else "\n".join(f"{key:20} {value}" for key, value in result.items()))


if __name__ == "__main__":
    main()
