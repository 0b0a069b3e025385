"""`InternDataA1Writer`: manipulation episodes with InternData-A1's feature names, as LeRobot v2.1 or v3.0."""

from __future__ import annotations

from pydantic import Field, field_validator

from nimbusd.stages.store.formats.interndata import InternDataArgs, InternDataWriter
from nimbusd.stages.types import Sequence

CAMERA_NAMES = {"front": "head", "wrist": "hand", "wrist_left": "hand_left", "wrist_right": "hand_right"}
RELEASE_ROBOTS = {"franka": "Franka"}
"""Robots that the release has by another name → that name."""


class InternDataA1Args(InternDataArgs):
    """Arguments of InternDataA1Writer."""

    cameras: dict[str, str] = Field(
        default_factory=lambda: dict(CAMERA_NAMES),
        description="Camera's name in the sequence → its name in the dataset; others keep theirs.",
    )

    @field_validator("cameras")
    @classmethod
    def _one_name_each(cls, cameras: dict[str, str]) -> dict[str, str]:
        if twice := sorted({name for name in cameras.values() if list(cameras.values()).count(name) > 1}):
            raise ValueError(f"two cameras cannot both be called '{twice[0]}'")
        return cameras

    def robot(self, seq: Sequence) -> str:
        called = super().robot(seq)
        return called if self.robot_type else RELEASE_ROBOTS.get(called, called)


class InternDataA1Writer(InternDataWriter[InternDataA1Args]):
    """Stores what a robot did as InternData-A1. Safe to call from several threads."""

    version = "1.1.0"
    args_model = InternDataA1Args
    kind = "a1"
