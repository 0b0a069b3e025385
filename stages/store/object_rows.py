"""Poses of an episode's objects, frame by frame, and the boxes around them: a table beside the dataset's own.

Which objects there are may differ from episode to episode, which columns of a dataset may not. So the table has a row
for each frame and object:

    frame_index, timestamp          as in the data files
    object, category, instance_id   its name; its row in the segmentation table, null if it has none
    object_to_env_pose              position x y z (m), quaternion w x y z; env is the world frame
    object_to_robot_pose            the same in the robot's base frame
    size_m                          edges of its 3D box, along the axes of the object's frame and around its origin;
                                    null where the planner does not state it (the note `sizes_m`)
    box2d.<camera>                  u0 v0 u1 v1 along pixel edges, of what can be seen; null where nothing can
    pixels.<camera>                 how many pixels show it

The columns of cameras are there where the renderer made instance ids.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nimbusd.stages.notes import Notes
from nimbusd.stages.store.arm_columns import ROBOT_POSE
from nimbusd.stages.store.frame_labels import boxes
from nimbusd.stages.store.poses import inverse, pose_rows, transforms_of
from nimbusd.stages.types import U16, Observation, Sequence

OBJECTS = "objects.parquet"
OBJECTS_PATH = "objects/chunk-{chunk:03d}/episode_{episode:06d}.parquet"
MEANINGS = {
    "rows": "one for each frame and object",
    "poses": "position x y z (m), quaternion w x y z, of the object's frame in env (the world) and in the robot's base",
    "size_m": "edges of the 3D box along the axes of the object's frame, around its origin; drawers and doors closed",
    "box2d": "u0 v0 u1 v1 along pixel edges, of what can be seen; null where nothing can",
    "pixels": "how many pixels show it",
}


def objects_table(seq: Sequence, obs: Observation, beat: Callable[[], None]) -> pa.Table | None:
    """The table of an episode; None if the sequence knows of no object."""
    names, length = list(seq.T_world_object), len(seq)
    if not names:
        return None
    robot_world = inverse(transforms_of(seq.states[ROBOT_POSE].values))
    poses = [np.asarray(seq.T_world_object[name], np.float64) for name in names]
    ids = {label.name: label for label in obs.labels}
    sizes = Notes(seq.notes).sizes_m
    frames = np.repeat(np.arange(length, dtype=np.int64), len(names))
    # What may be null is a list of any length: Parquet readers do not take nulls among lists of one length.
    columns: dict[str, Any] = {
        "frame_index": pa.array(frames),
        "timestamp": pa.array((frames / seq.fps).astype(np.float32)),
        "object": pa.array(names * length),
        "category": pa.array([ids[name].category if name in ids else None for name in names] * length, pa.string()),
        "instance_id": pa.array(
            [ids[name].instance_id if name in ids else None for name in names] * length, pa.int64()
        ),
        "object_to_env_pose": _numbers(np.stack([pose_rows(T) for T in poses], axis=1)),
        "object_to_robot_pose": _numbers(np.stack([pose_rows(robot_world @ T) for T in poses], axis=1)),
        "size_m": pa.array([sizes.get(name) for name in names] * length, pa.list_(pa.float64())),
    }
    wanted = [ids[name].instance_id if name in ids else -1 for name in names]
    for camera in seq.cameras:
        instance = obs.frames[camera.name].instance
        if instance is not None:
            seen = [_seen(image, wanted) for image in instance]
            beat()
            found = [box for row in seen for box in row]
            columns[f"box2d.{camera.name}"] = pa.array([box[0] for box in found], pa.list_(pa.int64()))
            columns[f"pixels.{camera.name}"] = pa.array([box[1] for box in found], pa.int64())
    return pa.table(columns)


def _seen(instance: U16, wanted: list[int]) -> list[tuple[list[int] | None, int]]:
    """Box and number of pixels of each wanted instance in a frame."""
    found = {box.instance_id: (list(box.box), box.pixels) for box in boxes(instance)}
    return [found.get(number, (None, 0)) for number in wanted]


def _numbers(rows: npt.NDArray[np.float64]) -> pa.Array:
    """(T, objects, n) as an array of T * objects lists."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[-1])
