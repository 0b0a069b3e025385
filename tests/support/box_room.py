"""A furnished room of boxes, seen by exact ray casting: pictures whose right answer is known."""

from __future__ import annotations

import math

import numpy as np

from nimbusd.show.view import EpisodeView, RoomOutline
from nimbusd.stages.types import F32, F64, U8, U16

ROOM_M = (6.0, 4.0, 2.6)
CAMERA_HEIGHT_M = 1.1
CATEGORIES = {
    1: "floor",
    2: "ceiling",
    3: "wall",
    4: "wall",
    5: "wall",
    6: "wall",
    7: "table",
    8: "sofa",
    9: "wardrobe",
}
# Lowest and highest corner of each piece of furniture, by instance id.
FURNITURE = {
    7: ((2.6, 1.6, 0.0), (3.6, 2.4, 0.75)),
    8: ((0.1, 0.1, 0.0), (2.0, 0.9, 0.8)),
    9: ((5.3, 2.6, 0.0), (5.9, 3.9, 2.0)),
}
INTRINSICS = (130.0, 130.0, 80.0, 60.0)
SIZE = (160, 120)


def pose(x: float, y: float, yaw_rad: float) -> F64:
    """T_world_camera of a level camera that looks along `yaw_rad`, OpenGL axes."""
    forward = np.array([math.cos(yaw_rad), math.sin(yaw_rad), 0.0])
    right = np.array([math.sin(yaw_rad), -math.cos(yaw_rad), 0.0])
    T = np.eye(4)
    T[:3, :3] = np.stack([right, [0.0, 0.0, 1.0], -forward], axis=1)
    T[:3, 3] = (x, y, CAMERA_HEIGHT_M)
    return T


def poses(count: int) -> F64:
    """(T, 4, 4): once round the table, looking ahead and inwards."""
    angles = np.linspace(-2.4, 1.9, count)
    return np.stack([pose(3.1 + 1.7 * math.cos(a), 2.0 + 1.25 * math.sin(a), a + 2.3) for a in angles])


def look(T_world_camera: F64) -> tuple[U8, F32, U16]:
    """rgb, depth_m and instance of one view."""
    fx, fy, cx, cy = INTRINSICS
    v, u = np.mgrid[0 : SIZE[1], 0 : SIZE[0]] + 0.5
    rays = np.stack([(u - cx) / fx, -(v - cy) / fy, -np.ones_like(u)], axis=-1) @ T_world_camera[:3, :3].T
    rays = np.where(np.abs(rays) < 1e-12, 1e-12, rays)
    eye = T_world_camera[:3, 3]
    # The room from inside: the nearest of the far faces.
    walls = (np.where(rays > 0, np.array(ROOM_M), 0.0) - eye) / rays
    depth = walls.min(axis=-1)
    axis = walls.argmin(axis=-1)
    ahead = np.take_along_axis(rays, axis[..., None], axis=-1)[..., 0] > 0
    instance = np.choose(axis, [np.where(ahead, 3, 4), np.where(ahead, 5, 6), np.where(ahead, 2, 1)])
    for number, (low, high) in FURNITURE.items():
        one, other = (np.array(low) - eye) / rays, (np.array(high) - eye) / rays
        enter, leave = np.minimum(one, other).max(axis=-1), np.maximum(one, other).min(axis=-1)
        hit = (enter < leave) & (enter > 0) & (enter < depth)
        depth, instance = np.where(hit, enter, depth), np.where(hit, number, instance)
    tint = np.array([(0.8, 0.75 - 0.04 * n, 0.5 + 0.04 * n) for n in range(10)])[instance]
    rgb = np.clip(tint / (0.6 + 0.25 * depth[..., None]) * 255, 0, 255)
    return rgb.astype(np.uint8), depth.astype(np.float32), instance.astype(np.uint16)


def view(count: int = 12) -> EpisodeView:
    """An episode in the room."""
    T = poses(count)
    frames = [look(each) for each in T]
    return EpisodeView(
        title="Walk round the table to the wardrobe.",
        subtitle=f"box_room · {count} frames",
        fps=5.0,
        rgb=np.stack([frame[0] for frame in frames]),
        depth_m=np.stack([frame[1] for frame in frames]),
        instance=np.stack([frame[2] for frame in frames]),
        intrinsics=INTRINSICS,
        T_world_camera=T,
        categories=CATEGORIES,
        rooms=(RoomOutline("living_room", np.array([(0.0, 0.0), (6.0, 0.0), (6.0, 4.0), (0.0, 4.0)])),),
    )
