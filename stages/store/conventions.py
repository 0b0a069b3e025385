"""The meaning of a dataset's numbers, written into it: axes, units, scales and tables of ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nimbusd.stages.categories import CATEGORIES
from nimbusd.stages.types import F32, U16

SCHEMA_VERSION = "1.3.0"
"""Version of nimbusd's own metadata (semver): `meta/conventions.json` and `meta/nimbusd_episodes.jsonl`.

1.1.0: the camera's mounting in `interndata-n1` is in a base with x right, y forward; before, in `base_frame`.
1.2.0: features of more than one axis are rows of numbers, and `shapes` says what they were; before, nested lists.
1.3.0: `arm_columns` says what the columns of arms mean. Before, `gripper.openness` was a share of the width and the
last number of `action` as well, `gripper.pose` was that of the tool centre, and in `master_actions` `gripper.position`
was the set point.
"""

DEPTH_COUNTS_PER_M = 10_000
DEPTH_LIMIT_M = 65_535 / DEPTH_COUNTS_PER_M


def depth_to_counts(depth_m: F32) -> U16:
    """Metres to uint16 counts of 0.1 mm; 0 and what is not finite mean no reading, far things clip at 6.5535 m."""
    counts = np.rint(np.nan_to_num(depth_m, nan=0.0, posinf=0.0, neginf=0.0) * DEPTH_COUNTS_PER_M)
    return np.asarray(np.clip(counts, 0, 65_535), np.uint16)


def counts_to_depth(counts: U16) -> F32:
    """Inverse of `depth_to_counts` up to 0.05 mm: metres, 0 = no reading."""
    return counts.astype(np.float32) / np.float32(DEPTH_COUNTS_PER_M)


def conventions(
    label_tables: Mapping[str, Iterable[Mapping[str, Any]]],
    extra: Mapping[str, Any],
    origins_m: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Content of `meta/conventions.json`.

    label_tables: table name → rows of instance_id, semantic_id, name, category; an episode's metadata says which
    table is its own. extra: what only one format needs to say. origins_m: of scenes that were moved near their origin,
    where the world's origin lies in the frame of the scene's file.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "units": {"length": "m", "angle": "rad", "time": "s"},
        "world_frame": "right-handed, Z up",
        **_moved_scenes(origins_m or {}),
        "base_frame": "x forward, y left, z up, on the floor under the robot",
        "transforms": "T_a_b maps coordinates in frame b to frame a; 4x4, row by row, translation in the last column",
        "arrays": "a feature that `shapes` names is stored as one row of numbers, the last axis of that shape fastest",
        "camera_axes": "OpenGL: x right, y up, z backwards (the camera looks along -z)",
        "intrinsics": "fx, fy, cx, cy in pixels; u right, v down; the centre of the top-left pixel is (0.5, 0.5); "
        "u = cx + fx * x / -z, v = cy - fy * y / -z for a point (x, y, z) in camera axes",
        "depth": {
            "measured": "along the optical axis",
            "encoding": "16-bit PNG",
            "counts_per_m": DEPTH_COUNTS_PER_M,
            "no_reading": 0,
            "clipped_at_m": DEPTH_LIMIT_M,
        },
        "segmentation": {
            "encoding": "16-bit PNG of ids",
            "background": 0,
            "categories": dict(enumerate(CATEGORIES, start=1)),
            "label_tables": {name: list(rows) for name, rows in sorted(label_tables.items())},
        },
        **extra,
    }


def _moved_scenes(origins_m: Mapping[str, Any]) -> dict[str, Any]:
    if not origins_m:
        return {}
    meaning = "file = world + origin, in metres and with Z up, for these scenes; all others were not moved"
    return {"world_origins_m": {"meaning": meaning, "scenes": dict(sorted(origins_m.items()))}}
