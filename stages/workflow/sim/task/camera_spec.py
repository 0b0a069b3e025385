"""`CameraSpec`: a camera as a task file states it, and the cameras of a task that states none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field, field_validator, model_validator

from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.models.robots import ArmModel
from nimbusd.stages.workflow.sim.numbers import Angle, Name, Position

STILL_M = ((1.15, 0.0, 0.7), (0.42, 0.0, 0.05))
"""Place and target of a still camera that states none: before the table, facing the robot."""

MOUNTED_M = (0.07, 0.0, 0.02)
"""Place in the flange's frame of a mounted camera that states none. It looks just beyond the tool centre."""

_BEYOND_TOOL_M = (0.02, 0.0, 0.04)
TASK = "task"
"""Word of `frame` for whatever goals and skills name."""


class CameraSpec(ComponentArgs):
    """A camera that stands still, or rides on an arm.

    width, height: pixels.
    hfov_rad: horizontal field of view.
    position_m, target_m: its place and what it looks at, from the robot's base on the table, or in the flange's frame;
        None is a place before the table, and for a mounted one beside the hand, looking at the fingers.
    roll_rad: turn about the line of sight, counter-clockwise as seen from behind the camera.
    mount: empty for a still camera, an arm's name, or `*` for one on every arm.
    mount_limit_m: farthest distance of a mounted camera from the flange.
    frame: what a still camera brings into its picture, by moving without turning: `task` (whatever goals and skills
        name), `$slot` (all objects of it), `$region`; one or a list. None is `task` where neither position_m nor
        target_m is given, else nothing.
    margin: share of width and height that is kept free at each edge.
    nearest_m: least distance to what is framed, along the line of sight.
    """

    name: Name
    width: int = Field(default=320, ge=16, le=4096)
    height: int = Field(default=240, ge=16, le=4096)
    hfov_rad: float = Field(default=1.0, gt=0.1, lt=2.6)
    position_m: Position | None = None
    target_m: Position | None = None
    roll_rad: Angle = 0.0
    mount: str = ""
    mount_limit_m: float = Field(default=0.3, gt=0, le=10)
    frame: tuple[str, ...] | None = None
    margin: float = Field(default=0.1, ge=0, lt=0.5)
    nearest_m: float = Field(default=0.6, ge=0.05, le=10)

    @field_validator("frame", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _frames_when_still(self) -> CameraSpec:
        if self.mount and self.frame:
            raise ValueError("a mounted camera goes where its hand goes: leave 'frame' out, or 'mount'")
        return self

    @property
    def framed(self) -> tuple[str, ...]:
        """Words for what it brings into its picture; empty for nothing."""
        if self.frame is not None:
            return self.frame
        return (TASK,) if not self.mount and self.position_m is None and self.target_m is None else ()

    def mounts(self, arms: Sequence[str]) -> dict[str, str]:
        """Names of the cameras that this stands for → arms that they ride on (empty for a still one)."""
        mounts = list(arms) if self.mount == "*" else [self.mount]
        return {self.name if len(mounts) == 1 else f"{self.name}_{mount}": mount for mount in mounts}

    def eye_and_target(self, arm: ArmModel | None) -> tuple[F64, F64]:
        """The camera's place and what it looks at, (3,) each: from the robot's base on the table, or in `arm`'s flange.

        arm: the one that it rides on; None for a still camera.
        """
        eye, target = STILL_M
        if arm is not None:
            x, y, z = np.add(arm.gripper.tcp_m, _BEYOND_TOOL_M).tolist()
            eye, target = MOUNTED_M, (x, y, z)
        return np.array(self.position_m or eye, np.float64), np.array(self.target_m or target, np.float64)


DEFAULT_CAMERAS = (
    CameraSpec(name="front"),
    CameraSpec(name="wrist", mount="*", hfov_rad=1.2),
    CameraSpec(name="side", position_m=(0.45, -1.0, 0.65), frame=(TASK,)),
)
