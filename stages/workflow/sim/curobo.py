"""`CuroboPlanner`: motion planning on a GPU by NVIDIA's cuRobo, version 2 or 1, whichever is installed.

cuRobo knows a robot by a file of its own (`franka.yml`) and obstacles as cuboids; it is imported when a planner is
made, never before. What it returns is timed anew at the control rate and checked densely against MuJoCo's shapes, as
every trajectory is. The adapter follows cuRobo's published interfaces; it needs a CUDA device to run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nimbusd.stages.errors import BackendUnavailable, PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.collision import CollisionChecker
from nimbusd.stages.workflow.sim.layout import Layout
from nimbusd.stages.workflow.sim.motion import MotionLimits, Trajectory, check_trajectory
from nimbusd.stages.workflow.sim.rotation import inverse, quaternion_of
from nimbusd.stages.workflow.sim.world import ArmIndex, World

ROBOT_FILES = {"franka": "franka.yml", "ur5e": "ur5e.yml"}
"""Our robot key → cuRobo's robot configuration."""

Plan = Callable[[F64, F64], F64 | None]
"""(start joints, `T_base_tool` (4, 4)) → waypoints (N, n), or None."""


def obstacles(layout: Layout, moving: Sequence[str] = ()) -> dict[str, dict[str, list[float]]]:
    """Table and objects, but for those `moving`, as cuboids in the robot frame: {dims, pose x y z qw qx qy qz}."""
    T_robot_world = inverse(layout.robot.base.matrix())

    def entry(T_world_box: F64, size: Sequence[float]) -> dict[str, list[float]]:
        T = T_robot_world @ T_world_box
        return {"dims": [float(edge) for edge in size], "pose": [*map(float, T[:3, 3]), *quaternion_of(T[:3, :3])]}

    table = layout.table
    T_table = np.eye(4)
    T_table[:3, 3] = (*table.centre, table.height_m - 0.02)
    found = {"table": entry(T_table, (*table.size_m, 0.04))}
    for thing in layout.objects:
        if thing.name not in moving:
            found[thing.name] = entry(thing.pose.matrix(), thing.size_m)
    return found


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


def load_backend(robot_file: str, world: dict[str, dict[str, list[float]]]) -> tuple[str, Plan]:
    """CuRobo's version and its planning function: version 2 if installed, else 1. Raises BackendUnavailable."""
    cuda_device()
    problems = []
    for version, load in (("curobo 2", _load_v2), ("curobo 1", _load_v1)):
        try:
            return version, load(robot_file, world)
        except ImportError as error:
            problems.append(f"{version}: {error}")
    raise BackendUnavailable(
        f"cuRobo is not installed ({'; '.join(problems)}); the packages of that name in the public registry are empty: "
        "install it from https://github.com/NVlabs/curobo, or use the planner 'connect'"
    )


@dataclass
class CuroboPlanner:
    """A `MotionPlanner` for one arm. Obstacles are the layout's, at their start poses."""

    world: World
    arm: ArmIndex
    name: str = field(default="curobo", init=False)
    _plan: Plan = field(init=False, repr=False)

    def __post_init__(self) -> None:
        robot = self.world.layout.robot.model
        if robot not in ROBOT_FILES:
            known = ", ".join(ROBOT_FILES)
            raise BackendUnavailable(f"cuRobo has no configuration for robot '{robot}' here (only for {known})")
        self.name, self._plan = load_backend(ROBOT_FILES[robot], obstacles(self.world.layout))

    def plan_pose(
        self, start: F64, T_world_tcp: F64, limits: MotionLimits, checker: CollisionChecker, rng: np.random.Generator
    ) -> Trajectory:
        T_robot_flange = inverse(self.world.T_world_robot) @ T_world_tcp @ inverse(self.arm.T_ee_tcp)
        waypoints = self._plan(start, T_robot_flange)
        if waypoints is None:
            raise PlanningFailed("no_path", f"{self.name} found no way to the pose")
        # Version 2 returns the locked finger joints as well, after the arm's.
        positions = limits.time(np.concatenate([start[None], waypoints[:, : len(start)]]))
        check_trajectory(positions, checker)
        return Trajectory(positions, limits.step_s, self.name)

    def plan_joints(
        self, start: F64, goal: F64, limits: MotionLimits, checker: CollisionChecker, rng: np.random.Generator
    ) -> Trajectory:
        from nimbusd.stages.workflow.sim.kinematics import ArmKinematics

        kinematics = ArmKinematics(self.world, self.arm)
        plan = self.plan_pose(start, kinematics.tcp(goal), limits, checker, rng)
        # cuRobo chooses its own posture at the pose; what follows expects this one.
        rest = limits.time(np.array([plan.positions[-1], goal]))
        check_trajectory(rest, checker)
        return Trajectory(np.concatenate([plan.positions, rest[1:]]), limits.step_s, self.name)


def _load_v2(robot_file: str, world: dict[str, dict[str, list[float]]]) -> Plan:
    planner_module = importlib.import_module("curobo.motion_planner")
    types = importlib.import_module("curobo.types")
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

    return plan


def _load_v1(robot_file: str, world: dict[str, dict[str, list[float]]]) -> Plan:
    motion = importlib.import_module("curobo.wrap.reacher.motion_gen")
    types = importlib.import_module("curobo.types.robot")
    math = importlib.import_module("curobo.types.math")
    torch = importlib.import_module("torch")
    generator = motion.MotionGen(motion.MotionGenConfig.load_from_robot_config(robot_file, {"cuboid": world}))
    generator.warmup()

    def plan(start: F64, T_base_tool: F64) -> F64 | None:
        state = types.JointState.from_position(_tensor(torch, start[None]))
        result = generator.plan_single(state, _pose(math, torch, T_base_tool), motion.MotionGenPlanConfig())
        if not bool(result.success.item()):
            return None
        return _array(result.get_interpolated_plan().position)

    return plan


def _tensor(torch: Any, values: F64) -> Any:
    return torch.tensor(values, dtype=torch.float32, device="cuda")


def _pose(types: Any, torch: Any, T: F64) -> Any:
    quaternion = np.asarray([quaternion_of(T[:3, :3])])
    return types.Pose(position=_tensor(torch, T[None, :3, 3]), quaternion=_tensor(torch, quaternion))


def _array(positions: Any) -> F64:
    rows = np.asarray(positions.detach().cpu().numpy(), np.float64)
    return rows.reshape(-1, rows.shape[-1])
