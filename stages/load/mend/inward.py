"""Rooms whose surfaces face away from them: turned round where vertical lines through the scene say so.

A floor is what faces up. A room that was modelled as a box from outside has a floor that faces down and a ceiling that
faces up, and a robot would be put on its roof. Along a vertical line, a room begins at something that faces up and ends
at something that faces down; where a scene has hardly any such stretch, but many of the height of a room that begin at
something that faces down and end at something that faces up, the surfaces at their ends are turned round. So are floors
alone: what lies lowest, faces down, and has the height of a room or the open sky above it.

A solid block (a wardrobe, a house in a model of a town) looks the same along such a line, so nothing is turned in a
scene that has a floor anywhere near the lower ends, and of a box only if there is something in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nimbusd.stages.load.mend.vertical import LEVEL, Crossings, level_crossings
from nimbusd.stages.types import F64, BoolArray, SceneObject

IntArray = npt.NDArray[np.intp]

_ROOM_M = (1.8, 8.0)
_SLAB_M = 0.6
"""A floor is at most so thick."""

_STANDS_M = 0.1
_SAME_M = 1e-4
_STANDING_M = 1.0
_LEAST_M2 = 2.0
_FEW = 0.1
"""Share of lines through rooms that begin and end as they should, up to which a scene is taken to have none."""


def facing_inward(objects: Sequence[SceneObject]) -> tuple[list[SceneObject], list[str]]:
    """The objects with floors that face up and ceilings that face down, and a sentence if any had to be turned.

    Objects that keep their faces are returned as they are. Needs shapely.
    """
    faces = [len(obj.faces) for obj in objects]
    if not sum(faces):
        return list(objects), []
    corners = np.concatenate([obj.world_vertices()[obj.faces] for obj in objects])
    owner = np.repeat(np.arange(len(objects)), faces)
    met = level_crossings(corners)
    if met is None:
        return list(objects), []
    wrong, told = _wrong(met, corners, owner, objects)
    if not wrong.any():
        return list(objects), told
    starts = np.cumsum([0, *faces])
    made = [
        obj if not wrong[starts[k] : starts[k + 1]].any() else _turned(obj, wrong[starts[k] : starts[k + 1]])
        for k, obj in enumerate(objects)
    ]
    return made, told


def _turned(obj: SceneObject, which: BoolArray) -> SceneObject:
    """The object with the corners of some faces in the other order, and their texture coordinates with them."""
    faces = obj.faces.copy()
    faces[which] = faces[which][:, ::-1]
    uvs = obj.uvs
    if uvs is not None:
        uvs = uvs.copy()
        uvs[which] = uvs[which][:, ::-1]
    return replace(obj, faces=faces, uvs=uvs)


def _wrong(
    met: Crossings, corners: F64, owner: IntArray, objects: Sequence[SceneObject]
) -> tuple[BoolArray, list[str]]:
    """(F,) triangles to turn round, and what to tell."""
    wrong = np.zeros(len(corners), np.bool_)
    same_line = met.line[1:] == met.line[:-1]
    gap = met.z[1:] - met.z[:-1]
    room = same_line & (gap >= _ROOM_M[0]) & (gap <= _ROOM_M[1])
    right = room & met.up[:-1] & ~met.up[1:]
    stands = np.concatenate([[False], same_line & (gap < _STANDS_M) & ~met.up[:-1]])  # on another surface
    twofold = same_line & (gap < _SAME_M) & (met.up[1:] != met.up[:-1])  # a sheet with two sides faces up as well
    sheet = np.concatenate([twofold, [False]]) | np.concatenate([[False], twofold])
    boxed = room & ~met.up[:-1] & met.up[1:] & ~stands[:-1] & ~sheet[:-1]
    first = np.concatenate([[True], ~same_line])
    above_m = _free_above(met, first, gap)
    roofed = np.concatenate([same_line & met.up[1:], [False]])
    bare = first & ~met.up & (above_m >= _ROOM_M[0]) & ~roofed
    bare &= ~sheet
    lower = np.flatnonzero(np.concatenate([boxed, [False]]) | bare)
    if not len(lower) or right.sum() > _FEW * len(lower) or len(lower) * met.cell_m2 < _LEAST_M2:
        return wrong, []
    if _has_floor(met, lower, above_m):
        return wrong, []
    if boxed.any() and not _something_between(corners, met.z[:-1][boxed], met.z[1:][boxed]):
        text = "it is taken for a solid block. If it is a room, turn the file's normals, or put something into it."
        return wrong, [f"the scene is a box with nothing in it whose faces look outwards: {text}"]
    upper = np.flatnonzero(np.concatenate([[False], boxed]))
    ends = np.unique(met.triangle[np.concatenate([lower, upper])])
    votes = np.bincount(owner[met.triangle], minlength=len(objects))
    against = np.bincount(owner[met.triangle[np.concatenate([lower, upper])]], minlength=len(objects))
    whole = (against > 0.8 * np.maximum(votes, 1)) | ((against > 0) & _inside_out(objects))
    wrong[whole[owner]] = True
    wrong |= _beside(corners, owner, ends)
    names = ", ".join(repr(objects[k].name) for k in np.argsort(-against, kind="stable")[:3] if against[k])
    area = len(lower) * met.cell_m2
    told = (
        f"floors of {area:.0f} m² face down"
        + (f" and the ceilings over {len(upper) * met.cell_m2:.0f} m² of them up" if len(upper) else "")
        + f" (mostly of {names}), and were turned round: nothing in the scene faces up where they lie. Turn the file's "
        "normals, or check up_axis."
    )
    return wrong, [told]


def _free_above(met: Crossings, first: BoolArray, gap: F64) -> F64:
    """(N,) height from each crossing to the next one on its line that lies higher; infinite without any."""
    level = np.cumsum(first | np.concatenate([[True], gap > _SAME_M])) - 1
    begins = np.flatnonzero(np.concatenate([[True], level[1:] != level[:-1]]))
    following = np.append(begins[1:], len(met.z))[level]
    inside = following < len(met.z)
    at = np.where(inside, following, 0)
    return np.where(inside & (met.line[at] == met.line), met.z[at] - met.z, np.inf)


def _inside_out(objects: Sequence[SceneObject]) -> BoolArray:
    """(N,) True for bodies whose faces all look inwards (a slab, the wrong way round): their volume is negative."""
    found = []
    for obj in objects:
        corners = obj.vertices.astype(np.float64)[obj.faces]
        corners = (corners - corners.mean(axis=(0, 1))) @ obj.T_world_object[:3, :3].T if len(corners) else corners
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        volume = float(np.einsum("nk,nk->", corners[:, 0], cross)) / 6
        area = float(np.linalg.norm(cross, axis=1).sum()) / 2
        found.append(volume < -1e-3 * _SLAB_M * area)
    return np.array(found, np.bool_)


def _something_between(corners: F64, floors: F64, ceilings: F64) -> bool:
    """True where vertices lie well between the heights where rooms begin and end, away from the scene's outer sides."""
    points = corners.reshape(-1, 3)
    low, high = points.min(axis=0), points.max(axis=0)
    low[2], high[2] = np.median(floors), np.median(ceilings)
    rim = 0.03 * (high - low)
    return bool(((points > low + rim) & (points < high - rim)).all(axis=1).sum() >= 3)


