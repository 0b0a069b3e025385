"""The values that InternNav's loader (`navdp_lerobot_dataset.py`) reads of a dataset and makes of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from nimbusd.stages.types import F64


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def episodes_of(root: Path) -> Iterator[dict[str, Any]]:
    """Episodes as a loader of `vln_n1/traj_data` picks them: by sorted names and `image_index`, in `root`'s trees."""
    for group in sorted(os.listdir(root)):
        for scene in sorted(os.listdir(root / group)):
            tree = root / group / scene
            rgb = sorted(os.listdir(tree / "videos/chunk-000/observation.images.rgb"))
            depth = sorted(os.listdir(tree / "videos/chunk-000/observation.images.depth"))
            tables = sorted(os.listdir(tree / "data/chunk-000"))
            stats = lines(tree / "meta/episodes_stats.jsonl")
            assert len(tables) == len(stats)
            for file, row in zip(tables, stats, strict=True):
                first, last = row["image_index"]["min"], row["image_index"]["max"]
                table = pq.read_table(tree / "data/chunk-000" / file)
                yield {
                    "scene": scene,
                    "tree": tree,
                    "rgb": [tree / "videos/chunk-000/observation.images.rgb" / name for name in rgb[first : last + 1]],
                    "depth": [tree / "videos/chunk-000/observation.images.depth" / n for n in depth[first : last + 1]],
                    "K": np.array(table["observation.camera_intrinsic"].to_pylist()).reshape(-1, 3, 3),
                    "mounting": np.array(table["observation.camera_extrinsic"].to_pylist()).reshape(-1, 4, 4),
                    "poses": np.array(table["action"].to_pylist()).reshape(-1, 4, 4),
                }


def in_base(poses: F64, mounting: F64, start: int, points: F64) -> F64:
    """(N, 3) points of the world as the robot has them at frame `start`: metres ahead, to the left, and up.

    The loader takes the robot's rotation for the camera's, less the mounting's, and axis 0 of the result for right,
    axis 1 for ahead (its `relative_pose`).
    """
    robot = poses[start][:3, :3] @ np.linalg.inv(mounting[:3, :3])
    right, ahead, up = np.linalg.inv(robot) @ (points - poses[start][:3, 3]).T
    return np.column_stack([ahead, -right, up])


def point_goal(poses: F64, mounting: F64, start: int, target: int) -> F64:
    """(3,) where the robot is at frame `target`, as it has it at `start`."""
    return np.asarray(in_base(poses, mounting, start, poses[target : target + 1, :3, 3])[0])


def pixel_goal(goal: F64, K: F64, mounting: F64) -> tuple[float, float]:
    """(u, v) of a goal on the floor, as the loader finds it (its `process_pixel_goal`); NaN behind the camera.

    It takes the mounting's rotation for the way from the base to axes x right, y up, z ahead, and the floor for 0.8 of
    the camera's height below it.
    """
    x, y, depth = mounting[:3, :3] @ [-goal[1], goal[0], 0.8 * mounting[2, 3]]
    if depth <= 0:
        return float("nan"), float("nan")
    return float(K[0, 2] + x / depth * K[0, 0]), float(K[1, 2] - y / depth * K[1, 1])


PREDICTED = 24
"""Steps of a label (its `predict_size`)."""
DIGIT = 4
"""Frames between two of them (its `pred_digit`)."""
SCALE = 4.0
"""The factor of a step. The policy's diffusion clips what it predicts to -1 … 1 (`clip_sample`)."""


class Sample(NamedTuple):
    """The frames that one item of the loader is made of: where the pixel is shown, the robot's, the goal's."""

    pixel: int
    start: int
    target: int


def draw_sample(length: int, rng: np.random.Generator) -> Sample:
    """Frames as the loader draws them from an episode (its `__getitem__`, without `prior_sample`)."""
    pixel = int(rng.integers(0, length // 2))
    target = int(rng.integers(pixel + 1, length - 1))
    return Sample(pixel, int(rng.integers(pixel, target)), target)


def steps_of(poses: F64, mounting: F64, start: int, target: int) -> F64:
    """(N, 3) x, y and turn of frames `start` … `target` - 1, relative to `start` (its `xyz_to_xyt`).

    The turn is that of the way to the next frame against the way from the first one, not the robot's yaw. The last
    row is the point goal.
    """
    way = in_base(poses, mounting, start, poses[start : target + 1, :3, 3])
    step = np.diff(way, axis=0)[:, :2]
    cross = step[0, 0] * step[:, 1] - step[0, 1] * step[:, 0]
    return np.column_stack([way[:-1, :2], np.arctan2(cross, step @ step[0])])


def label_frames(start: int, target: int) -> npt.NDArray[np.int64]:
    """(25,) frames after `start` that a label is made of; beyond the goal, the last one again and again."""
    return np.clip(np.arange(PREDICTED + 1) * DIGIT, 0, target - start - 1)


def label(poses: F64, mounting: F64, start: int, target: int) -> F64:
    """(24, 3) what a policy is to predict: forward, left and turn from each of `label_frames` to the next, times 4."""
    return np.diff(steps_of(poses, mounting, start, target)[label_frames(start, target)], axis=0) * SCALE
