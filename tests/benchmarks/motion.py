"""Motion planning for one arm around a wall: success, processor time, and what a dense re-check finds.

    python -m tests.benchmarks.motion [--goals 30] [--seed 5] [--mplib URDF SRDF] [--json]

The same goals, on the other side of a wall on the table, for the default planner and, where it is installed and given
a Franka's description, for mplib (its random numbers are not ours: it gives other paths each time). `touches` counts
timed trajectories that, sampled every 4 mrad, touch something. Exits with 1 where the default planner misses a goal or
touches.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim import parse_task, randomize_layout
from nimbusd.stages.workflow.sim.rotation import downward, inverse, transform
from nimbusd.stages.workflow.sim.workcell.workcell import CLEARANCE_M, Workcell
from nimbusd.stages.workflow.sim.world.world import build_world

WALL = (0.25, 0.03, 0.35)
CENTRE = (0.5, 0.0)
RECHECK_RAD = 0.004
MPLIB_TOOL_BEYOND_M = 0.0105
"""mplib's Franka tool frame lies so much farther out than ours."""


@dataclass(frozen=True)
class Row:
    """One planner. cpu_ms: mean processor time per goal. seconds: mean length of its motions."""

    planner: str
    goals: int
    found: int
    touches: int
    cpu_ms: float
    seconds: float


def wall_cell() -> Workcell:
    slot = {"name": "board", "models": ["cube"], "fixed": True, "size_m": WALL, "yaw_rad": [0, 0],
            "x_m": [CENTRE[0]] * 2, "y_m": [CENTRE[1]] * 2}  # fmt: skip
    task = parse_task({"name": "wall", "slots": [slot], "skills": [{"skill": "home"}], "instructions": ["-"]})
    rng = np.random.default_rng(0)
    return Workcell.open(build_world(randomize_layout(task, rng)), rng, lambda: None)


def problems(cell: Workcell, count: int, seed: int) -> list[tuple[F64, F64]]:
    """(start joints on one side, tool pose on the other), both free with clearance."""
    rng, arm = np.random.default_rng(seed), cell.world.arm("")
    kinematics, home = cell.kinematics[arm.name], np.asarray(arm.model.home)
    found: list[tuple[F64, F64]] = []
    cell.allow(arm, clearance_m=CLEARANCE_M)
    height = cell.layout.table.height_m
    while len(found) < count:
        sides: list[tuple[F64, F64]] = []
        for side in (-1, 1):
            place = [rng.uniform(0.4, 0.6), side * rng.uniform(0.12, 0.3), height + rng.uniform(0.1, 0.25)]
            pose = transform(downward(rng.uniform(-0.5, 0.5)), place)
            sides += [(q, pose) for q in kinematics.solve_any(pose, home, rng) if cell.checker.free(q)][:1]
        if len(sides) == 2:
            found.append((sides[0][0], sides[1][1]))
    return found


def measure(name: str, cell: Workcell, tasks: list[tuple[F64, F64]], plan: Callable[[F64, F64], F64 | None]) -> Row:
    spent, lengths, touches = 0.0, [], 0
    for start, pose in tasks:
        cell.allow(cell.world.arm(""), clearance_m=CLEARANCE_M)
        started = time.process_time()
        positions = plan(start, pose)
        spent += time.process_time() - started
        if positions is not None:
            cell.allow(cell.world.arm(""))
            touches += cell.checker.first_touch(positions, RECHECK_RAD) is not None
            lengths.append(len(positions) / cell.layout.physics.fps)
    return Row(name, len(tasks), len(lengths), touches, spent / len(tasks) * 1e3, float(np.mean(lengths or [0.0])))


def ours(cell: Workcell, seed: int) -> Callable[[F64, F64], F64 | None]:
    rng, arm = np.random.default_rng(seed), cell.world.arm("")

    def plan(start: F64, pose: F64) -> F64 | None:
        try:
            return cell.planners[arm.name].plan_pose(start, pose, cell.limits(arm), cell.checker, rng).positions
        except PlanningFailed:
            return None

    return plan


def mplib_planner(cell: Workcell, urdf: str, srdf: str) -> Callable[[F64, F64], F64 | None]:
    mplib: Any = importlib.import_module("mplib")
    fcl: Any = importlib.import_module("mplib.collision_detection").fcl

    planner = mplib.Planner(urdf=urdf, srdf=srdf, move_group="panda_hand_tcp")

    def add(name: str, size: tuple[float, float, float], centre: tuple[float, float, float]) -> None:
        box = fcl.CollisionObject(fcl.Box(list(size)), mplib.Pose())
        planner.planning_world.add_object(
            fcl.FCLObject(name, mplib.Pose(), [box], [mplib.Pose(list(centre), [1, 0, 0, 0])])
        )

    add("wall", WALL, (*CENTRE, WALL[2] / 2))
    # A centimetre lower than it is, or mplib sees the robot's foot in the table.
    add("table", (*cell.layout.table.size_m, 0.04), (*cell.layout.table.centre, -0.03))

    def plan(start: F64, pose: F64) -> F64 | None:
        T = inverse(cell.world.T_world_robot) @ pose @ transform(None, (0, 0, MPLIB_TOOL_BEYOND_M))
        posture = np.concatenate([start, [0.04, 0.04]])
        result: dict[str, Any] = planner.plan_pose(mplib.Pose(T), posture, time_step=1 / cell.layout.physics.fps)
        return np.asarray(result["position"][:, : len(start)]) if result["status"] == "Success" else None

    return plan


@click.command(help=__doc__)
@click.option("--goals", default=30, help="how many")
@click.option("--seed", default=5, help="of the goals")
@click.option("--mplib", "description", nargs=2, type=click.Path(exists=True), help="URDF and SRDF of a Franka")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def main(goals: int, seed: int, description: tuple[str, str] | None, as_json: bool) -> None:
    cell = wall_cell()
    tasks = problems(cell, goals, seed)
    rows = [measure("connect", cell, tasks, ours(cell, seed))]
    if description:
        rows.append(measure("mplib", cell, tasks, mplib_planner(cell, *description)))
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
    else:
        click.echo(f"{'planner':10} {'goals':>6} {'found':>6} {'touches':>8} {'cpu ms':>8} {'seconds':>8}")
        for row in rows:
            click.echo(
                f"{row.planner:10} {row.goals:6} {row.found:6} {row.touches:8} {row.cpu_ms:8.0f} {row.seconds:8.2f}"
            )
    sys.exit(0 if rows[0].found == rows[0].goals and not rows[0].touches else 1)


if __name__ == "__main__":
    main()
