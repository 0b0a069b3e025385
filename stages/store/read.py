"""Reading published datasets back, whatever their format: `open_dataset(path).episode(i)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.beneath import file_beneath, filled, read_beneath
from nimbusd.stages.store.conventions import counts_to_depth
from nimbusd.stages.store.encode import decode_image, decode_video
from nimbusd.stages.store.formats.a1.columns import ROBOT_POSE, camera_poses
from nimbusd.stages.store.formats.lerobot.content import (
    CAMERA_PREFIX,
    DEPTH_PREFIX,
    IMAGE_PREFIX,
    INSTANCE_PREFIX,
    SEMANTIC_PREFIX,
)
from nimbusd.stages.store.formats.n1.trees import DEPTH_FOLDER, EXTRINSIC, INTRINSIC, POSE, RGB_FOLDER
from nimbusd.stages.store.made_with import ENVIRONMENT, MadeWith, environments_from_json, joined
from nimbusd.stages.store.outcome import FAILED_TREE, SUCCESS_TREE
from nimbusd.stages.store.publish import CONVENTIONS, DATASET, EPISODES_METADATA
from nimbusd.stages.types import F32, F64, U8, U16, Label


@dataclass(frozen=True, slots=True)
class StoredEpisode:
    """One episode as it is on disk; T frames, dictionaries by camera name.

    rgb: (T, H, W, 3) uint8. depth_m: (T, H, W) float32, 0 = no reading. instance, semantic: (T, H, W) uint16.
    states: every other column, (T, …) in the shape that it was planned in. intrinsics: (4,) fx fy cx cy.
    T_world_camera: (T, 4, 4), OpenGL axes.
    meta: the episode's line of metadata; `meta["notes"]` is what the planner noted.
    labels: what instance and semantic ids mean.
    """

    rgb: Mapping[str, U8]
    depth_m: Mapping[str, F32]
    instance: Mapping[str, U16]
    semantic: Mapping[str, U16]
    states: Mapping[str, npt.NDArray[Any]]
    intrinsics: Mapping[str, F64]
    T_world_camera: Mapping[str, F64]
    task: str
    meta: Mapping[str, Any]
    labels: tuple[Label, ...]

    @property
    def length(self) -> int:
        return len(next(iter((self.T_world_camera or self.states).values())))


class Dataset:
    """A published dataset. format: `lerobot-v3.0`, `lerobot-v2.1` or `interndata-n1`. episodes: how many.

    features: as info.json has them, those of more than one axis flat; an episode has them in their own shape.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if (root / "meta/info.json").is_file():
            self.trees = [StoredTree(root)]
            self.format = "lerobot-" + self.trees[0].version
        elif by_outcome := [root / name for name in (SUCCESS_TREE, FAILED_TREE) if (root / name).is_dir()]:
            self.trees = [StoredTree(path) for path in by_outcome]
            self.format = "lerobot-" + self.trees[0].version
        else:
            self.trees = [StoredTree(path.parent.parent) for path in sorted(root.glob("*/*/meta/info.json"))]
            self.format = "interndata-n1"
        if not self.trees:
            raise StoreError(
                f"{root} holds no dataset: neither meta/info.json, nor {SUCCESS_TREE}/meta/info.json, "
                "nor <group>/<scene>/meta/info.json"
            )
        self.fps = self.trees[0].fps
        self.episodes = sum(tree.episodes for tree in self.trees)
        self.frames = sum(tree.frames for tree in self.trees)
        self.features = self.trees[0].features

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera names, in the order of the features."""
        return tuple(self.trees[0].meta[0]["cameras"])

    @cached_property
    def environments(self) -> list[MadeWith]:
        """With which packages which episodes were made; empty for a dataset of before that was recorded.

        Raises StoreError if what is recorded cannot be read.
        """
        return joined([(tree.episodes, tree.environments) for tree in self.trees])

    def meta(self, index: int) -> Mapping[str, Any]:
        """Metadata of episode `index`, without reading its frames."""
        tree, local = self._find(index)
        return tree.meta[local]

    def episode(self, index: int) -> StoredEpisode:
        """Episode `index`, 0 … episodes - 1. Raises IndexError, or StoreError for files that cannot be read."""
        tree, local = self._find(index)
        try:
            return tree.read(local, n1=self.format == "interndata-n1")
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"episode {index} of {self.root} cannot be read: {error}") from error

    def objects(self, index: int) -> pa.Table:
        """Where the objects of episode `index` are, a row for each frame and object, as InternDataA1Writer stores it.

        Raises IndexError, or StoreError where there is no such table.
        """
        tree, local = self._find(index)
        return tree.objects(local)

    def _find(self, index: int) -> tuple[StoredTree, int]:
        if not 0 <= index < self.episodes:
            raise IndexError(f"episode {index}: {self.root} has episodes 0…{self.episodes - 1}")
        for tree in self.trees:
            if index < tree.episodes:
                return tree, index
            index -= tree.episodes
        raise AssertionError("episodes is the sum over the trees")


def open_dataset(path: Path) -> Dataset:
    """The dataset at `path`: its own folder, or a job's output folder. Raises StoreError if there is none."""
    root = path / DATASET if (path / DATASET).is_dir() else path
    return Dataset(root.resolve())  # a later publish moves the link; this reader stays with what it opened


