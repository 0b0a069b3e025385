"""Gaussians sampled from a mesh: a splat scene that matches its proxy, for demos and tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mesh.part import srgb_bytes
from nimbusd.stages.load.splats.ply import SH_C0
from nimbusd.stages.types import F32, F64, BoolArray, Material, SceneObject, Splats

IntArray = npt.NDArray[np.intp]

_SHELL = frozenset({"wall", "floor", "ceiling"})
_SHELL_WEIGHT = 0.5
"""Walls, floors and ceilings are large and plain: they get half the Gaussians per area."""

_WIDTH = 0.85
"""Standard deviation along the surface, in spacings: discs of neighbours overlap enough to let little through."""

_EDGE_SIGMAS = 1.5
"""Near an edge of the surface a disc is so narrow across it that it reaches over it by this many deviations."""

_NARROWEST = 0.25
"""Of the width that a disc has far from edges."""

_SMOOTH_COS = 0.9
_WELD_M = 1e-4
_THICKNESS_M = 0.002
_OPACITY = 0.99
_STEPS = np.array([0.7548776662466927, 0.5698402909980532])
"""Of the R2 sequence, whose points keep their distance from each other."""

_SEEN_THROUGH = 0.5
"""Materials below this opacity (glass) get no Gaussians: overlapping discs would make them solid."""

_LIGHT_FROM = np.array([0.36, 0.48, 0.8])


def sample_splats(
    objects: Sequence[SceneObject], count: int, seed: int = 0, beat: Callable[[], None] = lambda: None
) -> Splats:
    """About `count` flat Gaussians on the surfaces of `objects`, in the world frame, SH degree 0.

    Colours are those of materials and textures under a soft light from above that casts no shadows: the cloud is
    for trying pipelines, not for training on its looks. The same arguments give the same cloud. Raises AssetError
    where there is no surface.
    """
    areas = [_areas(obj) for obj in objects]
    weights = [_SHELL_WEIGHT if obj.category in _SHELL else 1.0 for obj in objects]
    total = sum(w * float(a.sum()) for w, a in zip(weights, areas, strict=True))
    if total <= 0:
        raise AssetError("the mesh has no surface to sample Gaussians from. Give the scene's `splats` instead.")
    clouds = []
    for number, (obj, weight, area) in enumerate(zip(objects, weights, areas, strict=True)):
        density = count * weight / total
        cloud = _sample(obj, area, density, np.random.default_rng([seed, number]))
        if len(cloud):
            clouds.append(cloud)
        beat()
    if not clouds:
        raise AssetError(f"{count} Gaussians are too few for the mesh. Ask for more.")
    return Splats(
        *(
            np.concatenate([getattr(cloud, field) for cloud in clouds])
            for field in ("means", "scales", "quats", "opacities", "sh")
        )
    )


def _areas(obj: SceneObject) -> F64:
    """(F,) square metres of solid surface."""
    if not len(obj.faces):
        return np.zeros(0)
    a, b, c = (obj.world_vertices()[obj.faces[:, k]] for k in range(3))
    solid = np.array([material.opacity >= _SEEN_THROUGH for material in obj.materials])[obj.face_material]
    return np.asarray(np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2 * solid)


def _sample(obj: SceneObject, area: F64, density: float, rng: np.random.Generator) -> Splats:
    """Gaussians on one object, `density` per square metre."""
    ends = np.floor(np.cumsum(area) * density + rng.uniform())
    per_face = np.diff(ends, prepend=0.0).astype(np.intp)
    face = np.repeat(np.arange(len(area)), per_face)
    within = np.arange(len(face)) - np.repeat(np.cumsum(per_face) - per_face, per_face)
    shift = rng.uniform(size=(len(area), 2))
    unit = (shift[face] + within[:, None] * _STEPS) % 1.0
    # Square to triangle: the square root keeps the density even.
    root = np.sqrt(unit[:, 0])
    bary = np.stack([1 - root, root * (1 - unit[:, 1]), root * unit[:, 1]], axis=1)

    corners = obj.world_vertices()[obj.faces[face]] if len(face) else np.zeros((0, 3, 3))
    means = np.einsum("nk,nkc->nc", bary, corners)
    normal = _unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    width = _WIDTH / np.sqrt(density)
    inward, distance = _nearest_edge(means, corners, normal, _edges(obj)[face])
    scales = np.empty((len(face), 3), np.float32)
    scales[:, 0] = np.clip(distance / _EDGE_SIGMAS, _NARROWEST * width, width)
    scales[:, 1] = width
    scales[:, 2] = min(_THICKNESS_M, width)
    frames = np.stack([inward, np.cross(normal, inward), normal], axis=2)
    color, opacity = _colors(obj, face, bary, normal)
    return Splats(
        means.astype(np.float32),
        scales,
        _quaternions(frames),
        (_OPACITY * opacity).astype(np.float32),
        ((color - 0.5) / SH_C0)[:, None, :].astype(np.float32),
    )


def _colors(obj: SceneObject, face: IntArray, bary: F64, normal: F64) -> tuple[F64, F64]:
    """sRGB-encoded colours (N, 3) in 0…1 and opacities (N,) of points on faces."""
    linear, opacity = np.zeros((len(face), 3)), np.ones(len(face))
    for number, material in enumerate(obj.materials):
        of = np.flatnonzero(obj.face_material[face] == number)
        if not len(of):
            continue
        linear[of] = np.asarray(material.base_color) * _texels(obj, material, face[of], bary[of])
        opacity[of] = material.opacity
        if material.emission > 0:
            normal = normal.copy()
            normal[of] = _LIGHT_FROM  # what glows is not shaded
    light = 0.72 + 0.12 * normal[:, 2] + 0.16 * np.abs(normal @ _LIGHT_FROM)
    return srgb_bytes(np.clip(linear * light[:, None], 0, 1)) / 255.0, opacity


def _texels(obj: SceneObject, material: Material, face: IntArray, bary: F64) -> F64 | float:
    """Linear colours (N, 3) of the texture at points, or 1 without one."""
    if material.texture is None or obj.uvs is None:
        return 1.0
    height, width = material.texture.shape[:2]
    uv = np.einsum("nk,nkc->nc", bary, obj.uvs[face].astype(np.float64))
    column = np.floor(uv[:, 0] * width).astype(np.int64) % width
    row = np.floor((1 - uv[:, 1]) * height).astype(np.int64) % height
    srgb = material.texture[row, column] / 255.0
    return np.asarray(np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4))


def _edges(obj: SceneObject) -> BoolArray:
    """(F, 3) True for edges k → k + 1 of faces where the surface ends or bends sharply."""
    vertices = obj.world_vertices()
    _, welded = np.unique(np.round(vertices / _WELD_M).astype(np.int64), axis=0, return_inverse=True)
    faces = welded.ravel()[obj.faces]
    corners = vertices[obj.faces]
    normal = _unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    ends = np.sort(np.stack([faces, np.roll(faces, -1, axis=1)], axis=2), axis=2)
    _, edge = np.unique(ends.reshape(-1, 2), axis=0, return_inverse=True)
    edge = edge.ravel()
    own = np.repeat(normal, 3, axis=0)
    beside = np.stack([np.bincount(edge, own[:, axis])[edge] for axis in range(3)], axis=1) - own
    return np.asarray((own * beside).sum(axis=1).reshape(-1, 3) < _SMOOTH_COS)


def _nearest_edge(points: F64, corners: F64, normal: F64, edges: BoolArray) -> tuple[F64, F64]:
    """Of each point in its triangle: the unit direction away from the nearest marked edge, and the distance to it.

    Without a marked edge: any direction in the plane, and infinity.
    """
    inward = _unit(corners[:, 1] - corners[:, 0])
    distance = np.full(len(points), np.inf)
    for k in range(3):
        away = np.cross(normal, _unit(corners[:, (k + 1) % 3] - corners[:, k]))
        reach = np.where(edges[:, k], ((points - corners[:, k]) * away).sum(axis=1), np.inf)
        closer = reach < distance
        inward[closer], distance[closer] = away[closer], reach[closer]
    return inward, np.maximum(distance, 0)


def _unit(vectors: F64) -> F64:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))


def _quaternions(R: F64) -> F32:
    """(N, 4) unit quaternions w, x, y, z of rotation matrices (N, 3, 3)."""
    from scipy.spatial.transform import Rotation

    if not len(R):
        return np.zeros((0, 4), np.float32)
    return np.asarray(Rotation.from_matrix(R).as_quat()[:, [3, 0, 1, 2]], np.float32)
