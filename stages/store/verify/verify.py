"""Checking a dataset on disk: checksums, counts, continuity, times, videos, statistics, motion."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.beneath import open_beneath, read_beneath
from nimbusd.stages.store.columns import IMAGE
from nimbusd.stages.store.conventions import SCHEMA_VERSION
from nimbusd.stages.store.encode import video_times
from nimbusd.stages.store.formats.n1.trees import DEPTH_FOLDER, RGB_FOLDER, mounting_fault
from nimbusd.stages.store.made_with import ENVIRONMENT, packages_hash
from nimbusd.stages.store.piece import piece_faults
from nimbusd.stages.store.publish import CHECKSUMS, CONVENTIONS, DATASET, EPISODES_METADATA, checksums_text
from nimbusd.stages.store.read import Dataset, StoredTree, open_dataset
from nimbusd.stages.store.verify.motion import motion
from nimbusd.stages.types import Piece

TOLERANCE_S = 1e-4
"""How far a frame's time may be from frame_index / fps: LeRobot's own tolerance."""


def verify_dataset(output: Path, pieces: Iterable[Piece] | None = None) -> list[str]:
    """All that is wrong with the dataset at `output` (a job's output folder or a dataset), one sentence each.

    pieces: the committed ones in order; then also their files are checked, and that the dataset holds just them.
    """
    faults: list[str] = []
    pieces = None if pieces is None else list(pieces)
    for piece in pieces or ():
        faults += piece_faults(output, piece, deep=True)
    if pieces == [] and not (output / DATASET).exists():
        return faults
    try:
        dataset = open_dataset(output)
    except StoreError as error:
        return [*faults, str(error)]
    if pieces is not None:
        faults += _membership(dataset, pieces)
    for tree in dataset.trees:
        for check in (
            _checksums,
            _data,
            _shapes,
            _videos,
            _statistics,
            _metadata,
            _environment,
            _n1,
            _annotations,
            motion,
        ):
            faults += _guarded(check, tree)
    return faults


def _membership(dataset: Dataset, pieces: list[Piece]) -> list[str]:
    """Faults where the dataset's episodes are not exactly `pieces`."""
    try:
        found = {str(row["piece"]): int(row["length"]) for tree in dataset.trees for row in tree.meta}
    except (StoreError, KeyError, ValueError) as error:
        return [f"{dataset.root}: its episodes cannot be compared to the committed ones: {error}"]
    wanted = {piece.folder: piece.length for piece in pieces}
    faults = [f"{dataset.root}: committed piece {name} is missing" for name in sorted(wanted.keys() - found.keys())]
    faults += [f"{dataset.root}: piece {name} is not committed" for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        if wanted[name] != found[name]:
            faults.append(f"{dataset.root}: {name} has {found[name]} frames, {wanted[name]} were committed")
    return faults


def _guarded(check: Callable[[StoredTree], Iterator[str]], tree: StoredTree) -> list[str]:
    """The faults that `check` finds; a file too damaged to look into is a fault as well."""
    faults = []
    try:
        for fault in check(tree):
            faults.append(f"{tree.root}: {fault}")  # noqa: PERF401 - those found before an error count too
    except (OSError, ValueError, KeyError, IndexError, TypeError, StoreError, pa.ArrowException) as error:
        faults.append(f"{tree.root}: {check.__name__.strip('_')} cannot be checked: {type(error).__name__}: {error}")
    return faults


def _checksums(tree: StoredTree) -> Iterator[str]:
    content = read_beneath(tree.root, CHECKSUMS)
    rows: dict[str, tuple[int, str]] = orjson.loads(content)["files"]
    if content != checksums_text(rows):
        yield f"{CHECKSUMS} was changed after it was written"
    present = {path.relative_to(tree.root).as_posix() for path in tree.root.rglob("*") if not path.is_dir()}
    for path in sorted(present - rows.keys() - {CHECKSUMS}):
        yield f"{path} does not belong to the dataset"
    for path, (size, sha256) in rows.items():
        if path not in present:
            yield f"{path[:200]!r} is missing" if not path.isprintable() else f"{path} is missing"
            continue
        try:
            file = os.fdopen(open_beneath(tree.root, path), "rb")
        except OSError as error:
            yield f"{path} is reached by a link or cannot be read ({error.strerror})"
            continue
        with file:
            if (actual := os.fstat(file.fileno()).st_size) != size:
                yield f"{path} has {actual} bytes instead of {size}"
            elif hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                yield f"the content of {path} differs from its SHA-256"


def _data(tree: StoredTree) -> Iterator[str]:
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


def _shapes(tree: StoredTree) -> Iterator[str]:
    """Features that are stored flat, and hold as many numbers as the shape that is said to be theirs."""
    for key, shape in tree.shapes.items():
        entry = tree.info["features"].get(key)
        if entry is None:
            yield f"{CONVENTIONS} has a shape of {key}, which is no feature"
        elif entry["shape"] != [math.prod(shape)]:
            yield f"{CONVENTIONS} says that {key} is {shape}, but info.json has {entry['shape']}"


def _finite(column: pa.ChunkedArray) -> bool:
    array = column.combine_chunks()
    if array.null_count:
        return False
    while hasattr(array, "flatten") and pa.types.is_nested(array.type):
        array = array.flatten()
        if array.null_count:
            return False
    return not pa.types.is_floating(array.type) or bool(np.isfinite(array.to_numpy()).all())


def _videos(tree: StoredTree) -> Iterator[str]:
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


def _statistics(tree: StoredTree) -> Iterator[str]:
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


def _metadata(tree: StoredTree) -> Iterator[str]:
    if len(tree.meta) != tree.episodes:
        yield f"{EPISODES_METADATA} has {len(tree.meta)} lines for {tree.episodes} episodes"
    seen: set[str] = set()
    for episode, row in enumerate(tree.meta):
        yield from _metadata_row(tree, episode, row)
        if row["episode_id"] in seen:
            yield f"episode {row['episode_id']} is there more than once"
        seen.add(row["episode_id"])


def _metadata_row(tree: StoredTree, episode: int, row: Mapping[str, Any]) -> Iterator[str]:
    if row["episode_index"] != episode:
        yield f"line {episode + 1} of {EPISODES_METADATA} is about episode {row['episode_index']}"
    if str(row["schema_version"]).split(".")[0] != SCHEMA_VERSION.split(".")[0]:
        yield f"episode {episode} has metadata of version {row['schema_version']}, this program reads {SCHEMA_VERSION}"
    if row["label_table"] not in tree.conventions["segmentation"]["label_tables"]:
        yield f"episode {episode}: no label table {row['label_table']}"


def _environment(tree: StoredTree) -> Iterator[str]:
    """Every episode is in one environment, the one that its own metadata name."""
    if not tree.environments:
        return
    by_episode: dict[int, str] = {}
    for one in tree.environments:
        if one.packages and packages_hash(one.packages) != one.hash:
            yield f"{ENVIRONMENT}: the packages of {one.hash[:12]} are not those that this hash is of"
        for first, last in one.episodes:
            if not 0 <= first <= last < tree.episodes:
                yield f"{ENVIRONMENT} names episodes {first} to {last} of {tree.episodes}"
                return
            for episode in range(first, last + 1):
                if episode in by_episode:
                    yield f"{ENVIRONMENT}: episode {episode} is in two environments"
                by_episode[episode] = one.hash
    for episode, row in enumerate(tree.meta):
        own = str((row["run"].get("environment") or {}).get("hash", ""))
        if episode not in by_episode:
            yield f"{ENVIRONMENT}: episode {episode} is in no environment"
        elif by_episode[episode] != own:
            yield f"{ENVIRONMENT}: episode {episode} is in {by_episode[episode][:12]!r}, its metadata say {own[:12]!r}"


def _n1(tree: StoredTree) -> Iterator[str]:
    """InternData-N1: frames of all episodes in flat folders, found by `image_index`, and the camera's mounting."""
    total = int(tree.info["total_frames"])
    for folder in (RGB_FOLDER, DEPTH_FOLDER):
        path = tree.root / "videos/chunk-000" / folder
        if path.is_dir() and (count := len(list(path.iterdir()))) != total:
            yield f"{folder} has {count} images for {total} frames"
    if not (tree.root / "videos/chunk-000" / RGB_FOLDER).is_dir():
        return
    first = 0
    for line in read_beneath(tree.root, "meta/episodes_stats.jsonl").splitlines():
        row = orjson.loads(line)
        length = int(tree.meta[row["episode_index"]]["length"])
        if row["image_index"] != {"min": first, "max": first + length - 1}:
            yield f"episode {row['episode_index']}: image_index {row['image_index']} does not start at {first}"
        first += length
    for episode, meta in enumerate(tree.meta):
        if fault := mounting_fault(str(tree.conventions["schema_version"]), tree.table(episode), meta):
            yield f"episode {episode}: {fault}"


def _annotations(tree: StoredTree) -> Iterator[str]:
    import pyarrow.parquet as pq

    for episode in range(tree.episodes):
        path = tree.annotations_path(episode)
        if path.is_file():
            rows, length = pq.ParquetFile(path).metadata.num_rows, int(tree.meta[episode]["length"])
            if rows != length:
                yield f"{path.relative_to(tree.root)} has {rows} rows for {length} frames"
