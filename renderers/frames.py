"""Shared by renderers of objects: the check that a sequence fits its scene, and the arrays of its frames."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from nimbusd.stages.base import BaseRenderer
from nimbusd.stages.categories import semantic_table
from nimbusd.stages.errors import RenderError
from nimbusd.stages.motion import check_motion, moved_objects
from nimbusd.stages.types import F32, U8, U16, Camera, CameraFrames, Label, Scene, Sequence


def with_motion(renderer: BaseRenderer[Any], seq: Sequence, scene: Scene) -> Sequence:
    """The sequence with no other poses than those of objects that it moves from where the scene has them.

    Raises RenderError where it moves an object that the scene does not have, or what the renderer does not show.
    """
    check_motion(renderer, seq, scene)
    moved = moved_objects(seq, scene)
    if strangers := sorted(set(moved) - {obj.name for obj in scene.objects}):
        raise RenderError(f"the sequence moves {strangers[0]!r}, which scene {scene.name!r} does not have")
    return replace(seq, T_world_object={name: seq.T_world_object[name] for name in moved})


class FrameArrays:
    """The cameras' pictures of `length` frames, filled frame by frame. depth, segmentation: True to keep them."""

    def __init__(self, cameras: Iterable[Camera], length: int, *, depth: bool, segmentation: bool) -> None:
        shape = {camera.name: (length, camera.height, camera.width) for camera in cameras}
        self._rgb = {name: np.empty((*size, 3), np.uint8) for name, size in shape.items()}
        self._depth = {name: np.empty(size, np.float32) for name, size in shape.items()} if depth else {}
        self._ids = {name: np.empty(size, np.uint16) for name, size in shape.items()} if segmentation else {}

    def put(self, camera: str, t: int, rgb: U8, depth_m: F32 | None, instance: U16 | None) -> None:
        """Frame `t` of a camera. rgb: (H, W, 3). depth_m, instance: (H, W), needed where they are kept."""
        self._rgb[camera][t] = rgb
        if self._depth:
            assert depth_m is not None
            self._depth[camera][t] = depth_m
        if self._ids:
            assert instance is not None
            self._ids[camera][t] = instance

    def finish(self, labels: tuple[Label, ...]) -> dict[str, CameraFrames]:
        """Camera name → its frames, with the semantic ids that `labels` give its instances."""
        semantic_of = semantic_table(labels) if self._ids else None
        made: dict[str, CameraFrames] = {}
        for name, rgb in self._rgb.items():
            ids = self._ids.get(name)
            semantic = None if ids is None or semantic_of is None else semantic_of[ids]
            made[name] = CameraFrames(rgb, self._depth.get(name), ids, semantic)
        return made
