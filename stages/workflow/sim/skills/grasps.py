"""Grasps for a parallel gripper: antipodal pairs on a mesh, turned to several approaches; or a file of the user's.

A grasp is the tool frame in the object frame: z is the approach direction, y the closing direction, the origin lies
midway between the pads.

Files: JSON, a list of {"T_object_tcp": 4x4, "width_m": w, "score": s}, or {"grasps": [...]}; or npz with the arrays
`T_object_tcp` (N, 4, 4), `width_m` (N,) and, if wanted, `score` (N,).
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nimbusd.stages.errors import AssetError
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.models.robots import GripperModel
from nimbusd.stages.workflow.sim.rotation import about, transform, unit
from nimbusd.stages.workflow.sim.world.geometry import TriangleMesh, farthest_hit, sample_surface

SAMPLES = (96, 384)
"""Points of a surface to start from; the second number where the first offers no grasp that fits."""

_FRICTION_COS = math.cos(math.atan(0.4))
WIDTH_SPARE_M = 0.008
_SPREAD_M, _SPREAD_TRACE = 0.008, 2.9
"""Grasps nearer than this, and turned by less than about 18 degrees, count as the same."""

_ROUNDED = 1e-3
"""Rounding error that a file's rotations may have."""

_FAR_M, _WIDEST_M = 1.0, 0.3
_TILTS_RAD = (0.0, 0.35, -0.35, 0.7, -0.7)
_STEEP = 0.7
"""Least share of an approach that points downwards."""


@dataclass(frozen=True)
class Grasp:
    """T_object_tcp: (4, 4). width_m: of the object between the pads. score: higher is tried first."""

    T_object_tcp: F64
    width_m: float
    score: float


def antipodal_grasps(
    mesh: TriangleMesh, gripper: GripperModel, down: F64, rng: np.random.Generator, samples: int = SAMPLES[0]
) -> list[Grasp]:
    """Grasps on opposite surface points whose normals lie in each other's friction cone, best first.

    mesh: in the object frame. down: (3,) world's downward direction in the object frame; approaches are within 45
    degrees of it (steep ones score best), each closing axis with both signs, so that two yaws and several tilts exist
    per pair.
    """
    centre = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
    bottom = float((mesh.vertices @ down).max())
    top = float((mesh.vertices @ down).min())
    grasps: list[Grasp] = []
    for middle, closing, width in _pairs(mesh, gripper, rng, samples):
        for approach in _approaches(closing, down):
            depth = _depth(middle, approach, down, gripper, bottom, top)
            offset = float(np.linalg.norm((depth - centre) - ((depth - centre) @ down) * down))
            height = abs(float((depth - centre) @ down)) / max(bottom - top, 1e-6)
            score = float(approach @ down) - 6.0 * offset - 0.3 * height - 2.0 * width
            for sign in (1.0, -1.0):
                y = sign * closing
                rotation = np.stack([np.cross(y, approach), y, approach], axis=1)
                grasps.append(Grasp(transform(rotation, depth), width, score))
    grasps.sort(key=lambda grasp: -grasp.score)
    return _spread(grasps)


def _pairs(
    mesh: TriangleMesh, gripper: GripperModel, rng: np.random.Generator, samples: int
) -> Iterator[tuple[F64, F64, float]]:
    """Opposite points that the gripper fits around: midway between them, the direction from one to the other, width."""
    points, normals = sample_surface(mesh, samples, rng)
    width, face = farthest_hit(mesh, points, -normals)
    a, b, c = (mesh.vertices[mesh.faces[:, corner]] for corner in range(3))
    outward = np.cross(b - a, c - a)
    outward /= np.maximum(np.linalg.norm(outward, axis=1, keepdims=True), 1e-15)
    low, high = gripper.opening_m
    for i in range(samples):
        fits = face[i] >= 0 and low < width[i] < high - WIDTH_SPARE_M
        if fits and -normals[i] @ outward[face[i]] >= _FRICTION_COS:
            yield points[i] - normals[i] * (width[i] / 2), -normals[i], float(width[i])


def _approaches(closing: F64, down: F64) -> Iterator[F64]:
    """Unit directions across `closing` in which the hand may come, within 45 degrees of `down`."""
    steep = down - (down @ closing) * closing
    if np.linalg.norm(steep) < _STEEP:  # closing along the vertical leaves no way in from above
        return
    for tilt in _TILTS_RAD:
        approach = about(closing, tilt) @ unit(steep)
        if approach @ down >= _STEEP:
            yield approach


