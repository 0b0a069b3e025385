"""`CuroboPlanner`: motion planning on a GPU by NVIDIA's cuRobo, version 2 or 1, whichever is installed.

cuRobo knows a robot by a file of its own (`franka.yml`) and obstacles as cuboids, which it is given anew for every
plan; it is imported when a planner is made, never before. It does not know what the hand holds. What it returns is
timed anew at the control rate and checked densely against MuJoCo's shapes, with what the hand holds, as every
trajectory is. The adapter follows cuRobo's published interfaces; it needs a CUDA device to run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nimbusd.stages.errors import BackendUnavailable, PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.layout.layout import Layout
from nimbusd.stages.workflow.sim.motion.collision import CollisionChecker
from nimbusd.stages.workflow.sim.motion.planner import MotionLimits, Trajectory, check_trajectory
from nimbusd.stages.workflow.sim.rotation import inverse, quaternion_of
from nimbusd.stages.workflow.sim.world.world import ArmIndex, World

Boxes = dict[str, dict[str, list[float]]]
"""Cuboids in the robot frame by name: {dims, pose x y z qw qx qy qz}."""

Plan = Callable[[F64, F64], F64 | None]
"""(start joints, `T_base_tool` (4, 4)) → waypoints (N, n), or None."""


@dataclass(frozen=True)
class Backend:
    """A version of cuRobo with its planner. set_world: gives it other obstacles, no more than it was made with."""

    name: str
    plan: Plan
    set_world: Callable[[Boxes], None]


def obstacles(layout: Layout, T_world_object: Mapping[str, F64]) -> Boxes:
    """The table, and the boxes of the objects that are named, at their poses (4, 4)."""
    T_robot_world = inverse(layout.robot.base.matrix())

    def entry(T_world_box: F64, size: Sequence[float]) -> dict[str, list[float]]:
        T = T_robot_world @ T_world_box
        return {"dims": [float(edge) for edge in size], "pose": [*map(float, T[:3, 3]), *quaternion_of(T[:3, :3])]}

    table = layout.table
    T_table = np.eye(4)
    T_table[:3, 3] = (*table.centre, table.height_m - 0.02)
    boxes = {name: entry(T, layout.object(name).size_m) for name, T in T_world_object.items()}
    return {"table": entry(T_table, (*table.size_m, 0.04)), **boxes}


def cuda_device() -> str:
    """The first CUDA device's name. Raises BackendUnavailable with the way out where there is none."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise BackendUnavailable(
            "cuRobo needs PyTorch with CUDA, which is not installed; use the planner 'connect', or install cuRobo from "
            "https://github.com/NVlabs/curobo on a machine with an NVIDIA GPU"
        ) from error
    if not torch.cuda.is_available():
        raise BackendUnavailable("cuRobo needs an NVIDIA GPU, and PyTorch sees none here; use the planner 'connect'")
    return str(torch.cuda.get_device_name(0))


def load_backend(robot: str, world: Boxes) -> Backend:
    """CuRobo's planner for our robot: version 2 if installed, else 1. Raises BackendUnavailable."""
    cuda_device()
    problems = []
    for version in _VERSIONS:
        try:
            importlib.import_module(version.module)
        except ImportError as error:
            problems.append(f"{version.name}: {error}")
            continue
        if robot not in version.robots:
            raise BackendUnavailable(
                f"{version.name}, which is installed here, has no configuration for robot '{robot}' (only for "
                f"{', '.join(version.robots)}); use the planner 'connect'"
            )
        return Backend(version.name, *version.load(version.robots[robot], world))
    raise BackendUnavailable(
        f"cuRobo is not installed ({'; '.join(problems)}); the packages of that name in the public registry are empty: "
        "install it from https://github.com/NVlabs/curobo, or use the planner 'connect'"
    )


