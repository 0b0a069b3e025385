"""Stand-ins for what the other stages give a component under test: a furnished room, a short walk, its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.stages.seeds import stream
from nimbusd.stages.types import (
    F32,
    F64,
    I32,
    Camera,
    CameraFrames,
    Episode,
    EpisodeRequest,
    Feature,
    Label,
    Light,
    Material,
    Observation,
    Room,
    Scene,
    SceneObject,
    Sequence,
    Splats,
)

SEED = 20_260_101
"""Of the made-up job."""
JOB = "contract"
SCENE = "room"
_ROOM_M = (6.0, 5.0, 2.6)
_WALL_M = 0.1
_EYE_M = 1.2
_FRAMES = 5
_CAMERA = Camera("front", 64, 48, 40.0, 40.0, 32.0, 24.0)
_SPLAT_STEP_M = 0.12


def scene(variant: int, name: str = SCENE) -> Scene:
    """A closed room of 6 x 5 x 2.6 m with a table, a shelf and a lamp. variant: moves and paints the table.

    It is there as a mesh and as splats, with its floor's polygon in `rooms`.
    """
    x, y, z = _ROOM_M
    w = _WALL_M
    shift = 0.4 * (variant % 3)
    red = (0.7, 0.2 + 0.1 * (variant % 5), 0.1)
    boxes = [
        _box("floor", "floor", 1, (0, 0, -w), (x, y, 0), (0.5, 0.4, 0.3)),
        _box("ceiling", "ceiling", 2, (0, 0, z), (x, y, z + w), (0.9, 0.9, 0.9)),
        _box("wall_west", "wall", 3, (-w, 0, 0), (0, y, z), (0.8, 0.8, 0.7)),
        _box("wall_east", "wall", 4, (x, 0, 0), (x + w, y, z), (0.7, 0.8, 0.8)),
        _box("wall_south", "wall", 5, (0, -w, 0), (x, 0, z), (0.8, 0.7, 0.8)),
        _box("wall_north", "wall", 6, (0, y, 0), (x, y + w, z), (0.7, 0.7, 0.8)),
        _box("table", "table", 7, (4.0 + shift, 3.3, 0), (4.9 + shift, 4.2, 0.75), red, movable=True),
        _box("shelf", "shelf", 8, (0.05, 3.6, 0), (1.2, 4.9, 1.8), (0.3, 0.5, 0.2), movable=True),
    ]
    T_world_lamp = np.eye(4)
    T_world_lamp[:3, 3] = (x / 2, y / 2, z - 0.1)
    polygon = np.array([[0, 0], [x, 0], [x, y], [0, y]], np.float64)
    return Scene(
        name,
        tuple(boxes),
        lights=(Light("lamp", "area", T_world_lamp, 120.0, size_m=(0.5, 0.5)),),
        rooms=(Room("living_room", "living_room", polygon),),
        provenance={"generator": "nimbusd.testing", "variant": variant},
        splats=_splats(boxes),
    )


def sequence(index: int) -> Sequence:
    """A robot that turns on the spot in the middle of the room and looks about. index: where it begins to turn."""
    yaws = 0.7 * index + np.linspace(0.0, 1.0, _FRAMES)
    T_base_camera = _looking(0.0)
    T_base_camera[2, 3] = _EYE_M
    T_world_camera = np.stack([_looking(yaw, (_ROOM_M[0] / 2, _ROOM_M[1] / 2, _EYE_M)) for yaw in yaws])
    rows = np.column_stack([np.full(_FRAMES, 3.0), np.full(_FRAMES, 2.5), yaws]).astype(np.float32)
    turns = np.diff(rows[:, 2:], axis=0, append=rows[-1:, 2:])
    return Sequence(
        fps=5.0,
        task="Look about the room.",
        cameras=(_CAMERA,),
        T_world_camera={_CAMERA.name: T_world_camera},
        T_base_camera={_CAMERA.name: T_base_camera},
        states={"observation.state": Feature(rows, ("x", "y", "yaw"))},
        actions={"action": Feature(turns, ("turn",))},
        notes={"index": index},
    )


def observation(seq: Sequence, index: int) -> Observation:
    """Frames that fit `seq`: a picture that drifts, depth that grows to the right, two instances."""
    rng = stream(SEED, SCENE, index, "render")
    frames = {}
    for camera in seq.cameras:
        shape = (len(seq), camera.height, camera.width)
        ramp = np.linspace(0, 200, camera.width)[None, None, :, None]
        tint = rng.uniform(0, 1, 3)
        drift = 5.0 * np.arange(len(seq))[:, None, None, None]
        rgb = np.broadcast_to(ramp * tint + drift, (*shape, 3)).astype(np.uint8)
        depth = np.broadcast_to(np.linspace(0.5, 4.0, camera.width, dtype=np.float32), shape).copy()
        ids = np.where(depth > 2.0, 7, 1).astype(np.uint16)
        frames[camera.name] = CameraFrames(rgb, depth, ids, ids.copy())
    labels = (Label(1, 1, "floor", "floor"), Label(7, 7, "table", "table"))
    return Observation(frames, labels, {"name": "nimbusd.testing"})


def episode(output: Path, index: int, made_in: Scene, seq: Sequence, *, attempt: int = 1) -> Episode:
    """The episode that a writer is to store, with facts that are the same in every process."""
    request = EpisodeRequest(JOB, made_in.name, index, index, attempt, fingerprint="0" * 64)
    context: dict[str, Any] = {
        "job": {"name": JOB, "seed": SEED, "fingerprint": request.fingerprint},
        "components": {"plan": {"name": "nimbusd.testing", "version": "1.0.0", "args": {}}},
        "node": "tester",
        "slot": "cpu:0",
        "nimbusd": "0",
        "started_unix_s": 1.5,
        "scene_files": {},
    }
    return Episode(request, output, made_in, seq, timings_s={"plan": 0.1}, context=context)


def _box(
    name: str,
    category: str,
    instance_id: int,
    low: tuple[float, float, float],
    high: tuple[float, float, float],
    color: tuple[float, float, float],
    *,
    movable: bool = False,
) -> SceneObject:
    """A box from its lowest to its highest corner, its origin in the middle of its underside."""
    origin = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    corners = np.array([[(low, high)[k >> axis & 1][axis] for axis in range(3)] for k in range(8)]) - origin
    sides = [[0, 2, 3, 1], [4, 5, 7, 6], [0, 1, 5, 4], [2, 6, 7, 3], [0, 4, 6, 2], [1, 3, 7, 5]]
    faces: I32 = np.array([[side[0], side[k], side[k + 1]] for side in sides for k in (1, 2)], np.int32)
    T_world_object = np.eye(4)
    T_world_object[:3, 3] = origin
    vertices: F32 = corners.astype(np.float32)
    index = np.zeros(len(faces), np.int32)
    paint = (Material(name, color),)
    return SceneObject(
        name, category, instance_id, vertices, faces, paint, index, T_world_object=T_world_object, movable=movable
    )


def _looking(yaw_rad: float, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> F64:
    """(4, 4) pose of a level camera in OpenGL axes that looks along `yaw_rad`."""
    c, s = np.cos(yaw_rad), np.sin(yaw_rad)
    T = np.eye(4)
    T[:3, :3] = np.array([[s, 0, -c], [-c, 0, -s], [0, 1, 0]])
    T[:3, 3] = at
    return T


def _splats(boxes: list[SceneObject]) -> Splats:
    """Round Gaussians on every face of the boxes, a hand's width apart."""
    means, colors = [], []
    for box in boxes:
        low, high = box.world_vertices().min(axis=0), box.world_vertices().max(axis=0)
        for axis in range(3):
            across = [a for a in range(3) if a != axis]
            grid = np.meshgrid(*(np.arange(low[a], high[a] + 1e-9, _SPLAT_STEP_M) for a in across), indexing="ij")
            for level in (low[axis], high[axis]):
                points = np.full((grid[0].size, 3), level)
                for a, values in zip(across, grid, strict=True):
                    points[:, a] = values.ravel()
                means.append(points)
                colors.append(np.tile(box.materials[0].base_color, (len(points), 1)))
    centres = np.concatenate(means).astype(np.float32)
    count = len(centres)
    sh = (np.concatenate(colors).astype(np.float32) - 0.5)[:, None, :]
    return Splats(
        means=centres,
        scales=np.full((count, 3), _SPLAT_STEP_M / 2, np.float32),
        quats=np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1)),
        opacities=np.full(count, 0.95, np.float32),
        sh=sh,
    )
