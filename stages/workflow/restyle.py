"""A recorded demonstration under another style: other lamps, other surfaces, other views of the same motion."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from nimbusd.stages.store.a1_columns import ROBOT_POSE, arm_prefixes
from nimbusd.stages.store.poses import inverse, transforms_of
from nimbusd.stages.types import F64, Sequence
from nimbusd.stages.workflow.sim import Layout

Style = Literal["view", "material", "light"]
STYLES: tuple[Style, ...] = get_args(Style)


def restyled(layout: Layout, other: Layout, styles: Collection[Style]) -> Layout:
    """`layout` with the looks of `other`, another draw of the same task: nothing that moves or collides changes.

    view: cameras, of those that both have. material: table, floor and walls; objects keep theirs, as instructions may
    name their colours. light: lamps and sky.
    """
    if "view" in styles:
        drawn = {camera.name: camera for camera in other.cameras}
        layout = replace(layout, cameras=tuple(drawn.get(camera.name, camera) for camera in layout.cameras))
    if "material" in styles:
        table = replace(layout.table, surface=other.table.surface)
        layout = replace(layout, table=table, background=dict(other.background))
    if "light" in styles:
        layout = replace(layout, lights=other.lights, sky=other.sky)
    return layout


def seen_from(seq: Sequence, layout: Layout) -> Sequence:
    """`seq` with the cameras of `layout`. Mounted ones ride on the flange of their arm as it was recorded."""
    poses = {camera.name: _mount(seq, camera.mount) @ camera.pose.matrix() for camera in layout.cameras}
    robot_world = inverse(transforms_of(seq.states[ROBOT_POSE].values))
    return replace(
        seq,
        cameras=tuple(camera.camera for camera in layout.cameras),
        T_world_camera=poses,
        T_base_camera={name: robot_world[0] @ T[0] for name, T in poses.items()},
    )


def _mount(seq: Sequence, arm: str) -> F64:
    """(T, 4, 4) T_world_mount: of the arm's flange, or the world itself for an empty name."""
    if not arm:
        return np.tile(np.eye(4), (len(seq), 1, 1))
    prefixes = arm_prefixes(seq.states)
    prefix = "" if prefixes == [""] else f"{arm}_"
    robot = transforms_of(seq.states[ROBOT_POSE].values)
    return np.asarray(robot @ transforms_of(seq.states[f"states.{prefix}ee_to_robot_pose"].values))
