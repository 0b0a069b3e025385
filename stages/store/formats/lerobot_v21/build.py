"""LeRobot v2.1: one Parquet and one video file per episode, metadata as JSON lines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from nimbusd.stages.base import no_beat
from nimbusd.stages.notes import KEY_FRAMES, SUB_TASKS
from nimbusd.stages.store.columns import INDEX_COLUMNS, index_arrays, parquet_bytes, with_index_columns
from nimbusd.stages.store.durable import to_json, to_json_lines
from nimbusd.stages.store.formats.lerobot.content import DATA
from nimbusd.stages.store.formats.lerobot.flat import FlatFeatures
from nimbusd.stages.store.formats.lerobot.metadata import CHUNK_SIZE, features_json, index_stats, link_annotations
from nimbusd.stages.store.formats.lerobot_v21.modality import MODALITY, modality
from nimbusd.stages.store.publish import (
    Extras,
    Tree,
    link_own_files,
    number,
    robot_type,
    shared_columns,
    tasks_of,
    write_nimbusd_metadata,
)
from nimbusd.stages.store.source_piece import SourcePiece, states_of
from nimbusd.stages.store.stats import Stats

VERSION = "v2.1"
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
_STATISTICS = ("min", "max", "mean", "std", "count")


def build_v21(
    root: Path,
    sources: list[SourcePiece],
    job: Mapping[str, Any],
    extras: Extras = link_own_files,
    beat: Callable[[], None] = no_beat,
    listed: Callable[[str], bool] = lambda key: False,
) -> None:
    """Write the dataset of `sources`, in this order, into the empty folder `root`. beat: called for every file.

    listed: whether a feature of one number is stored as a list of one.
    """
    tree = Tree(root, beat)
    shapes = write_v21(
        tree, sources, chunk_episodes=CHUNK_SIZE, stats_extra=[{} for _ in sources], listed=listed, modality_json=True
    )
    stated = {**link_annotations(tree, sources), "shapes": shapes}
    write_nimbusd_metadata(tree, sources, job, stated | dict(extras(tree, sources)))
    tree.finish()


Content: TypeAlias = tuple[pa.Table, Mapping[str, Stats]]
"""An episode's table of states, and the statistics of its features."""


def content_of(piece: SourcePiece) -> Content:
    """The content that the piece has."""
    return states_of(piece, DATA), piece.stats


def write_v21(
    tree: Tree,
    sources: list[SourcePiece],
    *,
    chunk_episodes: int,
    stats_extra: list[dict[str, Any]],
    content: Callable[[SourcePiece], Content] = content_of,
    whole: Collection[str] = (),
    listed: Callable[[str], bool] = lambda key: False,
    modality_json: bool = False,
) -> dict[str, list[int]]:
    """Write LeRobot's own files: data, videos and its metadata. Returns the shapes of the features it wrote flat.

    stats_extra: for each episode, further keys of its line in `episodes_stats.jsonl`. content: of an episode, where the
    format has its numbers in other frames than the pieces. whole: keys of features that are not written flat.
    listed: whether a feature of one number is written as a list of one. modality_json: for loaders that need it.
    """
    example = shared_columns(sources)
    flat = FlatFeatures(example.columns, whole)
    own = [replace(column, listed=column.shape == (1,) and listed(column.key)) for column in flat.columns]
    columns = [*own, *INDEX_COLUMNS]
    videos = example.record.videos
    tasks = tasks_of(sources)
    stats_rows = []
    first = 0
    for episode, piece in enumerate(sources):
        position = (piece.length, piece.fps, episode, first, tasks[piece.task])
        place: dict[str, Any] = {"episode_chunk": episode // chunk_episodes, "episode_index": episode}
        states, own_stats = content(piece)
        states = flat.table(states, f"piece {piece.piece.folder}: {DATA}")
        table = with_index_columns(states, columns, index_arrays(*position), "Sequence")
        tree.write(DATA_PATH.format(**place), parquet_bytes(table))
        for key in videos:
            tree.link(VIDEO_PATH.format(**place, video_key=key), piece, f"videos/{key}.mp4")
        all_stats = flat.stats(own_stats) | index_stats(*position)
        stats = {key: {name: part[name] for name in _STATISTICS} for key, part in all_stats.items()}
        stats_rows.append({"episode_index": episode, "stats": stats, **stats_extra[episode]})
        first += piece.length
    info = {
        "codebase_version": VERSION,
        "robot_type": robot_type(sources),
        "total_episodes": len(sources),
        "total_frames": first,
        "total_tasks": len(tasks),
        "total_videos": len(videos) * len(sources),
        "total_chunks": -(-len(sources) // chunk_episodes),
        "chunks_size": chunk_episodes,
        "fps": number(example.fps),
        "splits": {"train": f"0:{len(sources)}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if videos else None,
        "features": features_json(columns, videos),
    }
    tree.write("meta/info.json", to_json(info, indent=True))
    if modality_json:
        tree.write(MODALITY, to_json(modality(columns), indent=True))
    tree.write("meta/tasks.jsonl", to_json_lines({"task_index": i, "task": task} for task, i in tasks.items()))
    tree.write("meta/episodes.jsonl", to_json_lines(_episode_row(i, piece) for i, piece in enumerate(sources)))
    tree.write("meta/episodes_stats.jsonl", to_json_lines(stats_rows))
    return flat.shapes


def _episode_row(episode: int, piece: SourcePiece) -> dict[str, Any]:
    """Instructions of parts of the episode and key frames are extra keys, where the planner gave them."""
    notes = piece.notes.values
    extra = {key: notes[key] for key in (SUB_TASKS, KEY_FRAMES) if key in notes}
    return {"episode_index": episode, "tasks": [piece.task], "length": piece.length, **extra}
