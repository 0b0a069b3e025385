"""Mistakes in a task's cameras beyond the shape of their keys."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nimbusd.stages.arguments import Mistake, did_you_mean
from nimbusd.stages.plain import Key
from nimbusd.stages.workflow.sim.task.camera_spec import TASK, CameraSpec
from nimbusd.stages.workflow.sim.task.task import ManipTask
from nimbusd.stages.workflow.sim.world.world import ROOM_M

_NEAREST_M = 0.01
"""Least distance of a camera from what it looks at."""


def in_cameras(task: ManipTask) -> Iterator[Mistake]:
    """Arms that do not exist, places behind a wall or far from the flange, no direction, nothing to frame."""
    arms = task.robot_model().arms
    for index, spec in enumerate(task.cameras):
        place: tuple[Key, ...] = ("cameras", index)
        if spec.mount not in ("", "*", *arms):
            hint = did_you_mean(spec.mount, [*arms, "*"])
            yield Mistake((*place, "mount"), f"the robot has no arm '{spec.mount}'; {hint}")
            continue
        yield from _in_direction(task, spec, place)
        yield from _in_frame(task, spec, place)


def _in_direction(task: ManipTask, spec: CameraSpec, place: tuple[Key, ...]) -> Iterator[Mistake]:
    arms = task.robot_model().arms
    for name in arms if spec.mount == "*" else [spec.mount]:
        eye, target = spec.eye_and_target(arms[name] if name else None)
        if np.linalg.norm(eye - target) < _NEAREST_M:
            yield Mistake((*place, "target_m"), f"'{spec.name}' stands in its own target; move one of the two")
            return
        x, y, z = (float(value) for value in eye)
        if not name and (max(abs(x), abs(y)) >= ROOM_M or z <= -task.table.height_m):
            text = f"the room ends {ROOM_M:g} m to each side of the robot, and at the floor; it would look at a wall"
            yield Mistake((*place, "position_m"), f"{text} from {[x, y, z]}")
            return
        away_m = float(np.linalg.norm(eye))
        if name and away_m > spec.mount_limit_m:
            yield Mistake(
                (*place, "position_m"),
                f"'{spec.name}' would ride {away_m:.2f} m off the flange of '{name}': position_m of a mounted camera "
                f"is in the flange's frame; if that is meant, set mount_limit_m, which is {spec.mount_limit_m:g}",
            )
            return


def _in_frame(task: ManipTask, spec: CameraSpec, place: tuple[Key, ...]) -> Iterator[Mistake]:
    things = [*(slot.name for slot in task.slots), *(region.name for region in task.regions)]
    words = [TASK, *(f"${name}" for name in things)]
    for number, word in enumerate(spec.framed):
        if word not in words:
            yield Mistake(
                (*place, "frame", number), f"nothing to frame is called '{word}'; {did_you_mean(word, words)}"
            )
