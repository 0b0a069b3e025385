"""A workflow small enough to compute by hand: arms with first-order joints, a cube, two cameras drawn with numpy.

`state[t + 1] = state[t] + GAIN * (command[t] - state[t])`, and the first pixels of every image hold the first joint's
position as float32, so that tests can tell exactly which state an image shows and which command led to it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nimbusd.stages import Camera, CameraFrames, Feature, Label, Observation, PlanningFailed, Scene, Sequence
from nimbusd.stages.packing import PlanValue
from nimbusd.stages.store.arm_columns import ArmSignals, a1_columns
from nimbusd.stages.store.frame_labels import inside, project
from nimbusd.stages.types import F64, SIMULATION_QPOS, U8
from nimbusd.stages.workflow import Workflow, pack, register, unpack

GAIN = 0.5
JOINTS = 7
CUBE_ID, ARM_ID = 5, 9
CAMERAS = (
    Camera("front", 96, 64, 80.0, 82.0, 48.0, 32.0),
    Camera("wrist", 64, 72, 50.0, 50.0, 33.0, 36.0),
)
LABELS = (Label(CUBE_ID, 30, "red_cube", "cube"), Label(ARM_ID, 31, "robot", "robot"))


def looking_down(x: float, y: float, z: float) -> F64:
    T = np.eye(4)
    T[:3, 3] = x, y, z
    return T


def tool(base_y: float, q: F64) -> F64:
    """T_world_tcp of an arm at joints q."""
    yaw, reach, height = q[0], 0.3 + 0.1 * q[1], 0.2 + 0.1 * q[2]
    c, s = np.cos(yaw), np.sin(yaw)
    T = np.diag([1.0, -1.0, -1.0, 1.0])  # z down
    T[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ T[:3, :3]
    T[:3, 3] = reach * c, base_y + reach * s, height
    return T


@register("ToyArm")
class ToyArm(Workflow):
    """workflow_args: `shift_m` moves the cube; `mark` is a file that counts resets."""

    version = "1.1.0"
    fps = 10.0

    def __init__(self, world: Any, task_cfg_path: str, shift_m: float = 0.0, mark: str = "") -> None:
        super().__init__(world, task_cfg_path)
        self.shift_m = shift_m
        self.mark = mark
        self.calls: list[str] = []

    def parse_task_cfgs(self, task_cfg_path: str) -> list[Any]:
        return list(yaml.safe_load(Path(task_cfg_path).read_text())["tasks"])

    def get_task_name(self) -> str:
        return str(self.task_cfg["name"])

    def reset(self, need_preload: bool) -> None:
        self.calls.append(f"reset({need_preload})")
        self.cube = np.array([0.3, 0.0, 0.05])
        self.q = {name: np.zeros(JOINTS) for name in self.task_cfg.get("arms", [""])}
        self.seen: dict[str, list[Any]] = {}

    def randomization(self, layout_path: str | None = None) -> bool:
        self.calls.append("randomization")
        if layout_path is not None:
            self.cube = np.array(json.loads(Path(layout_path).read_text())["cube"])
            return True
        self.cube = np.array([*self.rng.uniform(0.2, 0.4, 2), 0.05])
        self.cube[0] += self.shift_m
        return bool(self.rng.random() >= self.task_cfg.get("bad_layouts", 0.0))

    def generate_seq(self) -> list[Any]:
        self.calls.append("generate_seq")
        if self.rng.random() < self.task_cfg.get("unreachable", 0.0):
            return []
        if self.task_cfg.get("no_path"):
            raise PlanningFailed("no_path", "the toy says so")
        length = int(self.task_cfg.get("length", 12))
        sequence = []
        goal = {name: self.rng.uniform(-1, 1, JOINTS) for name in self.q}
        wobble = random.random() + float(np.random.random())
        for t in range(length):
            state: dict[str, Any] = {"cube": self.cube.copy(), "wobble": wobble}
            for name, q in self.q.items():
                command = goal[name] * min(1.0, (t + 1) / 6)
                state[f"q/{name}"], state[f"command/{name}"] = q.copy(), command
                self.q[name] = q + GAIN * (command - q)
            sequence.append(state)
            self.cube = self.cube + np.array(
                [0.0, 0.0, 0.001]
            )  # what a replay of actions instead of states would add twice
            self.beat()
        return sequence

    def seq_replay(self, sequence: list[Any]) -> int:
        self.calls.append("seq_replay")
        self.seen = {camera.name: [] for camera in CAMERAS}
        for state in sequence:
            for camera in CAMERAS:
                self.seen[camera.name].append(self._draw(camera, state))
            self.beat()
        return len(sequence)

    def save(self, save_path: str) -> int:
        np.save(Path(save_path, "cube.npy"), np.array([state["cube"] for state in self.planned]))
        folder = Path(save_path, "frames")
        folder.mkdir()
        (folder / "first.bin").write_bytes(self.seen["front"][0][0].tobytes())
        return len(self.planned)

    def describe_scene(self) -> Scene | None:
        return Scene("toy", (), provenance={"cube": self.cube.tolist()})

    def describe_layout(self) -> Mapping[str, Any]:
        return {"cube": self.cube.tolist()}

    def describe_seq(self, sequence: list[Any]) -> Sequence:
        length = len(sequence)
        arms = []
        for number, name in enumerate(self.q):
            base_y = 0.2 * number
            q = np.array([state[f"q/{name}"] for state in sequence])
            command = np.array([state[f"command/{name}"] for state in sequence])
            tcp = np.array([tool(base_y, row) for row in q])
            flange = tcp @ looking_down(0, 0, -0.1)
            base = np.tile(looking_down(0, base_y, 0), (length, 1, 1))
            opening = 0.04 - 0.01 * np.tanh(q[:, 3])
            signals = ArmSignals(name, q, command, opening, opening, (opening > 0.04) * 1.0, base, flange, tcp)
            if self.task_cfg.get("full"):
                wanted = np.array([tool(base_y, row) for row in command]) @ looking_down(0, 0, -0.1)
                rate = np.diff(command, axis=0, prepend=command[:1]) * self.fps
                signals = replace(
                    signals,
                    joint_velocity=np.gradient(q, 1 / self.fps, axis=0),
                    joint_velocity_command=rate,
                    gripper_velocity=np.gradient(opening, 1 / self.fps),
                    T_world_ee_command=wanted,
                )
            arms.append(signals)
        states, actions = a1_columns(arms, np.tile(looking_down(0.0, 0.0, 0.01), (length, 1, 1)))
        states["observation.state"] = Feature(np.concatenate([arm.joint_position for arm in arms], axis=1))
        actions["action"] = Feature(np.concatenate([arm.joint_command for arm in arms], axis=1))
        states[SIMULATION_QPOS] = Feature(np.array([state["cube"] for state in sequence]))
        cube = np.array([looking_down(*state["cube"]) for state in sequence])
        poses = {camera.name: np.array([self._camera_pose(camera, state) for state in sequence]) for camera in CAMERAS}
        failed = bool(self.task_cfg.get("failed"))
        half = length // 2
        first_arm = next(iter(self.q))
        return Sequence(
            fps=self.fps,
            task=f"Lift the red cube ({self.get_task_name()}).",
            cameras=CAMERAS,
            T_world_camera=poses,
            T_base_camera={camera.name: poses[camera.name][0] for camera in CAMERAS},
            states=states,
            actions=actions,
            T_world_object={"red_cube": cube},
            notes={
                "result": {"success": not failed, "reason": "goal_not_reached" if failed else None},
                "sub_tasks": [
                    {"start": 0, "stop": half, "instruction": "Reach for the red cube.", "arm": first_arm},
                    {"start": half, "stop": length, "instruction": "Lift it.", "arm": first_arm},
                ],
                "keypoints": [
                    {"name": "grasp", "kind": "grasp", "frame": "red_cube", "position": [0, 0, 0.02], "row": half}
                ],
                "nouns": {"red_cube": "small red cube"},
                "wobble": sequence[0]["wobble"],
                **({"robot": {"type": robot}} if (robot := self.task_cfg.get("robot")) else {}),
            },
        )

    def observe(self) -> Observation | None:
        frames = {
            name: CameraFrames(*(np.stack(part) for part in zip(*shots, strict=True)))
            for name, shots in self.seen.items()
        }
        return Observation(frames, LABELS, {"backend": "toy"})

    def _camera_pose(self, camera: Camera, state: Mapping[str, Any]) -> F64:
        if camera.name == "front":
            return looking_down(0.3, 0.1, 1.2)
        name = next(iter(self.q))
        T = tool(0.0, state[f"q/{name}"]) @ np.diag([1.0, -1.0, -1.0, 1.0])
        T[2, 3] += 0.4
        return np.asarray(T)

    def _draw(self, camera: Camera, state: Mapping[str, Any]) -> tuple[U8, Any, Any, Any]:
        shape = (camera.height, camera.width)
        rgb = np.full((*shape, 3), 60, np.uint8)
        ids, depth = np.zeros(shape, np.uint16), np.full(shape, 1.2, np.float32)
        T = self._camera_pose(camera, state)
        name = next(iter(self.q))
        for point, number, color in (
            (tool(0.0, state[f"q/{name}"])[:3, 3], ARM_ID, (0, 0, 200)),
            (state["cube"], CUBE_ID, (220, 20, 20)),
        ):
            pixel, distance = project(camera, T, point)
            if inside(camera, pixel)[0]:
                u, v = (int(value) for value in pixel[0])
                part = (slice(max(v - 3, 0), v + 4), slice(max(u - 3, 0), u + 4))
                rgb[part], ids[part], depth[part] = color, number, distance[0]
        mark = np.frombuffer(np.float32(state[f"q/{name}"][0]).tobytes(), np.uint8)
        rgb[0, 0], rgb[0, 1, 0] = mark[:3], mark[3]
        return rgb, depth, ids, np.where(ids == CUBE_ID, 30, np.where(ids == ARM_ID, 31, 0)).astype(np.uint16)


class ListArm(ToyArm):
    """Has nothing but what every workflow must have: its states are plain mappings of columns."""

    def generate_seq(self) -> list[Any]:
        return [
            {"observation.state": state["q/"], "action": state["command/"], "cube": tuple(state["cube"]), **state}
            for state in super().generate_seq()
        ]

    describe_scene = Workflow.describe_scene
    describe_seq = Workflow.describe_seq
    observe = Workflow.observe


class MemoryArm(ToyArm):
    """Carries its layout with the plan, instead of drawing it again."""

    def dump_plan_info(self) -> bytes:
        return pack({"sequence": self.planned, "cube": self.planned[0]["cube"]})

    def dedump_plan_info(self, ser_obj: bytes) -> PlanValue:
        self.calls.append("dedump_plan_info")
        return unpack(ser_obj)

    def randomization_from_mem(self, data: PlanValue) -> bool:
        self.calls.append("randomization_from_mem")
        self.cube = data["cube"]
        return True


class FluidArm(ToyArm):
    """Plans and looks in one pass, by the name that the older configurations use."""

    def plan_with_render(self) -> int:
        self.calls.append("plan_with_render")
        self.planned = ToyArm.generate_seq(self)
        return self.seq_replay(self.planned) if self.planned else 0


class PickleArm(ToyArm):
    def dump_plan_info(self) -> bytes:
        import pickle

        return pickle.dumps(self.planned)


def task_file(folder: Path, **task: Any) -> Path:
    """A task file with one task called `lift`, and a second one called `idle`."""
    path = folder / "tasks.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"tasks": [{"name": "lift", **task}, {"name": "idle", "length": 3}]}))
    return path
