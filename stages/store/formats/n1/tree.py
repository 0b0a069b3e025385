"""An InternData-N1 tree on disk: LeRobot v2.1, with frames in flat folders and one camera in columns of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nimbusd.stages.store.conventions import counts_to_depth
from nimbusd.stages.store.encode import decode_image
from nimbusd.stages.store.formats.lerobot.tree import CameraColumns
from nimbusd.stages.store.formats.lerobot_v21.tree import V21Tree
from nimbusd.stages.store.formats.n1.trees import DEPTH_FOLDER, EXTRINSIC, INTRINSIC, POSE, RGB_FOLDER
from nimbusd.stages.types import F32, U8


class N1Tree(V21Tree):
    """The episodes of one scene."""

    def _rgb(self, camera: str, index: int, images: Mapping[str, Any]) -> U8:
        return np.stack(self._flat_frames(RGB_FOLDER, index))

    def _depth(self, camera: str, index: int, annotations: Mapping[str, Any]) -> F32 | None:
        return counts_to_depth(np.stack(self._flat_frames(DEPTH_FOLDER, index)))

    def _camera_columns(self, cameras: list[str], columns: Mapping[str, npt.NDArray[Any]]) -> CameraColumns:
        (camera,) = cameras
        K = columns[INTRINSIC][0].astype(np.float64)
        return CameraColumns(
            {camera: np.array([K[0, 0], K[1, 1], K[0, 2], K[1, 2]])},
            {camera: columns[POSE].astype(np.float64)},
            frozenset({INTRINSIC, EXTRINSIC, POSE}),
        )

    def _flat_frames(self, folder: str, index: int) -> list[Any]:
        paths = self._below(f"videos/chunk-000/{folder}/{index:06d}_*")
        return [decode_image(path.read_bytes()) for path in paths]