def _depth(middle: F64, approach: F64, down: F64, gripper: GripperModel, bottom: float, top: float) -> F64:
    """Move a pair's midpoint along the approach: finger ends off the ground, the object's top short of the palm."""
    slope = max(float(approach @ down), 0.1)
    level = float(middle @ down)
    lowest = (
        bottom - (gripper.reach_m + 0.004) * slope - 0.5 * gripper.thickness_m * math.sqrt(1 - min(slope, 1.0) ** 2)
    )
    highest = top + 0.006
    deepest = top + gripper.palm_m * slope
    wanted = min(max(level, highest), lowest, deepest)
    return np.asarray(middle + approach * ((wanted - level) / slope))


def _spread(grasps: list[Grasp]) -> list[Grasp]:
    """Leave out near repeats of better grasps."""
    if not grasps:
        return []
    poses = np.array([grasp.T_object_tcp for grasp in grasps])
    near = np.linalg.norm(poses[:, None, :3, 3] - poses[None, :, :3, 3], axis=2) < _SPREAD_M
    alike = np.einsum("nij,mij->nm", poses[:, :3, :3], poses[:, :3, :3]) > _SPREAD_TRACE
    kept: list[int] = []
    for index in range(len(grasps)):
        if not (near[index, kept] & alike[index, kept]).any():
            kept.append(index)
    return [grasps[index] for index in kept]


def read_grasps(path: str) -> list[Grasp]:
    """Grasps of a user's file, best first. Raises AssetError that names the file and what is wrong with it."""
    file = Path(path)
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                poses, widths = arrays["T_object_tcp"], arrays["width_m"]
                scores = arrays["score"] if "score" in arrays else np.zeros(len(poses))
        else:
            content = json.loads(file.read_text())
            entries = content["grasps"] if isinstance(content, dict) else content
            poses = np.array([entry["T_object_tcp"] for entry in entries], np.float64)
            widths = np.array([entry["width_m"] for entry in entries], np.float64)
            scores = np.array([entry.get("score", 0.0) for entry in entries], np.float64)
        poses, widths, scores = (np.asarray(array, np.float64) for array in (poses, widths, scores))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise AssetError(f"grasp file {file} cannot be read: {type(error).__name__}: {error}") from error
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or not widths.shape == scores.shape == poses.shape[:1]:
        raise AssetError(
            f"grasp file {file} must hold N poses of 4x4 and N widths, but holds {poses.shape}, {widths.shape}"
        )
    if fault := _fault(poses, widths, scores):
        raise AssetError(f"grasp file {file}: {fault}")
    grasps = [Grasp(T, float(w), float(s)) for T, w, s in zip(poses, widths, scores, strict=True)]
    return sorted(grasps, key=lambda grasp: -grasp.score)


def _fault(poses: F64, widths: F64, scores: F64) -> str:
    """The fault of N grasps, with the number of the first that has it (from 0); empty without one."""
    rotations, places = poses[:, :3, :3], poses[:, :3, 3]
    with np.errstate(all="ignore"):
        finite = np.isfinite(poses).all(axis=(1, 2)) & np.isfinite(widths) & np.isfinite(scores)
        square = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2), initial=0) < _ROUNDED
        rigid = square & (np.abs(poses[:, 3] - [0, 0, 0, 1]).max(axis=1, initial=0) < _ROUNDED)
        near = (np.abs(places).max(axis=1, initial=0) < _FAR_M) & (widths < _WIDEST_M)
        checks = [
            (finite, "has numbers that are not finite"),
            (rigid, "has a T_object_tcp that is no rigid pose: three unit columns at right angles, last row 0 0 0 1"),
            (
                np.linalg.det(rotations) > 0,
                "has a left-handed T_object_tcp (determinant -1): turn one axis round",
            ),
            (near, f"is more than {_FAR_M} m off the object, or more than {_WIDEST_M} m wide; lengths are in metres"),
            (widths > 0, "has a width_m that is not above 0"),
        ]
    for good, text in checks:
        if not good.all():
            return f"grasp {int(np.argmin(good))} {text}"
    return "" if len(poses) else "holds no grasps"
