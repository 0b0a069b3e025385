"""The check that the cameras of an episode are where there is something to see: an episode of nothing is an error.

It mostly comes from a scene that lies on its side or is in another unit, where a plan can still be made.
"""

from __future__ import annotations

import numpy as np

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mend import warnings_of
from nimbusd.stages.types import F64, BoolArray, Observation, Scene, Sequence

_LEAST_SEEN = 0.02
"""A frame in which less than this share of pixels has a depth sees nothing."""

_MOST_BLIND = 0.5
_BEYOND_M = 0.5
_BUILDING_M = 4.0
"""Smaller scenes (a table with an arm) are looked at from outside."""


def check_cameras_inside(scene: Scene, seq: Sequence) -> None:
    """Raises AssetError where most cameras of a sequence stand beside or under the scene and look past it.

    It needs no picture, so that none is rendered in vain. Who looks at the scene from outside means to. Scenes less
    than 4 m wide, and those without objects, are looked at from wherever one likes.
    """
    if not scene.objects or not seq.T_world_camera:
        return
    low, high = scene.bounds()
    if float((high - low)[:2].max()) < _BUILDING_M:
        return
    poses: F64 = np.concatenate([np.asarray(T, np.float64) for T in seq.T_world_camera.values()])
    at = poses[:, :3, 3]
    outside = (at[:, :2] < low[:2] - _BEYOND_M).any(axis=1) | (at[:, :2] > high[:2] + _BEYOND_M).any(axis=1)
    outside |= at[:, 2] < low[2] - _BEYOND_M
    outside &= ~_meets_box(at, -poses[:, :3, 2], low, high)
    if outside.mean() > _MOST_BLIND:
        x, y, z = at[int(outside.argmax())]
        raise AssetError(
            f"scene {scene.name!r}: in {int(outside.sum())} of {len(at)} frames the camera is outside of it and looks "
            f"past it, first at ({x:.2f}, {y:.2f}, {z:.2f}) m. {_advice(scene)}"
        )


def _meets_box(start: F64, along: F64, low: F64, high: F64) -> BoolArray:
    """(N,) whether rays (N, 3) meet the box from `low` to `high`, by where they cross its three pairs of planes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = np.stack([(low - start) / along, (high - start) / along])
    beside = (along == 0) & ((start < low) | (start > high))
    crossings = np.where(along == 0, np.array([-np.inf, np.inf])[:, None, None], crossings)
    enters, leaves = crossings.min(axis=0).max(axis=1), crossings.max(axis=0).min(axis=1)
    return np.asarray((leaves >= np.maximum(enters, 0)) & ~beside.any(axis=1))


def check_sight(scene: Scene, obs: Observation) -> None:
    """Raises AssetError where most frames see nothing: hardly a pixel of them has a depth. Needs depth to say so."""
    shares = [
        np.count_nonzero(seen.depth_m > 0, axis=(1, 2)) / max(seen.depth_m[0].size, 1)
        for seen in obs.frames.values()
        if seen.depth_m is not None and len(seen.depth_m)
    ]
    if not shares:
        return
    blind = np.concatenate(shares) < _LEAST_SEEN
    if blind.mean() > _MOST_BLIND:
        raise AssetError(
            f"scene {scene.name!r}: {int(blind.sum())} of {len(blind)} frames see nothing (no depth in "
            f"{1 - _LEAST_SEEN:.0%} of their pixels). {_advice(scene)}"
        )


def _advice(scene: Scene) -> str:
    """Doubts about the scene that its loader told, else the places to look."""
    known = warnings_of(scene)
    if known:
        return "What was found when it was loaded: " + "; ".join(known)
    return "Check the scene's up_axis and unit_m with `nimbusctl check --deep JOB`, and where its floors end."
