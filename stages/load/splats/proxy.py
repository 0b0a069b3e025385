"""A proxy mesh made of Gaussians, for planning in splat scenes that come without a mesh."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nimbusd.stages.errors import AssetError
from nimbusd.stages.types import F32, F64, Material, SceneObject, Splats

_CELLS_PER_AXIS = 1 << 20
_FINEST_GRID = 9
_HALF_SPREAD = 1.5
"""A Gaussian fills voxels up to this many standard deviations from its centre."""

_PHASES = 8
"""In how many places along an axis a grid of voxels may begin."""

_CORNERS = {
    (0, 1): ((1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 0, 1)),
    (0, -1): ((0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0)),
    (1, 1): ((0, 1, 0), (0, 1, 1), (1, 1, 1), (1, 1, 0)),
    (1, -1): ((0, 0, 0), (1, 0, 0), (1, 0, 1), (0, 0, 1)),
    (2, 1): ((0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)),
    (2, -1): ((0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 0, 0)),
}
"""(axis, side) of a voxel's face → its corners, counter-clockwise from outside."""


@dataclass(frozen=True, slots=True)
class Voxels:
    """Occupied cells. cells: (M, 3) int64, sorted, unique. cell_m: their edge. origin_m: (3,) world corner of cell 0.

    Cell c reaches from origin_m + c * cell_m to origin_m + (c + 1) * cell_m.
    """

    cells: npt.NDArray[np.int64]
    cell_m: float
    origin_m: F64


def occupied_voxels(
    splats: Splats, cell_m: float, *, min_cover: float, min_cells: int, beat: Callable[[], None] = lambda: None
) -> Voxels:
    """The world's voxels that Gaussians fill.

    Each Gaussian adds its opacity times its cross-section to the voxels around it; a voxel is occupied from
    `min_cover` of its face's area. Clusters of less than `min_cells` voxels (floaters) are dropped. Raises AssetError
    where nothing is left.
    """
    means, scale = splats.world_means(), splats.unit_m
    axes = np.einsum("ij,njk->nik", splats.T_world_splats[:3, :3] / scale, rotations(splats.quats))
    sigma = splats.scales.astype(np.float64) * scale
    order = np.argsort(-sigma, axis=1)
    wide, broad = (np.take_along_axis(sigma, order[:, k : k + 1], 1)[:, 0] for k in (0, 1))
    along, across = (np.take_along_axis(axes, order[:, None, k : k + 1], 2)[:, :, 0] for k in (0, 1))
    amount = splats.opacities * 2 * np.pi * wide * broad / cell_m**2
    origin_m = _grid_origin(means, amount, cell_m)
    cut = np.clip(np.ceil(2 * _HALF_SPREAD * wide / cell_m), 1, _FINEST_GRID).astype(int)
    keys, amounts = [], []
    for k in np.unique(cut):
        of = np.flatnonzero(cut == k)
        # The same number of steps both ways; those across are shorter.
        offsets = (np.arange(k) + 0.5) / k * 2 * _HALF_SPREAD - _HALF_SPREAD
        for s in offsets:
            for t in offsets:
                point = means[of] + s * wide[of, None] * along[of] + t * broad[of, None] * across[of]
                keys.append(_key(np.floor((point - origin_m) / cell_m).astype(np.int64)))
                amounts.append(amount[of] / k**2)
        beat()
    key, where = np.unique(np.concatenate(keys), return_inverse=True)
    cover = np.bincount(where.ravel(), np.concatenate(amounts))
    key = key[cover >= min_cover]
    if len(key):
        key = key[_cluster_sizes(key) >= min_cells]
    if not len(key):
        raise AssetError(
            f"no voxel of {cell_m} m is filled by the {len(splats)} Gaussians. Check `unit_m`, raise `voxel_m`, or "
            "lower `voxel_cover`."
        )
    return Voxels(_cells(key), cell_m, origin_m)


def voxel_mesh(voxels: Voxels, name: str = "proxy") -> SceneObject:
    """The boundary of the occupied voxels as one grey object of category `object`.

    It is lowered by half a voxel: a surface lies in the middle of its voxels, and so floors come out at their height.
    """
    keys = _key(voxels.cells)
    parts = []
    for (axis, side), corners in _CORNERS.items():
        beside = voxels.cells.copy()
        beside[:, axis] += side
        open_faces = voxels.cells[~np.isin(_key(beside), keys)]
        parts.append(open_faces[:, None, :] + np.array(corners))
    quads = np.concatenate(parts)
    lowered = voxels.origin_m - (0, 0, voxels.cell_m / 2)
    vertices = (quads.reshape(-1, 3) * voxels.cell_m + lowered).astype(np.float32)
    first = 4 * np.arange(len(quads))[:, None]
    faces = np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])]).astype(np.int32)
    return SceneObject(
        name=name,
        category="object",
        instance_id=1,
        vertices=vertices,
        faces=faces,
        materials=(Material("voxels", (0.5, 0.5, 0.5)),),
        face_material=np.zeros(len(faces), np.int32),
    )


def _grid_origin(means: F64, amount: F64, cell_m: float) -> F64:
    """(3,) where to begin the grid so that most surfaces across an axis lie in the middle of a voxel.

    One on the border between two layers of voxels would fill both here and there. For z the lower half of the cloud
    decides, where the floor is.
    """
    origin = np.zeros(3)
    for axis in range(3):
        at, weight = means[:, axis], amount
        if axis == 2:
            low = at <= np.median(at)
            at, weight = at[low], weight[low]
        phase = np.floor(at / cell_m % 1.0 * _PHASES).astype(np.intp) % _PHASES
        votes = np.bincount(phase, weight, minlength=_PHASES)
        # Phases count as near each other across the border too.
        near = votes + 0.5 * (np.roll(votes, 1) + np.roll(votes, -1))
        origin[axis] = ((int(near.argmax()) + 0.5) / _PHASES - 0.5) * cell_m
    return origin


def rotations(quats: F32) -> F64:
    """(N, 3, 3) matrices of unit quaternions w, x, y, z."""
    w, x, y, z = quats.astype(np.float64).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.asarray(np.array(rows).transpose(2, 0, 1))


def _key(cells: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """One number a cell, in the order of (x, y, z)."""
    if len(cells) and int(np.abs(cells).max()) >= _CELLS_PER_AXIS // 2:
        raise AssetError("the Gaussians reach too far for voxels of this size. Raise `voxel_m`, or check `unit_m`.")
    shifted = cells + _CELLS_PER_AXIS // 2
    return np.asarray((shifted[:, 0] * _CELLS_PER_AXIS + shifted[:, 1]) * _CELLS_PER_AXIS + shifted[:, 2])


def _cells(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    rest, z = np.divmod(keys, _CELLS_PER_AXIS)
    x, y = np.divmod(rest, _CELLS_PER_AXIS)
    return np.asarray(np.stack([x, y, z], axis=1) - _CELLS_PER_AXIS // 2)


def _cluster_sizes(keys: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The number of voxels that hang together, by faces, with each of the sorted `keys`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = []
    for step in (1, _CELLS_PER_AXIS, _CELLS_PER_AXIS**2):
        at = np.minimum(np.searchsorted(keys, keys + step), len(keys) - 1)
        of = np.flatnonzero(keys[at] == keys + step)
        ends.append(np.stack([of, at[of]]))
    i, j = np.concatenate(ends, axis=1)
    graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(len(keys), len(keys)))
    _, label = connected_components(graph, directed=False)
    return np.asarray(np.bincount(label)[label])
