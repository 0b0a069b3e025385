"""Checks of a LeRobot dataset on disk: counts, continuity, times, videos, statistics, annotations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from nimbusd.stages.store.columns import IMAGE
from nimbusd.stages.store.encode import video_times
from nimbusd.stages.store.formats.lerobot.tree import LerobotTree
from nimbusd.stages.store.publish import CONVENTIONS

TOLERANCE_S = 1e-4
"""The most that a frame's time may be off frame_index / fps: LeRobot's own tolerance."""


def data(tree: LerobotTree) -> Iterator[str]:
    info, fps = tree.info, float(tree.info["fps"])
    first = 0
    for episode in range(tree.episodes):
        table = tree.table(episode)
        length = table.num_rows
        index = {name: table.column(name).to_numpy() for name in ("timestamp", "frame_index", "index", "task_index")}
        if length != int(tree.meta[episode]["length"]):
            yield f"episode {episode} has {length} rows, its metadata says {tree.meta[episode]['length']}"
        if not np.array_equal(index["frame_index"], np.arange(length)):
            yield f"episode {episode}: frame_index is not 0…{length - 1}"
        if not np.array_equal(index["index"], first + np.arange(length)):
            yield f"episode {episode}: index is not {first}…{first + length - 1}"
        if length and np.abs(index["timestamp"] - np.arange(length) / fps).max() > TOLERANCE_S:
            yield f"episode {episode}: timestamp is not frame_index / fps"
        if length and not 0 <= index["task_index"].min() <= index["task_index"].max() < info["total_tasks"]:
            yield f"episode {episode}: task_index outside 0…{info['total_tasks'] - 1}"
        for name in table.column_names:
            if table.schema.field(name).type != IMAGE and not _finite(table.column(name)):
                yield f"episode {episode}: {name} holds values that are missing or not finite"
        if set(table.column_names) != {name for name, entry in info["features"].items() if entry["dtype"] != "video"}:
            yield f"episode {episode}: its columns are not the features of info.json"
        first += length
    if first != info["total_frames"]:
        yield f"{first} frames, info.json says {info['total_frames']}"
    if info["splits"] != {"train": f"0:{tree.episodes}"}:
        yield f"splits {info['splits']} do not cover the {tree.episodes} episodes"


def shapes(tree: LerobotTree) -> Iterator[str]:
    """Features that are stored flat, and hold as many numbers as the shape that is said to be theirs."""
    for key, shape in tree.shapes.items():
        entry = tree.info["features"].get(key)
        if entry is None:
            yield f"{CONVENTIONS} has a shape of {key}, which is no feature"
        elif entry["shape"] != [math.prod(shape)]:
            yield f"{CONVENTIONS} says that {key} is {shape}, but info.json has {entry['shape']}"


def videos(tree: LerobotTree) -> Iterator[str]:
    fps = float(tree.info["fps"])
    for key in (name for name, entry in tree.info["features"].items() if entry["dtype"] == "video"):
        times: dict[Path, list[float]] = {}
        used: dict[Path, int] = {}
        for episode in range(tree.episodes):
            path, first = tree.video_place(key, episode)
            length = int(tree.meta[episode]["length"])
            if path not in times:
                times[path] = video_times(path)
            shown = np.array(times[path][first : first + length])
            used[path] = max(used.get(path, 0), first + length)
            if len(shown) != length:
                yield f"episode {episode}: {path.name} of {key} has {len(shown)} of its {length} frames"
            elif np.abs(shown - (first + np.arange(length)) / fps).max() > TOLERANCE_S:
                yield f"episode {episode}: frames of {key} are not at multiples of 1/{fps:g} s"
        for path, count in used.items():
            if len(times[path]) != count:
                yield f"{path.relative_to(tree.root)} has {len(times[path])} frames, the episodes use {count}"


def statistics(tree: LerobotTree) -> Iterator[str]:
    for place, stats in tree.statistics():
        missing = tree.info["features"].keys() - stats.keys()
        if missing:
            yield f"statistics of {place} miss {', '.join(sorted(missing))}"
        for feature, values in stats.items():
            numbers = {name: np.asarray(value, np.float64) for name, value in values.items()}
            for name, value in numbers.items():
                if not np.isfinite(value).all():
                    yield f"statistics of {place}: {name} of {feature} is not finite"
            if (numbers["min"] > numbers["mean"] + 1e-9).any() or (numbers["mean"] > numbers["max"] + 1e-9).any():
                yield f"statistics of {place}: mean of {feature} is outside min…max"


def annotation_rows(tree: LerobotTree) -> Iterator[str]:
    import pyarrow.parquet as pq

    for episode in range(tree.episodes):
        path = tree.annotations_path(episode)
        if path.is_file():
            rows, length = pq.ParquetFile(path).metadata.num_rows, int(tree.meta[episode]["length"])
            if rows != length:
                yield f"{path.relative_to(tree.root)} has {rows} rows for {length} frames"


def _finite(column: pa.ChunkedArray) -> bool:
    array = column.combine_chunks()
    if array.null_count:
        return False
    while hasattr(array, "flatten") and pa.types.is_nested(array.type):
        array = array.flatten()
        if array.null_count:
            return False
    return not pa.types.is_floating(array.type) or bool(np.isfinite(array.to_numpy()).all())
