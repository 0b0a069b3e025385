"""Pictures of Isaac Sim's annotators as our arrays: pure functions, so that they run and are tested anywhere."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import BACKGROUND_ID, F32, U8, U16

Raw = npt.NDArray[np.generic]

_OBJECT = re.compile(r"^/World/copy_\d+/obj_(\d+)(?:_\d+)?(?:/|$)")
_NO_PRIM = ("BACKGROUND", "UNLABELLED", "INVALID")


def object_path(copy: int, instance_id: int, part: int = 0) -> str:
    """Path of an object's prim in one copy of the scene; everything of the object lies below it.

    part: counts the objects that are parts of one instance.
    """
    return f"/World/copy_{copy}/obj_{instance_id}" + (f"_{part}" if part else "")


def instance_of_path(path: str) -> int:
    """Instance id of the object that a prim belongs to; 0 for prims of no object."""
    found = _OBJECT.match(path)
    return int(found[1]) if found else BACKGROUND_ID


def rgb_tile(data: Raw, width: int, height: int) -> U8:
    """(H, W, 3) uint8 from annotator `rgb`, which returns (H, W, 4) uint8 RGBA."""
    image = np.asarray(data)
    if image.shape[:2] != (height, width) or image.ndim != 3 or image.shape[2] < 3:
        raise _wrong("rgb", image, width, height)
    return np.ascontiguousarray(image[..., :3], np.uint8)


def depth_tile(data: Raw, width: int, height: int, far_m: float) -> F32:
    """(H, W) float32 metres from annotator `distance_to_image_plane`; 0 where nothing lies before the far plane."""
    depth = _plane("distance_to_image_plane", data, width, height).astype(np.float32)
    return np.asarray(np.where(np.isfinite(depth) & (depth > 0) & (depth < far_m), depth, np.float32(0)), np.float32)


def instance_tile(data: Raw, id_to_path: Mapping[str, object], width: int, height: int) -> U16:
    """(H, W) uint16 instance ids from annotator `instance_id_segmentation_fast`.

    id_to_path: its `idToLabels`: the renderer's id in decimal → path of the prim (or a word such as BACKGROUND).
    Raises RenderError where the picture shows an id that the table does not name.
    """
    shown = _plane("instance_id_segmentation_fast", data, width, height)
    ids, places = np.unique(shown, return_inverse=True)
    table = {int(number): str(path) for number, path in id_to_path.items()}
    ours = np.zeros(len(ids), np.uint16)
    for place, number in enumerate(ids.tolist()):
        path = table.get(number)
        if path is None and number != 0:
            raise RenderError(
                f"Isaac Sim shows instance {number}, which its table of {len(table)} prims does not name: "
                f"the table belongs to another frame; raise `subframes`"
            )
        ours[place] = BACKGROUND_ID if path is None or path in _NO_PRIM else instance_of_path(path)
    tile: U16 = ours[places.reshape(shown.shape)]
    return tile


def _plane(annotator: str, data: Raw, width: int, height: int) -> Raw:
    """The annotator's (H, W) or (H, W, 1) array as (H, W)."""
    plane = np.asarray(data)
    if plane.ndim == 3 and plane.shape[2] == 1:
        plane = plane[..., 0]
    if plane.shape != (height, width):
        raise _wrong(annotator, plane, width, height)
    return plane


def _wrong(annotator: str, data: Raw, width: int, height: int) -> RenderError:
    return RenderError(
        f"Isaac Sim's annotator {annotator!r} returned an array of shape {data.shape} for a camera of "
        f"{width}x{height} pixels"
    )
