"""Cut-outs as geometry: the holes that a picture's alpha makes in a surface (leaves, lace, fences) become real ones.

Depth, segmentation, collisions and every backend then agree on what is there, without a picture of alpha.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nimbusd.stages.load.mesh.surface import Surface
from nimbusd.stages.types import F32, F64

MOST_FACES = 30_000
"""A surface is not cut finer once it has so many triangles; what is then still undecided follows its middle."""

_FINEST_TEXELS = 2.0
_FINEST_SHARE = 1 / 256


def cut_out(surface: Surface, is_solid: npt.NDArray[np.bool_], uvs: F32) -> Surface:
    """The surface without what lies over texels that are not solid.

    is_solid: (H, W), row 0 at v = 1, repeating. uvs: (F, 3, 2) into it, v upwards; the surface's own are kept.
    Triangles over a border are quartered until they are two texels, or 1/256 of the picture, wide. Those on which
    nothing is left vanish.
    """
    counts = _Counts(is_solid)
    size = np.array([is_solid.shape[1], is_solid.shape[0]], np.float64)
    finest = np.maximum(_FINEST_TEXELS, _FINEST_SHARE * size)
    corners = surface.vertices[surface.faces]
    own = surface.uvs if surface.uvs is not None else np.zeros((len(surface.faces), 3, 2), np.float32)
    # Position, own and mask's coordinates and vertex of each corner: quartering treats them alike. The middle of an
    # edge gets the mean of two vertices' numbers, so that faces share it only where they shared the edge.
    pending = np.concatenate([corners, own, uvs, surface.faces[..., None]], axis=-1, dtype=np.float64)
    slot = np.arange(len(pending))
    kept: list[tuple[F64, npt.NDArray[np.int64]]] = []
    total = 0
    while len(pending):
        texels = pending[..., 5:7] * (1, -1) * size + (0, size[1])
        low, high = texels.min(axis=1), texels.max(axis=1)
        share = counts.solid_share(low, high)
        small = (high - low <= finest).all(axis=1)
        if total + 4 * len(pending) > max(MOST_FACES, len(surface.faces)):
            small[:] = True
        middle = counts.solid_at(texels.mean(axis=1))
        keep = (share == 1) | (small & (share > 0) & middle)
        kept.append((pending[keep], slot[keep]))
        total += int(keep.sum())
        split = (share > 0) & (share < 1) & ~small
        pending, slot = _quartered(pending[split]), np.repeat(slot[split], 4)
    found, of = np.concatenate([k[0] for k in kept]), np.concatenate([k[1] for k in kept])
    order = np.argsort(of, kind="stable")
    found, of = found[order], of[order]
    if len(of) == len(surface.faces):
        return surface
    if not len(of):
        return replace(surface, faces=surface.faces[:0], uvs=None, face_material=surface.face_material[:0])
    keys, where = np.unique(found[..., [0, 1, 2, 7]].reshape(-1, 4), axis=0, return_inverse=True)
    return replace(
        surface,
        vertices=keys[:, :3].astype(np.float32),
        faces=where.reshape(-1, 3).astype(np.int32),
        uvs=found[..., 3:5].astype(np.float32) if surface.uvs is not None else None,
        face_material=np.asarray(surface.face_material[of], np.int32),
    )


def _quartered(triangles: F64) -> F64:
    """(4 T, 3, K): each triangle's four halves of its edges, wound as it is."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    ab, bc, ca = (a + b) / 2, (b + c) / 2, (c + a) / 2
    four = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    made = np.stack([np.stack(corner, axis=1) for corner in four], axis=1)
    return np.asarray(made.reshape(-1, 3, triangles.shape[-1]))


class _Counts:
    """The solid share of any rectangle of a repeating mask, by a table of sums over two of its widths."""

    def __init__(self, mask: npt.NDArray[np.bool_]) -> None:
        self._mask = mask
        tiled = np.tile(mask, (2, 2)).astype(np.int64)
        self._sums = np.zeros((tiled.shape[0] + 1, tiled.shape[1] + 1), np.int64)
        self._sums[1:, 1:] = tiled.cumsum(axis=0).cumsum(axis=1)

    def solid_share(self, low: F64, high: F64) -> F64:
        """(N,) of rectangles with corners (N, 2) in texels, x to the right and y down; exact 0 and 1."""
        size = np.array(self._mask.shape[::-1], np.int64)
        first = np.floor(low + 1e-9).astype(np.int64)
        span = np.minimum(np.maximum(np.ceil(high - 1e-9).astype(np.int64) - first, 1), size)
        first %= size
        (x0, y0), (x1, y1) = first.T, (first + span).T
        solid = self._sums[y1, x1] - self._sums[y0, x1] - self._sums[y1, x0] + self._sums[y0, x0]
        return np.asarray(solid / np.prod(span, axis=1))

    def solid_at(self, texels: F64) -> npt.NDArray[np.bool_]:
        """(N,) whether the texels that hold points (N, 2) are solid."""
        x, y = (np.floor(texels).astype(np.int64) % np.array(self._mask.shape[::-1])).T
        return np.asarray(self._mask[y, x])


def is_cut_out(alpha: npt.NDArray[np.uint8]) -> bool:
    """True where a picture's alpha (H, W) is nearly nowhere between solid and nothing, and is both somewhere."""
    clear, solid = float((alpha < 26).mean()), float((alpha > 229).mean())
    return clear > 0.005 and solid > 0.005 and clear + solid > 0.9
