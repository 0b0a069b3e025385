"""Content of a piece for the LeRobot formats; v3.0 and v2.1 differ only in how pieces are published.

episode.json         record (see record.py)
data.parquet         features of each frame, without LeRobot's five default columns; PNG frames in image mode
videos/<key>.mp4     in video mode, one per camera
annotations.parquet  depth, instance and semantic ids as 16-bit PNG, where there are any
files/…              what a workflow saved in a format of its own, where it did
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nimbusd.stages.store.columns import Column, image_array, index_arrays, parquet_bytes, schema
from nimbusd.stages.store.content import checked_frames, encode_all, kept_states, own_files, state_columns
from nimbusd.stages.store.conventions import depth_to_counts
from nimbusd.stages.store.encode import encode_png, encode_video, video_facts
from nimbusd.stages.store.media import ContentSettings
from nimbusd.stages.store.piece import PieceDraft
from nimbusd.stages.store.record import RECORD, episode_record, record_bytes
from nimbusd.stages.store.stats import image_stats, vector_stats
from nimbusd.stages.types import U8, U16, CameraFrames, Episode, Feature, Observation, Sequence

DATA = "data.parquet"
ANNOTATIONS = "annotations.parquet"
IMAGE_PREFIX = "observation.images."
CAMERA_PREFIX = "observation.camera."
DEPTH_PREFIX = "observation.depth."
INSTANCE_PREFIX = "observation.instance."
SEMANTIC_PREFIX = "observation.semantic."
FILES = "files"


@dataclass(frozen=True, slots=True)
class FeatureLayout:
    """Names of a format's features. image_key: camera → that of its frames. features: all columns of numbers."""

    image_key: Callable[[str], str]
    features: Callable[[Sequence], dict[str, Feature]]


def write_lerobot(
    draft: PieceDraft,
    seq: Sequence,
    obs: Observation,
    episode: Episode,
    format_name: str,
    settings: ContentSettings,
    beat: Callable[[], None],
    layout: FeatureLayout | None = None,
) -> None:
    """Write the content of an episode's piece. layout: default is LeRobot's usual names.

    Raises StoreError where sequence and observation do not fit.
    """
    layout = layout or LEROBOT_LAYOUT
    frames = checked_frames(seq, obs)
    columns, values = state_columns(layout.features(seq), len(seq))
    stats = {column.key: vector_stats(values[column.key]) for column in columns}
    arrays = [column.array(values[column.key]) for column in columns]
    videos: dict[str, Any] = {}
    for camera, seen in frames.items():
        key = layout.image_key(camera)
        columns.append(image_column(key, settings.media, seen.rgb))
        stats[key] = image_stats(seen.rgb)
        beat()
        if settings.media == "video":
            content = encode_video(seen.rgb, seq.fps, settings.video, beat)
            videos[key] = video_facts(content)
            draft.add(f"videos/{key}.mp4", content)
        else:
            arrays.append(image_array(encode_all(encode_png, seen.rgb, settings.pool_size, beat)))
    table = pa.Table.from_arrays(arrays, schema=schema(columns))
    draft.add(DATA, parquet_bytes(table))
    annotations = annotation_table(frames, seq.fps, settings, beat)
    if annotations is not None:
        draft.add(ANNOTATIONS, parquet_bytes(annotations))
    for path, content in own_files(obs).items():
        draft.add(f"{FILES}/{path}", content)
    record = episode_record(
        seq, obs, episode, format_name=format_name, robot=settings.robot, columns=columns, videos=videos, stats=stats
    )
    draft.add(RECORD, record_bytes(record))
    beat()


def camera_features(seq: Sequence) -> dict[str, Feature]:
    """Per frame and camera: intrinsics (4,) and pose T_world_camera (4, 4)."""
    features = {}
    for camera in seq.cameras:
        row = np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32)
        prefix = CAMERA_PREFIX + camera.name
        features[f"{prefix}.intrinsics"] = Feature(np.tile(row, (len(seq), 1)), ("fx", "fy", "cx", "cy"))
        features[f"{prefix}.T_world_camera"] = Feature(np.asarray(seq.T_world_camera[camera.name]))
    return features


LEROBOT_LAYOUT = FeatureLayout(
    lambda camera: IMAGE_PREFIX + camera,
    lambda seq: {**kept_states(seq), **seq.actions, **camera_features(seq)},
)


def image_column(key: str, dtype: str, rgb: U8) -> Column:
    return Column(key, dtype, tuple(rgb.shape[1:]), ("height", "width", "channels"))


def annotation_table(
    frames: dict[str, CameraFrames], fps: float, settings: ContentSettings, beat: Callable[[], None]
) -> pa.Table | None:
    """Depth and segmentation of an episode, row k = frame k; None where there is neither."""
    contents: dict[str, pa.Array] = {}

    def add(key: str, images: Any) -> None:
        contents[key] = image_array(encode_all(encode_png, images, settings.pool_size, beat))

    for camera, seen in frames.items():
        if settings.depth and seen.depth_m is not None:
            add(DEPTH_PREFIX + camera, (depth_to_counts(image) for image in seen.depth_m))
        if settings.segmentation and seen.instance is not None:
            add(INSTANCE_PREFIX + camera, _uint16(seen.instance))
        if settings.segmentation and seen.semantic is not None:
            add(SEMANTIC_PREFIX + camera, _uint16(seen.semantic))
    if not contents:
        return None
    length = len(next(iter(contents.values())))
    index = index_arrays(length, fps, episode=0, first=0, task=0)
    columns = [Column("timestamp", "float32", (1,)), Column("frame_index", "int64", (1,))]
    arrays = [column.array(index[column.key]) for column in columns]
    columns += [Column(key, "image", (1, 1)) for key in contents]
    return pa.Table.from_arrays([*arrays, *contents.values()], schema=schema(columns))


def _uint16(ids: U16) -> U16:
    return ids.astype(np.uint16, copy=False)
