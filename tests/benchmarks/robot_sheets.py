"""One contact sheet per robot of the library: what its cameras see at home and at a reached pose, and its figures.

    python -m tests.benchmarks.robot_sheets [--robot NAME] [--output FOLDER] [--json]

Columns: overhead (straight down), one wrist camera per arm, and a still camera. Rows: at home, fingers open; at a pose
above the table, fingers closed. A red cube stands ahead on the left, a blue one nearer on the right, for orientation.

`fk`: forward kinematics of the simulation against a chain of the file's own joint axes, worst of 50 postures. `reach`:
tool at the commanded pose, after it has come to rest. `open`, `closed`: openness measured when commanded to 1 and 0.
`overhead`, `wrist`: cosine between upwards in the picture and the robot's forward direction as seen there, at home.
Exits with 1 where FK is off by 1e-6 m, reach by 5 mm, openness by 0.1, or a picture is not upright (cosine below 0.95).
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw

from nimbusd.renderers.mujoco.view import MujocoView
from nimbusd.renderers.stacked import Tile, render_stacked
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim import Layout, camera_poses, parse_task, randomize_layout
from nimbusd.stages.workflow.sim.models.robots import ROBOTS
from nimbusd.stages.workflow.sim.motion.kinematics import ArmKinematics
from nimbusd.stages.workflow.sim.rotation import about, downward, matrix_of, transform
from nimbusd.stages.workflow.sim.world.simulation import Command, Simulation
from nimbusd.stages.workflow.sim.world.world import ArmIndex, World, build_world

POSTURES, STEPS, GRIP_STEPS = 50, 90, 40
AHEAD_M, ABOVE_M = 0.05, 0.12
"""The way of the tool: metres ahead of its home, metres above the table."""
FK_M, REACH_M, OPENNESS, UPRIGHT = 1e-6, 0.005, 0.1, 0.95

TASK = {
    "name": "sheet",
    "slots": [
        {"name": "red", "models": ["cube"], "color": "red", "x_m": [0.6, 0.6], "y_m": [0.12, 0.12], "yaw_rad": [0, 0]},
        {"name": "blue", "models": ["cube"], "color": "blue", "x_m": [0.4, 0.4], "y_m": [-0.12, -0.12],
         "yaw_rad": [0, 0]},
    ],
    "skills": [{"skill": "home"}],
    "instructions": ["-"],
    "randomize": {"robot_rad": 0, "camera_m": 0, "camera_rad": 0, "focal": 0, "tables": ["plaster"]},
    "cameras": [
        {"name": "overhead", "position_m": [0.42, 0.0, 1.3], "target_m": [0.42, 0.0, 0.0]},
        {"name": "wrist", "mount": "*", "hfov_rad": 1.2},
        {"name": "still", "position_m": [1.5, -0.7, 0.8], "target_m": [0.3, 0.0, 0.25]},
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """An arm's figures, see above."""

    robot: str
    arm: str
    fk_m: float
    reach_m: float
    open: float
    closed: float
    overhead: float
    wrist: float

    @property
    def right(self) -> bool:
        near = self.fk_m < FK_M and self.reach_m < REACH_M and min(self.overhead, self.wrist) > UPRIGHT
        return near and self.open > 1 - OPENNESS and self.closed < OPENNESS


def sheet(robot: str) -> tuple[list[Row], Image.Image]:
    """The figures of every arm of a robot, and its pictures."""
    layout = randomize_layout(parse_task({**TASK, "robot": robot}), np.random.default_rng(0))
    world = build_world(layout)
    home, rows = world.start, []
    at_home = camera_poses(layout, home[None])
    simulation = Simulation(world)
    for name, arm in world.arms.items():
        x, y, _ = simulation.tcp(arm)[:3, 3]
        goal = transform(downward(0.0), (x + AHEAD_M, y, layout.table.height_m + ABOVE_M))
        joints = ArmKinematics(world, arm).solve(goal, home[arm.q])
        if joints is None:
            raise click.ClickException(f"{robot}: {name} does not reach {goal[:3, 3].round(2).tolist()}")
        low, high = arm.model.gripper.opening_m
        for share in np.linspace(0, 1, STEPS):
            simulation.step({name: Command(home[arm.q] + share * (joints - home[arm.q]), high)})
        openness = {}
        for opening in (high, low):
            for _ in range(GRIP_STEPS):
                simulation.step({name: Command(joints, opening)})
            openness[opening] = (simulation.opening(arm) - low) / (high - low)
        away = float(np.linalg.norm(simulation.tcp(arm)[:3, 3] - goal[:3, 3]))
        wrist = next(entry.name for entry in layout.cameras if entry.mount == name)
        rows.append(
            Row(
                robot,
                name,
                fk_error(world, arm),
                away,
                openness[high],
                openness[low],
                upright(at_home["overhead"][0]),
                upright(at_home[wrist][0]),
            )
        )
    return rows, pictures(robot, layout, np.array([home, simulation.qpos]))


