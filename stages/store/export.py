"""Annotations of a dataset in the formats of COCO and KITTI, from what is stored: frames, depth, ids, intrinsics.

Both get, beside their own files,

    depth/<name>.png            16 bit, 10,000 counts per metre along the optical axis, 0 = no reading
    segmentation/<name>.png     16-bit instance ids, 0 = background
    segmentation.json           table id → name, category; one table per randomized scene
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.conventions import DEPTH_COUNTS_PER_M, depth_to_counts
from nimbusd.stages.store.durable import to_json
from nimbusd.stages.store.encode import encode_png
from nimbusd.stages.store.frame_labels import Box, boxes
from nimbusd.stages.store.read import Dataset
from nimbusd.stages.store.stored_tree import StoredEpisode
from nimbusd.stages.types import F64, U8, U16, BoolArray, Label


@dataclass(frozen=True)
class Frame:
    """One frame of one camera. name: unique in the export. labels: instance id → who that is. table: their name."""

    name: str
    episode: int
    camera: str
    index: int
    rgb: U8
    instance: U16
    depth_counts: U16 | None
    intrinsics: F64
    labels: Mapping[int, Label]
    table: str

    def boxes(self) -> list[tuple[Box, Label]]:
        """Every labelled instance that the frame shows, by id."""
        return [(box, self.labels[box.instance_id]) for box in boxes(self.instance) if box.instance_id in self.labels]


def export_coco(dataset: Dataset, out: Path, *, every: int = 1) -> int:
    """Write `out` (must not exist) with images/, annotations.json, and what both formats have. Returns the frames.

    Boxes are [x, y, w, h] along pixel edges, segmentations uncompressed RLE (column by column, background first).
    every: only each n-th frame of an episode. Raises StoreError for a dataset without segmentation.
    """
    folder = _Folder(out, "images")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    categories: dict[int, str] = {}
    for frame in frames(dataset, every):
        file = folder.add(frame)
        height, width = frame.instance.shape
        images.append(
            {
                "id": len(images) + 1,
                "file_name": file,
                "width": width,
                "height": height,
                "episode_index": frame.episode,
                "frame_index": frame.index,
                "camera": frame.camera,
            }
        )
        for box, label in frame.boxes():
            categories[label.semantic_id] = label.category
            u0, v0, u1, v1 = box.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": len(images),
                    "category_id": label.semantic_id,
                    "bbox": [u0, v0, u1 - u0, v1 - v0],
                    "area": box.pixels,
                    "segmentation": {
                        "size": [height, width],
                        "counts": run_lengths(frame.instance == box.instance_id),
                    },
                    "iscrowd": 0,
                    "instance_id": box.instance_id,
                    "name": label.name,
                }
            )
    named = [{"id": number, "name": name, "supercategory": ""} for number, name in sorted(categories.items())]
    content = {"info": _info(dataset), "images": images, "annotations": annotations, "categories": named}
    (out / "annotations.json").write_bytes(to_json(content))
    folder.finish()
    return len(images)


def export_kitti(dataset: Dataset, out: Path, *, every: int = 1) -> int:
    """Write `out` (must not exist) with image_2/, label_2/, calib/, and what both formats have. Returns the frames.

    Labels are 2D: what only a 3D box says has KITTI's values for "unknown". KITTI counts pixels from the centre of the
    top-left one, so that boxes end at the last pixel's index and the principal point is half a pixel less than ours.
    """
    folder = _Folder(out, "image_2")
    for name in ("label_2", "calib"):
        (out / name).mkdir()
    count = 0
    for frame in frames(dataset, every):
        folder.add(frame)
        lines = []
        for box, label in frame.boxes():
            u0, v0, u1, v1 = box.box
            kind = label.category.replace(" ", "_")
            edges = f"{u0:.2f} {v0:.2f} {u1 - 1:.2f} {v1 - 1:.2f}"
            lines.append(f"{kind} -1 -1 -10 {edges} -1 -1 -1 -1000 -1000 -1000 -10\n")
        (out / "label_2" / f"{frame.name}.txt").write_text("".join(lines))
        fx, fy, cx, cy = frame.intrinsics
        P2 = np.array([[fx, 0, cx - 0.5, 0], [0, fy, cy - 0.5, 0], [0, 0, 1, 0]])
        row = " ".join(f"{value:.12e}" for value in P2.ravel())
        (out / "calib" / f"{frame.name}.txt").write_text(f"P2: {row}\n")
        count += 1
    folder.finish()
    return count


def frames(dataset: Dataset, every: int = 1) -> Iterator[Frame]:
    """Each n-th frame of every camera of every episode. Raises StoreError where instance ids are not stored."""
    for number in range(dataset.episodes):
        episode = dataset.episode(number)
        table = {label.instance_id: label for label in episode.labels}
        for camera in episode.rgb:
            if camera not in episode.instance:
                raise StoreError(
                    f"episode {number} of {dataset.root} has no segmentation of camera {camera!r}; switch it on in the "
                    "renderer's arguments and in the writer's"
                )
            for index in range(0, episode.length, every):
                yield _frame(number, episode, camera, index, table)


def _frame(number: int, episode: StoredEpisode, camera: str, index: int, table: Mapping[int, Label]) -> Frame:
    depth = episode.depth_m.get(camera)
    return Frame(
        name=f"{number:06d}_{camera}_{index:06d}",
        episode=number,
        camera=camera,
        index=index,
        rgb=episode.rgb[camera][index],
        instance=episode.instance[camera][index],
        depth_counts=None if depth is None else depth_to_counts(depth[index]),
        intrinsics=episode.intrinsics[camera],
        labels=table,
        table=str(episode.meta["label_table"]),
    )


def run_lengths(mask: BoolArray) -> list[int]:
    """COCO's uncompressed RLE: lengths of runs down the columns, the first of background (perhaps 0 long)."""
    flat = np.concatenate([[False], np.asarray(mask, bool).ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(length) for length in np.diff([0, *changes, mask.size])]


class _Folder:
    """The part that both formats have: the frames themselves, depth and ids, and the table of ids."""

    def __init__(self, out: Path, images: str) -> None:
        if out.exists():
            raise StoreError(f"{out} is there already; name a folder that is not")
        for name in (images, "segmentation"):
            (out / name).mkdir(parents=True)
        self._out = out
        self._images = images
        self._tables: dict[str, dict[int, dict[str, str]]] = {}
        self._table_of: dict[str, str] = {}

    def add(self, frame: Frame) -> str:
        """Write a frame's images. Returns the name of the colour one."""
        file = f"{frame.name}.png"
        (self._out / self._images / file).write_bytes(encode_png(frame.rgb))
        (self._out / "segmentation" / file).write_bytes(encode_png(frame.instance.astype(np.uint16, copy=False)))
        if frame.depth_counts is not None:
            (self._out / "depth").mkdir(exist_ok=True)
            (self._out / "depth" / file).write_bytes(encode_png(frame.depth_counts))
        self._table_of[frame.name] = frame.table
        if frame.table not in self._tables:
            self._tables[frame.table] = {
                number: {"name": label.name, "category": label.category} for number, label in frame.labels.items()
            }
        return file

    def finish(self) -> None:
        content = {
            "background": 0,
            "depth": {"counts_per_m": DEPTH_COUNTS_PER_M, "no_reading": 0, "measured": "along the optical axis"},
            "tables": self._tables,
            "table_of_frame": self._table_of,
        }
        (self._out / "segmentation.json").write_bytes(to_json(content))


def _info(dataset: Dataset) -> dict[str, Any]:
    return {"description": f"{dataset.episodes} episodes of {dataset.root.name}", "version": dataset.format}
