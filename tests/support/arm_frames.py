"""Frames of the same recorded states, by MuJoCo's rasterizer and by ray casting."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nimbusd.renderers.mujoco.view import MujocoView, ViewSettings
from nimbusd.renderers.raycast import RayCaster
from nimbusd.renderers.stacked import Shot, Tile
from nimbusd.stages.types import F32, F64, U16, Camera
from nimbusd.stages.workflow.sim import Layout, camera_poses, object_poses, scene_of


@dataclass(frozen=True)
class Pair:
    """One camera in one state. drawn: MuJoCo's picture. depth_m, instance: (H, W), of rays cast into the scene."""

    row: int
    camera: Camera
    drawn: Tile
    depth_m: F32
    instance: U16


def pairs(layout: Layout, qpos: F64, size: tuple[int, int] | None = None, tolerance_m: float = 0.001) -> Iterator[Pair]:
    """Every camera in each of (T, nq) states. size: width and height in pixels, else the cameras' own.

    tolerance_m: how far MuJoCo's robots are simplified (see `ViewSettings`).
    """
    caster, poses, views = RayCaster(scene_of(layout)), object_poses(layout, qpos), camera_poses(layout, qpos)
    caster.prepare(frozenset(poses))
    view = MujocoView(layout, "cpu", ViewSettings(shadows=False, tolerance_m=tolerance_m))
    try:
        for row, state in enumerate(qpos):
            for entry in layout.cameras:
                camera, T = _resized(entry.camera, size), views[entry.name][row]
                drawn = view.render([Shot(row, 0, (0.0, 0.0, 0.0), state, camera, T)])[0]
                yield Pair(row, camera, drawn, *caster.cast(camera, T, {name: p[row] for name, p in poses.items()}))
    finally:
        view.close()


def overlaps(pair: Pair, fewest_pixels: int) -> dict[int, tuple[float, int]]:
    """Instance id → intersection over union of its two masks, and the pixels of the smaller one.

    Of instances with at least `fewest_pixels` in one of them.
    """
    assert pair.drawn.instance is not None
    found = {}
    for number in np.union1d(pair.drawn.instance, pair.instance).tolist():
        a, b = pair.drawn.instance == number, pair.instance == number
        if max(a.sum(), b.sum()) >= fewest_pixels:
            found[number] = (float((a & b).sum() / (a | b).sum()), int(min(a.sum(), b.sum())))
    return found


def _resized(camera: Camera, size: tuple[int, int] | None) -> Camera:
    if size is None:
        return camera
    x, y = size[0] / camera.width, size[1] / camera.height
    return Camera(camera.name, *size, camera.fx * x, camera.fy * y, camera.cx * x, camera.cy * y)
