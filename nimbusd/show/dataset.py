"""From a published dataset to what its summary and its contact sheet show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.show.made_with import made_with_lines
from nimbusd.show.scene_warnings import warning_lines
from nimbusd.show.view import EpisodeView, RoomOutline
from nimbusd.stages.notes import Notes
from nimbusd.stages.store.read import Dataset
from nimbusd.stages.store.stored_tree import StoredEpisode

_STOREY_M = 2.5


@dataclass(frozen=True, slots=True)
class Summary:
    """A dataset in numbers."""

    path: str
    format: str
    fps: float
    episodes: int
    frames: int
    duration_s: float
    cameras: dict[str, tuple[int, int]]
    """Name → (width, height)."""
    features: dict[str, str]
    """Key → dtype and shape."""
    scenes: dict[str, int]
    """Scene → episodes."""
    tasks: dict[str, int]
    """Task → episodes."""
    failures: dict[str, int]
    """Reason → episodes, of a dataset that keeps failed attempts apart."""
    made_with: list[str]
    """A line for each set of packages, with the episodes that were made with it."""
    warnings: list[str]
    """Warnings of loaders about the scenes."""
    shortest_frames: int
    longest_frames: int
    size_bytes: int
    """Of all files in the dataset's folder, hard-linked ones included."""


def summarize(dataset: Dataset) -> Summary:
    """Read the metadata of every episode, and no frame."""
    metas = [dataset.meta(index) for index in range(dataset.episodes)]
    lengths = [int(meta["length"]) for meta in metas]
    cameras = metas[0]["cameras"] if metas else {}
    return Summary(
        path=str(dataset.root),
        format=dataset.format,
        fps=dataset.fps,
        episodes=dataset.episodes,
        frames=dataset.frames,
        duration_s=dataset.frames / dataset.fps,
        cameras={name: (int(camera["width"]), int(camera["height"])) for name, camera in cameras.items()},
        features={key: f"{entry['dtype']} {list(entry['shape'])}" for key, entry in dataset.features.items()},
        scenes=dict(Counter(str(meta["scene"]["id"]) for meta in metas)),
        tasks=dict(Counter(str(meta["task"]) for meta in metas)),
        failures=dict(Counter(reason for meta in metas if (reason := _failure(meta)))),
        made_with=made_with_lines(dataset.environments),
        warnings=warning_lines(meta["scene"] for meta in metas),
        shortest_frames=min(lengths, default=0),
        longest_frames=max(lengths, default=0),
        size_bytes=_size(dataset.root.rglob("*")),
    )


def sample(episodes: int, count: int) -> list[int]:
    """`count` episode indexes spread over all, the first included."""
    step = episodes / max(1, min(count, episodes))
    return [int(number * step) for number in range(min(count, episodes))]


def episode_view(dataset: Dataset, index: int, camera: str) -> EpisodeView:
    """The view of `camera` in episode `index`. Raises StoreError for files that cannot be read."""
    stored: StoredEpisode = dataset.episode(index)
    fx, fy, cx, cy = (float(value) for value in stored.intrinsics[camera])
    path = stored.T_world_camera[camera][:, :3, 3]
    length_m = float(np.linalg.norm(np.diff(path, axis=0), axis=1).sum())
    reason = _failure(stored.meta)
    facts = (
        f"episode {index}",
        *([f"failed: {reason}"] if reason else []),
        str(stored.meta["scene"]["id"]),
        f"{stored.length} frames, {stored.length / dataset.fps:.1f} s",
        *([f"{length_m:.1f} m"] if length_m else []),
        f"camera {camera} {stored.rgb[camera].shape[2]}x{stored.rgb[camera].shape[1]}",
    )
    return EpisodeView(
        title=stored.task,
        subtitle=" · ".join(facts),
        fps=dataset.fps,
        rgb=stored.rgb[camera],
        depth_m=stored.depth_m.get(camera),
        instance=stored.instance.get(camera),
        intrinsics=(fx, fy, cx, cy),
        T_world_camera=stored.T_world_camera[camera],
        categories={label.instance_id: label.category for label in stored.labels},
        rooms=_rooms_below(float(path[:, 2].mean()), stored),
        beside={name: rgb for name, rgb in stored.rgb.items() if name != camera},
    )


def _failure(meta: Mapping[str, Any]) -> str:
    """The reason for which an episode's attempt failed; empty where it did not."""
    result = Notes(meta).result
    return "" if result.success else str(result.reason)


def _rooms_below(camera_z_m: float, stored: StoredEpisode) -> tuple[RoomOutline, ...]:
    """The rooms of the storey that the camera is on."""
    rooms = stored.meta["scene"]["rooms"]
    return tuple(
        RoomOutline(str(room["name"]), np.asarray(room["polygon"], np.float64))
        for room in rooms
        if 0 < camera_z_m - float(room["z_m"]) < _STOREY_M
    )


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
