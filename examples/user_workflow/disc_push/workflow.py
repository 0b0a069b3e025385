"""`DiscPush`: all that a workflow must have, and three optional methods that make its episodes a LeRobot dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from disc_push.table import DISC_RADIUS_M, HALF_TABLE_M, MARK_RADIUS_M, PUSHER_RADIUS_M, Table, command_of, step
from nimbusd.stages import Camera, CameraFrames, Label, Observation, PlanningFailed, Sequence
from nimbusd.stages.workflow import Workflow, register

CAMERA = Camera("top", 128, 128, fx=190.0, fy=190.0, cx=64.0, cy=64.0)
CAMERA_HEIGHT_M = 0.9
LABELS = (Label(1, 1, "mark", "mark"), Label(2, 2, "disc", "disc"), Label(3, 3, "pusher", "robot"))
_COLORS = np.array([[96, 84, 72], [60, 160, 70], [230, 120, 20], [40, 60, 200]], np.uint8)


@register("DiscPush")
class DiscPush(Workflow):
    """world: the job's `simulator` settings, `fps` and `max_step_m`."""

    version = "1.0.0"

    # --- the task ---

    def parse_task_cfgs(self, task_cfg_path: str) -> list[Any]:
        return list(yaml.safe_load(Path(task_cfg_path).read_text(encoding="utf-8"))["tasks"])

    def get_task_name(self) -> str:
        return str(self.task_cfg["name"])

    def reset(self, need_preload: bool) -> None:
        self.fps = float(self.world.get("fps", 20))
        self.table = Table(np.array([-0.25, 0.0]), np.zeros(2), np.array([0.1, 0.0]))
        self.frames: list[np.ndarray[Any, Any]] = []

    def randomization(self, layout_path: str | None = None) -> bool:
        if layout_path is not None:
            layout = json.loads(Path(layout_path).read_text(encoding="utf-8"))
            self.table = Table(*(np.array(layout[name]) for name in ("pusher", "disc", "mark")))
            return True
        disc = self.rng.uniform(-0.15, 0.15, 2)
        angle = self.rng.uniform(0, 2 * np.pi)
        mark = disc + self.rng.uniform(*self.task_cfg["distance_m"]) * np.array([np.cos(angle), np.sin(angle)])
        pusher = self.rng.uniform(-0.25, 0.25, 2)
        self.table = Table(pusher, disc, mark)
        free = np.linalg.norm(pusher - disc) > 0.08
        return bool(free and np.abs(mark).max() < HALF_TABLE_M - MARK_RADIUS_M)

    # --- planning ---

    def generate_seq(self) -> list[Any]:
        """The states on the way; `action` is what was commanded in a state, and the next state is its result."""
        table, sequence = self.table, []
        for _ in range(int(self.task_cfg["max_steps"])):
            command = command_of(table)
            sequence.append({"observation.state": np.concatenate([table.pusher, table.disc]), "action": command})
            if table.reached:
                return sequence
            table = step(table, command, float(self.world.get("max_step_m", 0.008)))
            self.beat()
        raise PlanningFailed("goal_not_reached", f"the disc is not on the mark after {len(sequence)} steps")

    # --- looking ---

    def seq_replay(self, sequence: list[Any]) -> int:
        self.frames = []
        for state in sequence:
            pusher, disc = np.split(state["observation.state"], 2)
            self.frames.append(self.draw(replace(self.table, pusher=pusher, disc=disc)))
            self.beat()
        return len(sequence)

    def draw(self, table: Table) -> np.ndarray[Any, Any]:
        """(H, W) ids of what each pixel's centre shows: 0 table, 1 mark, 2 disc, 3 pusher."""
        u, v = np.meshgrid(np.arange(CAMERA.width) + 0.5, np.arange(CAMERA.height) + 0.5)
        x = (u - CAMERA.cx) / CAMERA.fx * CAMERA_HEIGHT_M
        y = -(v - CAMERA.cy) / CAMERA.fy * CAMERA_HEIGHT_M
        ids = np.zeros(x.shape, np.uint16)
        things = ((table.mark, MARK_RADIUS_M), (table.disc, DISC_RADIUS_M), (table.pusher, PUSHER_RADIUS_M))
        for number, (centre, radius_m) in enumerate(things, start=1):
            ids[np.hypot(x - centre[0], y - centre[1]) < radius_m] = number
        return ids

    def save(self, save_path: str) -> int:
        """The workflow's own format: one JSON file."""
        rows = [{key: np.asarray(value).tolist() for key, value in state.items()} for state in self.planned]
        Path(save_path, "states.json").write_text(json.dumps(rows), encoding="utf-8")
        return len(rows)

    # --- optional: in nimbusd's own types ---

    def describe_layout(self) -> Mapping[str, Any]:
        return {name: getattr(self.table, name).tolist() for name in ("pusher", "disc", "mark")}

    def describe_seq(self, sequence: list[Any]) -> Sequence:
        """The columns are the states' own; what is added is the instruction and the camera."""
        T_world_camera = np.eye(4)
        T_world_camera[2, 3] = CAMERA_HEIGHT_M
        return replace(
            super().describe_seq(sequence),
            task=str(self.task_cfg["instruction"]),
            cameras=(CAMERA,),
            T_world_camera={CAMERA.name: np.tile(T_world_camera, (len(sequence), 1, 1))},
            T_base_camera={CAMERA.name: T_world_camera},
        )

    def observe(self) -> Observation:
        ids = np.stack(self.frames)
        depth_m = np.full(ids.shape, CAMERA_HEIGHT_M, np.float32)
        return Observation({CAMERA.name: CameraFrames(_COLORS[ids], depth_m, ids, ids)}, LABELS)