def _has_floor(met: Crossings, lower: IntArray, above_m: F64) -> bool:
    """True where a good part of the scene has something to stand on at about the heights of the lower ends."""
    z = np.median(met.z[lower])
    floor = met.up & (above_m >= _STANDING_M) & (np.abs(met.z - z) <= _SLAB_M)
    return len(np.unique(met.line[floor])) > 0.2 * len(np.unique(met.line[lower]))


def _beside(corners: F64, owner: IntArray, ends: IntArray) -> BoolArray:
    """(F,) triangles of the objects of `ends` that are level, lie at their heights and face as they do."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    level = np.abs(normal[:, 2]) > LEVEL * np.maximum(np.linalg.norm(normal, axis=1), 1e-12)
    z = corners[:, :, 2].mean(axis=1)
    found = np.zeros(len(corners), np.bool_)
    for number in np.unique(owner[ends]):
        own = ends[owner[ends] == number]
        for up in (False, True):
            heights = np.unique(np.round(z[own[(normal[own, 2] > 0) == up]], 2))
            if not len(heights):
                continue
            mine = np.flatnonzero((owner == number) & level & ((normal[:, 2] > 0) == up))
            at = np.clip(np.searchsorted(heights, z[mine]), 1, max(1, len(heights) - 1))
            near = np.minimum(
                np.abs(heights[np.minimum(at, len(heights) - 1)] - z[mine]), np.abs(heights[at - 1] - z[mine])
            )
            found[mine[near <= 0.05]] = True
    return found
