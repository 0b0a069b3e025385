"""Parts of a piece that formats share: frames that fit the sequence, states as columns, a workflow's own files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

import numpy.typing as npt

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.columns import Column, feature_column
from nimbusd.stages.types import CameraFrames, Feature, Observation, Sequence, is_for_replay


def checked_frames(seq: Sequence, obs: Observation) -> dict[str, CameraFrames]:
    """Frames by camera in the order of `seq.cameras`. Raises StoreError if any is missing or misshapen."""
    if not len(seq):
        raise StoreError("the sequence has no frames, so there is nothing to store")
    if not seq.task.strip():
        raise StoreError("the sequence has no task text; LeRobot readers need one. Check the planner.")
    frames = {}
    for camera in seq.cameras:
        seen = obs.frames.get(camera.name)
        if seen is None:
            raise StoreError(f"the observation has no frames of camera {camera.name!r}; check the renderer")
        if "/" in camera.name or not camera.name:
            raise StoreError(f"camera name {camera.name!r} cannot be part of a file name; rename the camera")
        expected = (len(seq), camera.height, camera.width)
        for name in ("rgb", "depth_m", "instance", "semantic"):
            pixels = getattr(seen, name)
            if pixels is not None and pixels.shape[:3] != expected:
                raise StoreError(f"camera {camera.name!r}: {name} is {pixels.shape}, the sequence wants {expected}")
        frames[camera.name] = seen
    return frames


def kept_states(seq: Sequence) -> dict[str, Feature]:
    """States that are columns of a dataset: all but those for replay."""
    return {key: feature for key, feature in seq.states.items() if not is_for_replay(key)}


def state_columns(features: dict[str, Feature], length: int) -> tuple[list[Column], dict[str, npt.NDArray[Any]]]:
    """Columns of `features` and their values. Raises StoreError for one that has not `length` rows."""
    columns, values = [], {}
    for key, feature in features.items():
        column, rows = feature_column(key, feature)
        if len(rows) != length:
            raise StoreError(f"feature {key!r} has {len(rows)} rows for {length} frames; check the planner")
        columns.append(column)
        values[key] = rows
    return columns, values


def own_files(obs: Observation) -> Mapping[str, bytes]:
    """The files that a workflow saved itself, by path. Raises StoreError for a path that leads out of the piece."""
    for path in obs.files:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts:
            raise StoreError(f"the workflow saved a file as {path!r}; only paths inside its own folder can be kept")
    return obs.files


def encode_all(encode: Callable[[Any], bytes], frames: Any, threads: int, beat: Callable[[], None]) -> Iterator[bytes]:
    """`encode` of each frame, in order, on `threads` threads (the encoders release the GIL)."""
    with ThreadPoolExecutor(threads) as pool:
        for content in pool.map(encode, frames):
            beat()
            yield content
