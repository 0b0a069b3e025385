"""`seen_px`: how much of each thing the cameras see in a state, by casting rays at what is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nimbusd.stages.store.frame_labels import NEAREST_M, project
from nimbusd.stages.types import F64, I32, BoolArray, Camera
from nimbusd.stages.workflow.sim.layout.layout import Layout
from nimbusd.stages.workflow.sim.mujoco_module import import_mujoco
from nimbusd.stages.workflow.sim.world.bodies import VISIBLE_GROUP
from nimbusd.stages.workflow.sim.world.world import FAR_M, World, build_world

_MOST_RAYS = 1200
"""For each thing and camera."""

_SIGNS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


def seen_px(world: World, qpos: F64, cameras: Mapping[str, tuple[Camera, F64]]) -> dict[str, dict[str, int]]:
    """Camera → object or region → pixels in which it is seen in the state `qpos`, (nq,); what is not seen is left out.

    cameras: name → intrinsics and (4, 4) `T_world_camera`. What stands before it hides it, robots too. Rays go
    through the centres of pixels: all of them where a thing is small, else every few, so that the number of a large
    thing is right within some percent.
    """
    mujoco = import_mujoco()
    data = mujoco.MjData(world.model)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(world.model, data)
    mujoco.mj_comPos(world.model, data)
    shown = world.model.geom_group == VISIBLE_GROUP
    owners = np.array(world.owner)
    things = [entry.name for entry in world.layout.objects] + [region.name for region in world.layout.regions]
    seen: dict[str, dict[str, int]] = {}
    for name, (camera, T) in cameras.items():
        counts = {thing: _pixels(world, data, shown & (owners == thing), camera, T) for thing in things}
        seen[name] = {thing: count for thing, count in counts.items() if count}
    return seen


def seen_at_start(layout: Layout, qpos: F64, T_world_camera: Mapping[str, F64]) -> dict[str, dict[str, int]]:
    """`seen_px` of the first of recorded states, (T, nq), by all cameras. T_world_camera: camera → (T, 4, 4)."""
    cameras = {entry.name: (entry.camera, T_world_camera[entry.name][0]) for entry in layout.cameras}
    return seen_px(build_world(layout), qpos[0], cameras)


def _pixels(world: World, data: Any, geoms: BoolArray, camera: Camera, T: F64) -> int:
    """Pixels in which one of `geoms`, (ngeom,), is what a camera sees."""
    left, top, right, bottom = _rectangle(world, data, geoms, camera, T)
    if right <= left or bottom <= top:
        return 0
    step = max(1, math.ceil(math.sqrt((right - left) * (bottom - top) / _MOST_RAYS)))
    middle = step // 2 + 0.5
    u, v = np.meshgrid(np.arange(left, right, step) + middle, np.arange(top, bottom, step) + middle)
    rays = np.stack([(u - camera.cx) / camera.fx, (camera.cy - v) / camera.fy, np.full(u.shape, -1.0)], axis=-1)
    hit = _hit(world, data, T[:3, 3], rays.reshape(-1, 3) @ T[:3, :3].T)
    return int(np.count_nonzero(geoms[hit[hit >= 0]])) * step**2


def _rectangle(world: World, data: Any, geoms: BoolArray, camera: Camera, T: F64) -> tuple[int, int, int, int]:
    """Least and most pixel column and row in which `geoms` can be: left, top, right, bottom; the last ones excluded."""
    ids = np.flatnonzero(geoms)
    centre, half = world.model.geom_aabb[ids, :3], world.model.geom_aabb[ids, 3:]
    corners = centre[:, None] + _SIGNS * half[:, None]
    turned = np.einsum("gij,gcj->gci", data.geom_xmat[ids].reshape(-1, 3, 3), corners)
    pixels, depths = project(camera, T, (turned + data.geom_xpos[ids][:, None]).reshape(-1, 3))
    if not len(ids) or (depths < NEAREST_M).all():
        return 0, 0, 0, 0
    if (depths < NEAREST_M).any():
        return 0, 0, camera.width, camera.height
    low, high = np.floor(pixels.min(axis=0)), np.ceil(pixels.max(axis=0))
    left, top = np.clip(low, 0, (camera.width, camera.height)).astype(int).tolist()
    right, bottom = np.clip(high, 0, (camera.width, camera.height)).astype(int).tolist()
    return left, top, right, bottom


def _hit(world: World, data: Any, eye: F64, rays: F64) -> I32:
    """(N,) the geoms that rays from `eye`, (N, 3), meet first; -1 for none."""
    groups = np.zeros(6, np.uint8)
    groups[VISIBLE_GROUP] = 1
    geoms, distances = np.full(len(rays), -1, np.int32), np.empty(len(rays))
    import_mujoco().mj_multiRay(
        world.model, data, eye, rays.ravel(), groups, True, -1, geoms, distances, None, len(rays), FAR_M
    )
    return geoms
