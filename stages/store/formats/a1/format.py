"""InternData-A1 as a format, published as LeRobot v2.1 or v3.0.

Frames are `images.rgb.<camera>`; each camera has `<camera>_camera_intrinsics` (fx fy cx cy) and
`<camera>_camera_to_robot_extrinsics`; states and actions are those of `a1_columns`. Depth and segmentation, where the
renderer made them, lie beside as in nimbusd's other LeRobot datasets, and so do the objects' poses and boxes
(`object_rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from nimbusd.stages.errors import StoreError
from nimbusd.stages.motion import without_parts
from nimbusd.stages.store.arm_columns import POSE_NAMES, ROBOT_POSE, arm_prefixes, camera_pose_rows, required_columns
from nimbusd.stages.store.columns import parquet_bytes
from nimbusd.stages.store.content import kept_states
from nimbusd.stages.store.formats.a1.writer import InternDataA1Args
from nimbusd.stages.store.formats.interndata import InternDataFormat, with_camera_names
from nimbusd.stages.store.formats.lerobot.content import FeatureLayout, write_lerobot
from nimbusd.stages.store.formats.lerobot.metadata import CHUNK_SIZE
from nimbusd.stages.store.formats.lerobot_v21 import LEROBOT_V21
from nimbusd.stages.store.formats.lerobot_v30 import LEROBOT_V30
from nimbusd.stages.store.object_rows import MEANINGS as OBJECT_MEANINGS
from nimbusd.stages.store.object_rows import OBJECTS, OBJECTS_PATH, objects_table
from nimbusd.stages.store.outcome import refuse_failures
from nimbusd.stages.store.piece import PieceDraft
from nimbusd.stages.store.publish import Tree, link_own_files
from nimbusd.stages.store.source_piece import SourcePiece
from nimbusd.stages.types import Episode, Feature, Observation, Sequence

IMAGE = "images.rgb.{camera}"
INTRINSICS = "{camera}_camera_intrinsics"
EXTRINSICS = "{camera}_camera_to_robot_extrinsics"
_PREFIXES = ("states.", "actions.", "master_actions.")


class InternDataA1(InternDataFormat[InternDataA1Args]):
    """Feature names of the release, and a table of objects beside."""

    args_model = InternDataA1Args

    def write(
        self,
        draft: PieceDraft,
        seq: Sequence,
        obs: Observation,
        episode: Episode,
        args: InternDataA1Args,
        beat: Callable[[], None],
    ) -> None:
        if not args.keep_failures:
            refuse_failures(seq)
        seq, obs = with_camera_names(seq, obs, args.cameras)
        write_lerobot(draft, seq, obs, episode, self.name, args.content(args.robot(seq)), beat, A1_LAYOUT)
        objects = objects_table(without_parts(seq, episode.scene), obs, beat)
        if objects is not None:
            draft.add(OBJECTS, parquet_bytes(objects))

    def extras(self, tree: Tree, sources: list[SourcePiece]) -> Mapping[str, Any]:
        return {**link_own_files(tree, sources), **_link_objects(tree, sources), **a1_conventions()}


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
    """Further entries of `meta/conventions.json`."""
    return {
        "camera_features": {"image": IMAGE, "intrinsics": INTRINSICS, "extrinsics": EXTRINSICS},
        "interndata_a1": {
            "camera_to_robot_extrinsics": "camera axes of OpenCV here: x right, y down, z forward",
        },
    }


def _link_objects(tree: Tree, sources: list[SourcePiece]) -> Mapping[str, Any]:
    found = False
    for episode, piece in enumerate(sources):
        if piece.has(OBJECTS):
            tree.link(OBJECTS_PATH.format(chunk=episode // CHUNK_SIZE, episode=episode), piece, OBJECTS)
            found = True
    return {"objects_path": OBJECTS_PATH, "objects": OBJECT_MEANINGS} if found else {}


INTERNDATA_A1_V30 = InternDataA1("interndata-a1-v3.0", LEROBOT_V30)
INTERNDATA_A1_V21 = InternDataA1("interndata-a1-v2.1", LEROBOT_V21)
