"""Metadata that LeRobot's versions share: features, statistics of the default columns, where annotations lie."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from nimbusd.stages.store.columns import Column
from nimbusd.stages.store.formats.lerobot.content import ANNOTATIONS
from nimbusd.stages.store.publish import Tree
from nimbusd.stages.store.source_piece import SourcePiece
from nimbusd.stages.store.stats import Stats, vector_stats

CHUNK_SIZE = 1000
"""`chunks_size` of info.json: files in a folder, of which v2.1 and all that lies beside have one per episode."""
ANNOTATIONS_PATH = "annotations/chunk-{chunk:03d}/episode_{episode:06d}.parquet"


def link_annotations(tree: Tree, sources: list[SourcePiece], chunk_episodes: int = CHUNK_SIZE) -> Mapping[str, Any]:
    """Add depth and segmentation of the episodes to `tree`. Returns what `meta/conventions.json` says about them."""
    for episode, piece in enumerate(sources):
        if piece.has(ANNOTATIONS):
            tree.link(ANNOTATIONS_PATH.format(chunk=episode // chunk_episodes, episode=episode), piece, ANNOTATIONS)
    return {"annotations_path": ANNOTATIONS_PATH}


def index_stats(length: int, fps: float, episode: int, first: int, task: int) -> dict[str, Stats]:
    """Statistics of an episode's five default columns; arguments as of `index_arrays`."""
    frames, zeros = _count_stats(length)
    return {
        "timestamp": {name: value if name == "count" else value / fps for name, value in frames.items()},
        "frame_index": dict(frames),
        "episode_index": _shifted(zeros, episode),
        "index": _shifted(frames, first),
        "task_index": _shifted(zeros, task),
    }


@lru_cache(maxsize=1024)
def _count_stats(length: int) -> tuple[Stats, Stats]:
    """Statistics of 0…length - 1 and of as many zeros, from which those of all index columns follow."""
    return vector_stats(np.arange(length)[:, None]), vector_stats(np.zeros((length, 1)))


def _shifted(stats: Stats, by: int) -> Stats:
    return {name: value if name in ("std", "count") else value + by for name, value in stats.items()}


def features_json(columns: Iterable[Column], videos: Mapping[str, Any]) -> dict[str, Any]:
    """The `features` of info.json."""
    return {
        column.key: column.describe() | ({"info": videos[column.key]} if column.key in videos else {})
        for column in columns
    }
