"""Checks of an InternData-N1 tree: its frames in flat folders, and the camera's mounting."""

from __future__ import annotations

from collections.abc import Iterator

import orjson

from nimbusd.stages.store.beneath import read_beneath
from nimbusd.stages.store.formats.lerobot_v21.tree import EPISODES_STATS
from nimbusd.stages.store.formats.n1.tree import N1Tree
from nimbusd.stages.store.formats.n1.trees import DEPTH_FOLDER, RGB_FOLDER, mounting_fault


def frames_and_mounting(tree: N1Tree) -> Iterator[str]:
    """Frames of all episodes are in flat folders, found by `image_index`; the mounting is that of the metadata."""
    for folder in (RGB_FOLDER, DEPTH_FOLDER):
        count = len(list((tree.root / "videos/chunk-000" / folder).iterdir()))
        if count != tree.frames:
            yield f"{folder} has {count} images for {tree.frames} frames"
    first = 0
    for line in read_beneath(tree.root, EPISODES_STATS).splitlines():
        row = orjson.loads(line)
        length = int(tree.meta[row["episode_index"]]["length"])
        if row["image_index"] != {"min": first, "max": first + length - 1}:
            yield f"episode {row['episode_index']}: image_index {row['image_index']} does not start at {first}"
        first += length
    for episode, meta in enumerate(tree.meta):
        if fault := mounting_fault(str(tree.conventions["schema_version"]), tree.table(episode), meta):
            yield f"episode {episode}: {fault}"
