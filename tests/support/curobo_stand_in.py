"""A stand-in for cuRobo's modules, version 2 (main, June 2026) or 1 (0.7.8), with the calls that their sources have.

It ships the robots that they ship, has room for as many cuboids as it was made with, and goes the way that it was told
wherever no cuboid of its present world holds the tool at the goal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nimbusd.stages.types import F64

SHIPPED = {
    2: ("franka.yml", "ur10e.yml", "dual_ur10e.yml", "unitree_g1.yml"),
    1: ("franka.yml", "ur5e.yml", "ur10e.yml"),
}


class Tensor:
    """The part of torch that is used."""

    def __init__(self, values: Any) -> None:
        self.values = np.asarray(values)

    def detach(self) -> Tensor:
        return self

    cpu = detach

    def numpy(self) -> Any:
        return self.values

    def any(self) -> Any:
        return self.values.any()

    def item(self) -> Any:
        return self.values.item()


@dataclass
class JointState:
    position: Tensor
    joint_names: list[str] | None = None

    @classmethod
    def from_position(cls, position: Tensor, joint_names: list[str] | None = None) -> JointState:
        assert position.values.ndim == 2
        return cls(position, joint_names)


@dataclass
class Pose:
    position: Tensor
    quaternion: Tensor


@dataclass
class GoalToolPose:
    poses: dict[str, Pose]

    @classmethod
    def from_poses(
        cls, poses: dict[str, Pose], ordered_tool_frames: list[str] | None = None, num_goalset: int = 1
    ) -> GoalToolPose:
        assert list(poses) == ordered_tool_frames
        return cls(poses)


@dataclass
class World:
    """Its obstacles, read from a dictionary by either version."""

    cuboid: dict[str, dict[str, list[float]]]

    @classmethod
    def read(cls, data: dict[str, Any]) -> World:
        assert set(data) == {"cuboid"}
        assert all(set(box) == {"dims", "pose"} and len(box["pose"]) == 7 for box in data["cuboid"].values())
        return cls(data["cuboid"])


class CuroboStandIn:
    """The modules of a version. way: start joints → waypoints. worlds: names of the obstacles it was given, in turn."""

    def __init__(self, version: int, way: Callable[[F64], F64]) -> None:
        self.version = version
        self.way = way
        self.worlds: list[set[str]] = []
        self.goals: list[F64] = []
        self._world = World({})
        self._room = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cuda = SimpleNamespace(is_available=lambda: True, get_device_name=lambda index: "NVIDIA L40")
        modules: dict[str, dict[str, Any]] = {
            "torch": {"cuda": cuda, "float32": "float32", "tensor": lambda values, dtype, device: Tensor(values)},
            "curobo": {},
        }
        if self.version == 2:
            modules |= {
                "curobo.types": {"JointState": JointState, "Pose": Pose, "GoalToolPose": GoalToolPose},
                "curobo.scene": {"Scene": SimpleNamespace(create=World.read)},
                "curobo.motion_planner": {
                    "MotionPlannerCfg": SimpleNamespace(create=self._configure_v2),
                    "MotionPlanner": lambda config: self._planner_v2(),
                },
            }
        else:
            modules |= {
                "curobo.types": {},
                "curobo.types.robot": {"JointState": JointState},
                "curobo.types.math": {"Pose": Pose},
                "curobo.geom": {},
                "curobo.geom.types": {"WorldConfig": SimpleNamespace(from_dict=World.read)},
                "curobo.wrap": {},
                "curobo.wrap.reacher": {},
                "curobo.wrap.reacher.motion_gen": {
                    "MotionGenConfig": SimpleNamespace(load_from_robot_config=self._configure),
                    "MotionGenPlanConfig": SimpleNamespace,
                    "MotionGen": lambda config: self._planner_v1(),
                },
            }
        for name in [name for name in sys.modules if name.partition(".")[0] == "curobo"]:
            monkeypatch.delitem(sys.modules, name)
        for name, content in modules.items():
            module = ModuleType(name)
            module.__dict__.update(content)
            module.__path__ = []
            monkeypatch.setitem(sys.modules, name, module)

    def _configure_v2(self, robot: str, scene_model: dict[str, Any]) -> None:
        self._configure(robot, scene_model)

    def _configure(self, robot: str, world: dict[str, Any]) -> None:
        if robot not in SHIPPED[self.version]:
            raise FileNotFoundError(robot)
        self._set_world(World.read(world))
        self._room = len(self._world.cuboid)

    def _set_world(self, world: World) -> None:
        assert not self._room or len(world.cuboid) <= self._room, "no room for so many cuboids"
        self._world = world
        self.worlds.append(set(world.cuboid))

    def _planner_v2(self) -> Any:
        def plan(goal: GoalToolPose, state: JointState) -> Any:
            assert state.joint_names is not None
            found = self._plan(goal.poses["panda_hand"], state)
            if found is None:
                return None
            fingers = np.full((len(found), 2), 0.04)
            return self._result(np.concatenate([found, fingers], axis=1), True)

        names = [f"panda_joint{number}" for number in range(1, 8)]
        return SimpleNamespace(
            warmup=lambda: True,
            joint_names=names,
            tool_frames=["panda_hand"],
            plan_pose=plan,
            update_world=self._set_world,
        )

    def _planner_v1(self) -> Any:
        def plan(state: JointState, goal: Pose, settings: object) -> Any:
            found = self._plan(goal, state)
            return self._result(np.empty((0, 7)) if found is None else found, found is not None)

        return SimpleNamespace(warmup=lambda: None, plan_single=plan, update_world=self._set_world)

    def _result(self, positions: F64, success: bool) -> Any:
        return SimpleNamespace(
            success=Tensor([success]),
            get_interpolated_plan=lambda: SimpleNamespace(position=Tensor(positions[None])),
        )

    def _plan(self, goal: Pose, state: JointState) -> F64 | None:
        (point,) = goal.position.values
        self.goals.append(point)
        for box in self._world.cuboid.values():
            if (np.abs(point - box["pose"][:3]) < np.array(box["dims"]) / 2).all():
                return None
        return self.way(state.position.values[0])