class StoredTree:
    """One folder with meta/, data/ and videos/. Raises StoreError if its info.json is not that of a dataset."""

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            self.info: dict[str, Any] = orjson.loads(read_beneath(root, "meta/info.json"))
            self.version = str(self.info["codebase_version"])
            self.episodes, self.frames = int(self.info["total_episodes"]), int(self.info["total_frames"])
            self.fps = float(self.info["fps"])
            self.features: dict[str, dict[str, Any]] = self.info["features"]
            if not self.fps > 0 or not all({"dtype", "shape"} <= entry.keys() for entry in self.features.values()):
                raise ValueError("its fps is not above 0, or a feature has no dtype or shape")
        except KeyError as error:
            raise StoreError(f"{root}/meta/info.json has no {error}") from error
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise StoreError(f"{root}/meta/info.json cannot be read: {error}") from error

    @cached_property
    def meta(self) -> list[dict[str, Any]]:
        try:
            lines = read_beneath(self.root, EPISODES_METADATA).splitlines()
            return [orjson.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.root / EPISODES_METADATA} cannot be read: {error}") from error

    @cached_property
    def conventions(self) -> dict[str, Any]:
        return orjson.loads(read_beneath(self.root, CONVENTIONS))  # type: ignore[no-any-return]

    @cached_property
    def environments(self) -> list[MadeWith]:
        """As `meta/environment.json` has them; empty where there is none."""
        try:
            content = read_beneath(self.root, ENVIRONMENT)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.root / ENVIRONMENT} cannot be read: {error}") from error
        return environments_from_json(content, str(self.root / ENVIRONMENT))

    @property
    def shapes(self) -> Mapping[str, list[int]]:
        """Of the features that are stored flat; none before schema version 1.2.0."""
        shapes: Mapping[str, list[int]] = self.conventions.get("shapes", {})
        return shapes

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """LeRobot v3.0's metadata of each episode, without statistics."""
        import pyarrow.parquet as pq

        files = self._below("meta/episodes/*/*.parquet")
        tables = [pq.ParquetFile(file) for file in files]
        return [
            row
            for table in tables
            for row in table.read([n for n in table.schema_arrow.names if not n.startswith("stats/")]).to_pylist()
        ]

    def read(self, index: int, *, n1: bool) -> StoredEpisode:
        meta = self.meta[index]
        columns, images = self._columns(index)
        cameras = list(meta["cameras"])
        rgb: dict[str, U8] = {}
        depth_m: dict[str, F32] = {}
        annotations = self._annotations(index)
        for camera in cameras:
            if n1:
                rgb[camera] = np.stack(self._flat_frames(RGB_FOLDER, index))
                depth_m[camera] = counts_to_depth(np.stack(self._flat_frames(DEPTH_FOLDER, index)))
            elif (key := self.image_key(camera)) in images:
                rgb[camera] = images[key]
            else:
                path, first = self.video_place(key, index)
                rgb[camera] = decode_video(path, first, int(meta["length"]), float(self.info["fps"]))
            if DEPTH_PREFIX + camera in annotations:
                depth_m[camera] = counts_to_depth(annotations[DEPTH_PREFIX + camera])
        if n1:
            K = columns[INTRINSIC][0].astype(np.float64)
            intrinsics = {cameras[0]: np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]])}
            poses = {cameras[0]: columns[POSE].astype(np.float64)}
            used = {INTRINSIC, EXTRINSIC, POSE}
        elif "extrinsics" in (names := self.conventions.get("camera_features", {})):
            keys = {c: (names["intrinsics"].format(camera=c), names["extrinsics"].format(camera=c)) for c in cameras}
            intrinsics = {c: columns[key][0].astype(np.float64) for c, (key, _) in keys.items()}
            poses = {c: camera_poses(columns[key], columns[ROBOT_POSE]) for c, (_, key) in keys.items()}
            used = {key for pair in keys.values() for key in pair}
        else:
            prefixes = {camera: CAMERA_PREFIX + camera for camera in cameras}
            intrinsics = {c: columns[f"{prefix}.intrinsics"][0].astype(np.float64) for c, prefix in prefixes.items()}
            poses = {c: columns[f"{prefix}.T_world_camera"].astype(np.float64) for c, prefix in prefixes.items()}
            used = {key for key in columns if key.startswith(CAMERA_PREFIX)}
        labels = self.conventions["segmentation"]["label_tables"][meta["label_table"]]
        return StoredEpisode(
            rgb=rgb,
            depth_m=depth_m,
            instance={c: annotations[INSTANCE_PREFIX + c] for c in cameras if INSTANCE_PREFIX + c in annotations},
            semantic={c: annotations[SEMANTIC_PREFIX + c] for c in cameras if SEMANTIC_PREFIX + c in annotations},
            states={key: rows for key, rows in columns.items() if key not in used},
            intrinsics=intrinsics,
            T_world_camera=poses,
            task=str(meta["task"]),
            meta=meta,
            labels=tuple(Label(**row) for row in labels),
        )

    def objects(self, index: int) -> pa.Table:
        """Poses and boxes of the objects of an episode (see `object_rows`). Raises StoreError where there are none."""
        import pyarrow.parquet as pq

        if "objects_path" not in self.conventions:
            raise StoreError(f"{self.root} has no table of objects; InternDataA1Writer makes one")
        place = {"chunk": index // int(self.info["chunks_size"]), "episode": index}
        path = filled(self.conventions["objects_path"], str(self.root), **place)
        return pq.read_table(file_beneath(self.root, path), partitioning=None)

    def image_key(self, camera: str) -> str:
        """What the feature of a camera's frames is called here."""
        names = self.conventions.get("camera_features")
        return str(names["image"]).format(camera=camera) if names else IMAGE_PREFIX + camera

    def table(self, index: int) -> pa.Table:
        """Rows of the data files that belong to episode `index`."""
        import pyarrow.parquet as pq

        if self.info["codebase_version"] == "v3.0":
            row = self.rows[index]
            place = {"chunk_index": row["data/chunk_index"], "file_index": row["data/file_index"]}
            path = filled(self.info["data_path"], str(self.root), **place)
        else:
            chunk = index // int(self.info["chunks_size"])
            path = filled(self.info["data_path"], str(self.root), episode_chunk=chunk, episode_index=index)
        return pq.read_table(file_beneath(self.root, path), filters=[("episode_index", "=", index)], partitioning=None)

    def _columns(self, index: int) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Number columns and decoded image columns of an episode."""
        table = self.table(index)
        numbers: dict[str, npt.NDArray[Any]] = {}
        images: dict[str, Any] = {}
        for name in table.column_names:
            entry = self.info["features"][name]
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

    def annotations_path(self, index: int) -> Path:
        """Where depth and segmentation of episode `index` are, if there are any."""
        place = {"chunk": index // int(self.info["chunks_size"]), "episode": index}
        return self.root / filled(self.conventions["annotations_path"], str(self.root), **place)

    def video_place(self, key: str, index: int) -> tuple[Path, int]:
        """The video file that holds feature `key` of episode `index`, and the frame where it starts there."""
        if self.info["codebase_version"] == "v3.0":
            row = self.rows[index]
            first = round(row[f"videos/{key}/from_timestamp"] * float(self.info["fps"]))
            place = {name: row[f"videos/{key}/{name}"] for name in ("chunk_index", "file_index")}
            path = filled(self.info["video_path"], str(self.root), video_key=key, **place)
            return file_beneath(self.root, path), first
        chunk = index // int(self.info["chunks_size"])
        path = filled(self.info["video_path"], str(self.root), video_key=key, episode_chunk=chunk, episode_index=index)
        return file_beneath(self.root, path), 0

    def statistics(self) -> Iterator[tuple[str, Mapping[str, Mapping[str, Any]]]]:
        """(where, feature → statistic → value) for the dataset and each of its episodes."""
        import pyarrow.parquet as pq

        if self.info["codebase_version"] != "v3.0":
            for line in read_beneath(self.root, "meta/episodes_stats.jsonl").splitlines():
                row = orjson.loads(line)
                yield f"episode {row['episode_index']}", row["stats"]
            return
        yield "the dataset", orjson.loads(read_beneath(self.root, "meta/stats.json"))
        for file in self._below("meta/episodes/*/*.parquet"):
            for row in pq.read_table(file, partitioning=None).to_pylist():
                stats: dict[str, dict[str, Any]] = {}
                for name, value in row.items():
                    if name.startswith("stats/"):
                        _, feature, statistic = name.split("/")
                        stats.setdefault(feature, {})[statistic] = value
                yield f"episode {row['episode_index']}", stats

    def _flat_frames(self, folder: str, index: int) -> list[Any]:
        paths = self._below(f"videos/chunk-000/{folder}/{index:06d}_*")
        return [decode_image(path.read_bytes()) for path in paths]

    def _below(self, pattern: str) -> list[Path]:
        """The regular files of a pattern, sorted. Raises StoreError or OSError if one is something else."""
        found = sorted(self.root.glob(pattern))
        return [file_beneath(self.root, path.relative_to(self.root).as_posix()) for path in found]
