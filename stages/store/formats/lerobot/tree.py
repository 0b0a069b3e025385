"""A LeRobot dataset on disk, as far as its versions agree: info.json, tables of numbers, videos, annotations."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.arm_columns import ROBOT_POSE, camera_poses
from nimbusd.stages.store.beneath import file_beneath, filled, read_beneath
from nimbusd.stages.store.conventions import counts_to_depth
from nimbusd.stages.store.encode import decode_image, decode_video
from nimbusd.stages.store.formats.lerobot.content import (
    CAMERA_PREFIX,
    DEPTH_PREFIX,
    IMAGE_PREFIX,
    INSTANCE_PREFIX,
    SEMANTIC_PREFIX,
)
from nimbusd.stages.store.outcome import FAILED_TREE, SUCCESS_TREE
from nimbusd.stages.store.stored_tree import StoredEpisode, StoredTree
from nimbusd.stages.types import F32, F64, U8

INFO = "meta/info.json"


@dataclass(frozen=True, slots=True)
class CameraColumns:
    """Cameras as columns have them. intrinsics: (4,) each. T_world_camera: (T, 4, 4) each. used: those columns."""

    intrinsics: Mapping[str, F64]
    T_world_camera: Mapping[str, F64]
    used: frozenset[str]


def lerobot_folders(root: Path) -> list[Path]:
    """The LeRobot datasets at `root`: itself, or those of successes and of failures; empty for anything else."""
    if (root / INFO).is_file():
        return [root]
    return [root / name for name in (SUCCESS_TREE, FAILED_TREE) if (root / name).is_dir()]


def read_info(root: Path) -> dict[str, Any]:
    """Content of info.json. Raises StoreError for a file that is torn, or that states no version."""
    try:
        info: dict[str, Any] = orjson.loads(read_beneath(root, INFO))
        info["codebase_version"]
    except KeyError as error:
        raise StoreError(f"{root}/{INFO} has no {error}") from error
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{root}/{INFO} cannot be read: {error}") from error
    return info


class LerobotTree(StoredTree):
    """One folder with meta/, data/ and videos/. Raises StoreError if its info.json is not that of a dataset."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.info = read_info(root)
        try:
            self.episodes, self.frames = int(self.info["total_episodes"]), int(self.info["total_frames"])
            self.fps = float(self.info["fps"])
            self.features = self.info["features"]
            if not self.fps > 0 or not all({"dtype", "shape"} <= entry.keys() for entry in self.features.values()):
                raise ValueError("its fps is not above 0, or a feature has no dtype or shape")
        except KeyError as error:
            raise StoreError(f"{root}/{INFO} has no {error}") from error
        except (ValueError, TypeError, AttributeError) as error:
            raise StoreError(f"{root}/{INFO} cannot be read: {error}") from error

    @abstractmethod
    def table(self, index: int) -> pa.Table:
        """Rows of the data files that belong to episode `index`."""

    @abstractmethod
    def video_place(self, key: str, index: int) -> tuple[Path, int]:
        """The video file that holds feature `key` of episode `index`, and the frame where it starts there."""

    @abstractmethod
    def statistics(self) -> Iterator[tuple[str, Mapping[str, Mapping[str, Any]]]]:
        """(where, feature → statistic → value) for the dataset and each of its episodes."""

    @property
    def shapes(self) -> Mapping[str, list[int]]:
        """Of the features that are stored flat; none before schema version 1.2.0."""
        shapes: Mapping[str, list[int]] = self.conventions.get("shapes", {})
        return shapes

    def read(self, index: int) -> StoredEpisode:
        meta = self.meta[index]
        columns, images = self._columns(index)
        annotations = self._annotations(index)
        cameras = list(meta["cameras"])
        rgb, depth_m = {}, {}
        for camera in cameras:
            rgb[camera] = self._rgb(camera, index, images)
            depth = self._depth(camera, index, annotations)
            if depth is not None:
                depth_m[camera] = depth
        placed = self._camera_columns(cameras, columns)
        return StoredEpisode(
            rgb=rgb,
            depth_m=depth_m,
            instance={c: annotations[INSTANCE_PREFIX + c] for c in cameras if INSTANCE_PREFIX + c in annotations},
            semantic={c: annotations[SEMANTIC_PREFIX + c] for c in cameras if SEMANTIC_PREFIX + c in annotations},
            states={key: rows for key, rows in columns.items() if key not in placed.used},
            intrinsics=placed.intrinsics,
            T_world_camera=placed.T_world_camera,
            task=str(meta["task"]),
            meta=meta,
            labels=self.labels(index),
        )

    def objects(self, index: int) -> pa.Table:
        import pyarrow.parquet as pq

        if "objects_path" not in self.conventions:
            return super().objects(index)
        place = {"chunk": index // int(self.info["chunks_size"]), "episode": index}
        path = filled(self.conventions["objects_path"], str(self.root), **place)
        return pq.read_table(file_beneath(self.root, path), partitioning=None)

    def image_key(self, camera: str) -> str:
        """The name of the feature that holds a camera's frames here."""
        names = self.conventions.get("camera_features")
        return str(names["image"]).format(camera=camera) if names else IMAGE_PREFIX + camera

    def annotations_path(self, index: int) -> Path:
        """The file of depth and segmentation of episode `index`, if there is any."""
        place = {"chunk": index // int(self.info["chunks_size"]), "episode": index}
        return self.root / filled(self.conventions["annotations_path"], str(self.root), **place)

    def _rgb(self, camera: str, index: int, images: Mapping[str, Any]) -> U8:
        key = self.image_key(camera)
        if key in images:
            return np.asarray(images[key])
        path, first = self.video_place(key, index)
        return decode_video(path, first, int(self.meta[index]["length"]), self.fps)

    def _depth(self, camera: str, index: int, annotations: Mapping[str, Any]) -> F32 | None:
        counts = annotations.get(DEPTH_PREFIX + camera)
        return None if counts is None else counts_to_depth(counts)

    def _camera_columns(self, cameras: list[str], columns: Mapping[str, npt.NDArray[Any]]) -> CameraColumns:
        """Names are LeRobot's usual ones, or those that the conventions state."""
        if "extrinsics" in (names := self.conventions.get("camera_features", {})):
            keys = {c: (names["intrinsics"].format(camera=c), names["extrinsics"].format(camera=c)) for c in cameras}
            return CameraColumns(
                {c: columns[key][0].astype(np.float64) for c, (key, _) in keys.items()},
                {c: camera_poses(columns[key], columns[ROBOT_POSE]) for c, (_, key) in keys.items()},
                frozenset(key for pair in keys.values() for key in pair),
            )
        prefixes = {camera: CAMERA_PREFIX + camera for camera in cameras}
        return CameraColumns(
            {c: columns[f"{prefix}.intrinsics"][0].astype(np.float64) for c, prefix in prefixes.items()},
            {c: columns[f"{prefix}.T_world_camera"].astype(np.float64) for c, prefix in prefixes.items()},
            frozenset(key for key in columns if key.startswith(CAMERA_PREFIX)),
        )

    def _rows_of(self, index: int, path: str) -> pa.Table:
        """The rows of an episode in a data file."""
        import pyarrow.parquet as pq

        return pq.read_table(file_beneath(self.root, path), filters=[("episode_index", "=", index)], partitioning=None)

    def _columns(self, index: int) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Number columns and decoded image columns of an episode."""
        table = self.table(index)
        numbers: dict[str, npt.NDArray[Any]] = {}
        images: dict[str, Any] = {}
        for name in table.column_names:
            entry = self.features[name]
            rows = table.column(name).to_pylist()
            if entry["dtype"] == "image":
                images[name] = np.stack([decode_image(cell["bytes"]) for cell in rows])
            else:
                shape = self.shapes.get(name, entry["shape"])
                numbers[name] = np.array(rows, entry["dtype"]).reshape(len(rows), *shape)
        return numbers, images

    def _annotations(self, index: int) -> dict[str, Any]:
        import pyarrow.parquet as pq

        path = self.annotations_path(index)
        if not path.exists():
            return {}
        table = pq.read_table(file_beneath(self.root, path.relative_to(self.root).as_posix()), partitioning=None)
        return {
            name: np.stack([decode_image(cell["bytes"]) for cell in table.column(name).to_pylist()])
            for name in table.column_names
            if name not in ("timestamp", "frame_index")
        }

    def _below(self, pattern: str) -> list[Path]:
        """The regular files of a pattern, sorted. Raises StoreError or OSError if one is something else."""
        found = sorted(self.root.glob(pattern))
        return [file_beneath(self.root, path.relative_to(self.root).as_posix()) for path in found]
