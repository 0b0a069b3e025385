"""`InternDataA1Writer`: manipulation episodes with InternData-A1's feature names, as LeRobot v2.1 or v3.0.

Frames are `images.rgb.<camera>`; each camera has `<camera>_camera_intrinsics` (fx fy cx cy) and
`<camera>_camera_to_robot_extrinsics`; states and actions are those of `a1_columns`. Depth and segmentation, where the
renderer made them, lie beside as in nimbusd's other LeRobot datasets, and so do the objects' poses and boxes
(`object_rows`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from nimbusd.stages.base import BaseWriter
from nimbusd.stages.errors import StoreError
from nimbusd.stages.motion import without_parts
from nimbusd.stages.store.columns import parquet_bytes
from nimbusd.stages.store.formats.a1.columns import (
    POSE_NAMES,
    ROBOT_POSE,
    arm_prefixes,
    camera_pose_rows,
    required_columns,
)
from nimbusd.stages.store.formats.interndata import InternDataArgs, publish_outcomes
from nimbusd.stages.store.formats.lerobot.content import FeatureLayout, kept_states, robot_type_of, write_lerobot
from nimbusd.stages.store.formats.lerobot.v21 import CHUNK_EPISODES
from nimbusd.stages.store.object_rows import MEANINGS as OBJECT_MEANINGS
from nimbusd.stages.store.object_rows import OBJECTS, OBJECTS_PATH, objects_table
from nimbusd.stages.store.outcome import refuse_failures
from nimbusd.stages.store.piece import draft_piece
from nimbusd.stages.store.publish import Tree, link_own_files
from nimbusd.stages.store.record import SourcePiece
from nimbusd.stages.types import Episode, Feature, Observation, Piece, Sequence

IMAGE = "images.rgb.{camera}"
INTRINSICS = "{camera}_camera_intrinsics"
EXTRINSICS = "{camera}_camera_to_robot_extrinsics"
CAMERA_NAMES = {"front": "head", "wrist": "hand", "wrist_left": "hand_left", "wrist_right": "hand_right"}
RELEASE_ROBOTS = {"franka": "Franka"}
"""Robots that the release has by another name → that name."""
_PREFIXES = ("states.", "actions.", "master_actions.")


class InternDataA1Args(InternDataArgs):
    """How manipulation episodes are stored as InternData-A1."""

    cameras: dict[str, str] = Field(
        default_factory=lambda: dict(CAMERA_NAMES),
        description="Camera's name in the sequence → its name in the dataset; others keep theirs.",
    )

    @field_validator("cameras")
    @classmethod
    def _one_name_each(cls, cameras: dict[str, str]) -> dict[str, str]:
        if twice := sorted({name for name in cameras.values() if list(cameras.values()).count(name) > 1}):
            raise ValueError(f"two cameras cannot both be called '{twice[0]}'")
        return cameras


class InternDataA1Writer(BaseWriter[InternDataA1Args]):
    """Stores what a robot did as InternData-A1. Safe to call from several threads."""

    version = "1.1.0"
    args_model = InternDataA1Args

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        args = self.args
        if not args.keep_failures:
            refuse_failures(seq)
        seq, obs = with_camera_names(seq, obs, args.cameras)
        with draft_piece(episode.output, episode.request) as draft:
            robot = args.robot_type or RELEASE_ROBOTS.get(robot_type_of(seq), robot_type_of(seq))
            settings = args.content(robot)
            write_lerobot(draft, seq, obs, episode, self.args.format("a1"), settings, self.beat, A1_LAYOUT)
            objects = objects_table(without_parts(seq, episode.scene), obs, self.beat)
            if objects is not None:
                draft.add(OBJECTS, parquet_bytes(objects))
            piece = draft.commit(len(seq))
        self.beat()
        return piece

    def refused_sizes(self, sizes: dict[str, tuple[int, int]]) -> list[str]:
        return self.args.refused_sizes(sizes)

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        return publish_outcomes(output, pieces, job, self.args, "a1", _extras, final, self.beat)


def with_camera_names(seq: Sequence, obs: Observation, names: Mapping[str, str]) -> tuple[Sequence, Observation]:
    """The same with cameras called as `names` says. Raises StoreError if two would have one name."""
    new = {camera.name: names.get(camera.name, camera.name) for camera in seq.cameras}
    if len(set(new.values())) < len(new):
        twice = next(name for name in new.values() if list(new.values()).count(name) > 1)
        raise StoreError(f"two cameras would both be called {twice!r}; rename them with the writer's `cameras`")
    cameras = tuple(replace(camera, name=new[camera.name]) for camera in seq.cameras)
    T_world_camera = {new[name]: T for name, T in seq.T_world_camera.items()}
    T_base_camera = {new[name]: T for name, T in seq.T_base_camera.items()}
    frames = {new.get(name, name): seen for name, seen in obs.frames.items()}
    renamed = replace(seq, cameras=cameras, T_world_camera=T_world_camera, T_base_camera=T_base_camera)
    return renamed, replace(obs, frames=frames)


def a1_features(seq: Sequence) -> dict[str, Feature]:
    """All columns of an episode. Raises StoreError that names those of InternData-A1 which the sequence lacks."""
    own = {key: feature for key, feature in {**kept_states(seq), **seq.actions}.items() if key.startswith(_PREFIXES)}
    prefixes = arm_prefixes(own)
    missing = [key for key in required_columns(prefixes) if key not in own]
    if not prefixes or missing:
        what = ", ".join(missing) if prefixes else "states.joint.position (or states.left_joint.position …)"
        raise StoreError(
            f"the sequence lacks {what}, which InternData-A1 has; `a1_columns` makes them from an arm's rows"
        )
    robot_pose = own[ROBOT_POSE].values
    features = {}
    for camera in seq.cameras:
        row = np.array([camera.fx, camera.fy, camera.cx, camera.cy], np.float32)
        key = INTRINSICS.format(camera=camera.name)
        features[key] = Feature(np.tile(row, (len(seq), 1)), ("fx", "fy", "cx", "cy"))
        rows = camera_pose_rows(seq.T_world_camera[camera.name], robot_pose)
        features[EXTRINSICS.format(camera=camera.name)] = Feature(rows, POSE_NAMES)
    return features | own


A1_LAYOUT = FeatureLayout(lambda camera: IMAGE.format(camera=camera), a1_features)


def a1_conventions() -> dict[str, Any]:
    """What `meta/conventions.json` says beside the usual."""
    return {
        "camera_features": {"image": IMAGE, "intrinsics": INTRINSICS, "extrinsics": EXTRINSICS},
        "interndata_a1": {
            "camera_to_robot_extrinsics": "camera axes of OpenCV here: x right, y down, z forward",
        },
    }


def _extras(tree: Tree, stored: list[SourcePiece]) -> Mapping[str, Any]:
    return {**link_own_files(tree, stored), **_link_objects(tree, stored), **a1_conventions()}


def _link_objects(tree: Tree, stored: list[SourcePiece]) -> Mapping[str, Any]:
    found = False
    for episode, piece in enumerate(stored):
        if any(file.path == OBJECTS for file in piece.piece.files):
            tree.link(OBJECTS_PATH.format(chunk=episode // CHUNK_EPISODES, episode=episode), piece, OBJECTS)
            found = True
    return {"objects_path": OBJECTS_PATH, "objects": OBJECT_MEANINGS} if found else {}