def upright(T_world_camera: F64) -> float:
    """Cosine between a picture's upwards and where world +x points in it."""
    right, up = T_world_camera[0, :2]
    return float(up / np.hypot(right, up))


def fk_error(world: World, arm: ArmIndex) -> float:
    """Worst distance between the flange of `ArmKinematics` and one that is computed joint by joint, metres."""
    rng, kinematics = np.random.default_rng(1), ArmKinematics(world, arm)
    postures = rng.uniform(np.maximum(arm.lower, -2.5), np.minimum(arm.upper, 2.5), (POSTURES, len(arm.q)))
    return max(
        float(np.linalg.norm((kinematics.tcp(q) - chain(world, arm, q) @ arm.T_ee_tcp)[:3, 3])) for q in postures
    )


def chain(world: World, arm: ArmIndex, joints: F64) -> F64:
    """(4, 4) `T_world_flange` from the bodies' places in their parents and the joints' axes."""
    model, T, bodies = world.model, np.eye(4), [arm.flange]
    while bodies[-1]:
        bodies.append(int(model.body_parentid[bodies[-1]]))
    angle = dict(zip(arm.v.tolist(), joints, strict=True))
    for body in reversed(bodies[:-1]):
        T = T @ matrix_of(model.body_pos[body], model.body_quat[body])
        for joint in range(model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body]):
            turn = about(model.jnt_axis[joint], float(angle[int(model.jnt_dofadr[joint])]))
            pivot = model.jnt_pos[joint]
            T = T @ transform(turn, pivot - turn @ pivot)
    return T


def pictures(robot: str, layout: Layout, qpos: F64) -> Image.Image:
    """A row of pictures for each state, (T, nq), with captions."""
    poses = camera_poses(layout, qpos)
    view = MujocoView(layout)
    tiles: dict[tuple[int, str], Tile] = {}
    for row, name, tile in render_stacked(view, qpos, [entry.camera for entry in layout.cameras], poses, 1):
        tiles[row, name] = tile
    view.close()
    width, height, line = 320, 240, 14
    image = Image.new("RGB", (width * len(layout.cameras), (height + line) * len(qpos)), "white")
    draw = ImageDraw.Draw(image)
    for (row, name), tile in tiles.items():
        x = width * [entry.name for entry in layout.cameras].index(name)
        y = (height + line) * row
        draw.text((x + 4, y + 1), f"{robot}: {name}, {'home' if row == 0 else 'reached'}", fill="black")
        image.paste(Image.fromarray(tile.rgb), (x, y + line))
    return image


def table(rows: list[Row]) -> str:
    lines = [
        f"{'robot':12} {'arm':6} {'fk m':>8} {'reach m':>8} {'open':>6} {'closed':>7} {'overhead':>9} {'wrist':>6}"
    ]
    lines += [
        f"{r.robot:12} {r.arm:6} {r.fk_m:8.1e} {r.reach_m:8.4f} {r.open:6.2f} {r.closed:7.2f} "
        f"{r.overhead:9.3f} {r.wrist:6.3f}"
        for r in rows
    ]
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--robot", type=click.Choice(sorted(ROBOTS)), help="one robot instead of all")
@click.option("--output", type=click.Path(path_type=Path), default=Path("out/robots"), help="folder of the pictures")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def main(robot: str | None, output: Path, as_json: bool) -> None:
    output.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in [robot] if robot else ROBOTS:
        made, image = sheet(name)
        rows += made
        image.save(output / f"{name}.png")
    click.echo(json.dumps([asdict(row) for row in rows]) if as_json else table(rows))
    sys.exit(0 if all(row.right for row in rows) else 1)


if __name__ == "__main__":
    main()
