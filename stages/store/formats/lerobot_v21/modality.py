"""`meta/modality.json`: what GR00T's loaders, and InternVLA-M1's, which follow them, need to know beyond LeRobot v2.1.

    state, action   key → where its numbers are: `original_key`, a column, and `start`, `end` in it (Python's slices).
                    `absolute` is false for differences.
    video           key → `original_key`, the feature of its frames
    annotation      `human.action.task_description` → `task_index`

`observation.state` and `action` are taken apart by the names of their numbers (`joint_0` … `joint_6` are `joint`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from nimbusd.stages.store.columns import Column

MODALITY = "meta/modality.json"
WHOLE = {"observation.state": "state", "action": "action"}
"""Vectors of everything → modality."""
PREFIXES = (
    ("states.", "state", ""),
    ("state.", "state", ""),
    ("observation.joint.", "state", "joint."),
    ("actions.", "action", ""),
    ("action.", "action", ""),
    ("master_actions.", "action", "master."),
)
"""Start of a column's name → modality, and what takes its place."""


def modality(columns: Iterable[Column]) -> dict[str, dict[str, Any]]:
    """Content of the file for a dataset's columns, all of one axis."""
    content: dict[str, dict[str, Any]] = {"state": {}, "action": {}, "video": {}}
    for column in columns:
        if column.dtype == "video":
            content["video"][column.key.rpartition(".")[2]] = {"original_key": column.key}
        elif column.key in WHOLE:
            content[WHOLE[column.key]] |= _parts(column)
        elif found := next((entry for entry in PREFIXES if column.key.startswith(entry[0])), None):
            prefix, kind, instead = found
            entry: dict[str, Any] = {"start": 0, "end": column.shape[0], "original_key": column.key}
            if ".delta_" in column.key or "_delta_" in column.key:
                entry["absolute"] = False
            content[kind][instead + column.key.removeprefix(prefix)] = entry
    content["annotation"] = {"human.action.task_description": {"original_key": "task_index"}}
    return content


def _parts(column: Column) -> dict[str, Any]:
    """Runs of numbers of one name, by that name; the whole under the last word of its key where they have no names."""
    names = column.names or (column.key.rpartition(".")[2],) * column.shape[0]
    parts: dict[str, Any] = {}
    start = 0
    for name, run in groupby(re.sub(r"_\d+$", "", name) for name in names):
        end = start + len(list(run))
        key = name if name not in parts else f"{name}_{start}"
        parts[key] = {"start": start, "end": end, "original_key": column.key}
        start = end
    return parts
