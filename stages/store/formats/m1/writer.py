"""`InternDataM1Writer`: manipulation episodes with planning trace, labels per frame, and questions about them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nimbusd.stages.store.formats.interndata import InternDataArgs, InternDataWriter


class InternDataM1Args(InternDataArgs):
    """Arguments of InternDataM1Writer."""

    names: Literal["lerobot", "release"] = Field(
        default="lerobot",
        description="Names of features: LeRobot's usual ones, or the release's (`state.joints`, `video.base_view` …).",
    )
    cameras: dict[str, str] = Field(
        default_factory=dict,
        description="Camera's name in the sequence → its name in the dataset; others keep theirs, or with "
        "`names: release` are called as there.",
    )
    vqa: bool = Field(default=True, description="Ask questions about the frames.")
    jpeg_quality: int = Field(default=95, ge=1, le=100, description="Quality of the questions' images.")


class InternDataM1Writer(InternDataWriter[InternDataM1Args]):
    """Stores what a robot did with its labels. Safe to call from several threads."""

    version = "1.2.0"
    args_model = InternDataM1Args
    kind = "m1"