@dataclass
class CuroboPlanner:
    """A `MotionPlanner` for one arm."""

    world: World
    arm: ArmIndex
    name: str = field(default="curobo", init=False)
    _backend: Backend = field(init=False, repr=False)

    def __post_init__(self) -> None:
        layout = self.world.layout
        everything = {thing.name: thing.pose.matrix() for thing in layout.objects}  # room for as many in its memory
        self._backend = load_backend(layout.robot.model, obstacles(layout, everything))
        self.name = self._backend.name

    def plan_pose(
        self, start: F64, T_world_tcp: F64, limits: MotionLimits, checker: CollisionChecker, rng: np.random.Generator
    ) -> Trajectory:
        T_robot_flange = inverse(self.world.T_world_robot) @ T_world_tcp @ inverse(self.arm.T_ee_tcp)
        self._backend.set_world(obstacles(self.world.layout, checker.obstacles()))
        waypoints = self._backend.plan(start, T_robot_flange)
        if waypoints is None:
            raise PlanningFailed("no_path", f"{self.name} found no way to the pose")
        # Version 2 returns the locked finger joints as well, after the arm's.
        positions = limits.time(np.concatenate([start[None], waypoints[:, : len(start)]]))
        check_trajectory(positions, checker)
        return Trajectory(positions, limits.step_s, self.name)

    def plan_joints(
        self, start: F64, goal: F64, limits: MotionLimits, checker: CollisionChecker, rng: np.random.Generator
    ) -> Trajectory:
        from nimbusd.stages.workflow.sim.motion.kinematics import ArmKinematics

        kinematics = ArmKinematics(self.world, self.arm)
        plan = self.plan_pose(start, kinematics.tcp(goal), limits, checker, rng)
        # cuRobo chooses its own posture at the pose; what follows expects this one.
        rest = limits.time(np.array([plan.positions[-1], goal]))
        check_trajectory(rest, checker)
        return Trajectory(np.concatenate([plan.positions, rest[1:]]), limits.step_s, self.name)


def _load_v2(robot_file: str, world: Boxes) -> tuple[Plan, Callable[[Boxes], None]]:
    planner_module = importlib.import_module("curobo.motion_planner")
    types = importlib.import_module("curobo.types")
    scene = importlib.import_module("curobo.scene").Scene
    torch = importlib.import_module("torch")
    planner = planner_module.MotionPlanner(
        planner_module.MotionPlannerCfg.create(robot=robot_file, scene_model={"cuboid": world})
    )
    planner.warmup()

    def plan(start: F64, T_base_tool: F64) -> F64 | None:
        state = types.JointState.from_position(_tensor(torch, start[None]), joint_names=planner.joint_names)
        frames = list(planner.tool_frames)
        goal = types.GoalToolPose.from_poses(
            {frames[0]: _pose(types, torch, T_base_tool)}, ordered_tool_frames=frames[:1], num_goalset=1
        )
        result = planner.plan_pose(goal, state)
        if result is None or not bool(result.success.any()):
            return None
        return _array(result.get_interpolated_plan().position)

    return plan, lambda boxes: planner.update_world(scene.create({"cuboid": boxes}))


def _load_v1(robot_file: str, world: Boxes) -> tuple[Plan, Callable[[Boxes], None]]:
    motion = importlib.import_module("curobo.wrap.reacher.motion_gen")
    types = importlib.import_module("curobo.types.robot")
    math = importlib.import_module("curobo.types.math")
    geometry = importlib.import_module("curobo.geom.types")
    torch = importlib.import_module("torch")
    generator = motion.MotionGen(motion.MotionGenConfig.load_from_robot_config(robot_file, {"cuboid": world}))
    generator.warmup()

    def plan(start: F64, T_base_tool: F64) -> F64 | None:
        state = types.JointState.from_position(_tensor(torch, start[None]))
        result = generator.plan_single(state, _pose(math, torch, T_base_tool), motion.MotionGenPlanConfig())
        if not bool(result.success.item()):
            return None
        return _array(result.get_interpolated_plan().position)

    return plan, lambda boxes: generator.update_world(geometry.WorldConfig.from_dict({"cuboid": boxes}))


@dataclass(frozen=True)
class _Version:
    """A version of cuRobo. module: which only it has. robots: those of ours that it ships with, and their files."""

    name: str
    module: str
    robots: Mapping[str, str]
    load: Callable[[str, Boxes], tuple[Plan, Callable[[Boxes], None]]]


_VERSIONS = (
    _Version("curobo 2", "curobo.motion_planner", {"franka": "franka.yml"}, _load_v2),
    # Its UR5e has no hand: that the hand touches nothing is up to the check afterwards.
    _Version("curobo 1", "curobo.wrap.reacher.motion_gen", {"franka": "franka.yml", "ur5e": "ur5e.yml"}, _load_v1),
)


def _tensor(torch: Any, values: F64) -> Any:
    return torch.tensor(values, dtype=torch.float32, device="cuda")


def _pose(types: Any, torch: Any, T: F64) -> Any:
    quaternion = np.asarray([quaternion_of(T[:3, :3])])
    return types.Pose(position=_tensor(torch, T[None, :3, 3]), quaternion=_tensor(torch, quaternion))


def _array(positions: Any) -> F64:
    rows = np.asarray(positions.detach().cpu().numpy(), np.float64)
    return rows.reshape(-1, rows.shape[-1])
