"""The contract of rasterizers of Gaussian splats, and the constants that they share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from nimbusd.stages.types import F32, F64, Camera, Rgb, Splats

NEAR_M = 0.05
"""Gaussians whose centre is nearer to the camera plane than this are not drawn."""

ALPHA_MIN = 1.0 / 255.0
"""A Gaussian ends where its alpha falls below this."""

ALPHA_MAX = 0.99
BLUR_PX2 = 0.3
"""Variance in pixels² added to every projected Gaussian, so that none falls between pixel centres."""

STOP = 1e-4
"""A pixel is finished once less than this of the background shines through."""

FIELD_MARGIN = 1.3
"""The projection is linearized at most at this multiple of the field of view's edge."""


@dataclass(frozen=True, slots=True)
class SplatImages:
    """Pictures of B cameras. rgb: (B, H, W, 3) float32, sRGB-encoded, background included, may exceed 1.

    depth_m: (B, H, W) float32 expected metres along the optical axis of what covers the pixel, 0 where nothing does;
    each Gaussian counts with the depth at which the pixel's ray meets it (CPU), or with its centre's (gsplat).
    coverage: (B, H, W) float32 in 0…1.
    """

    rgb: F32
    depth_m: F32
    coverage: F32


class Rasterizer(Protocol):
    """Draws one cloud from many cameras. load() makes it resident; render() may then be called at will."""

    @property
    def device_name(self) -> str: ...

    def load(self, splats: Splats) -> None: ...

    def render(self, camera: Camera, T_world_camera: F64, background: Rgb) -> SplatImages:
        """T_world_camera: (B, 4, 4) float64. background: sRGB-encoded, 0…1."""
        ...

    def close(self) -> None: ...


def cameras_to_splats(splats: Splats, T_world_camera: F64) -> tuple[F64, F64]:
    """(B, 3, 4) float64 that map the cloud's frame to camera axes x right, y down, z forward, and (B, 3) positions.

    Lengths stay in units of the cloud: the scale of T_world_splats is divided out of the camera's pose, so that
    Gaussians need neither be moved nor turned. T_world_camera: (B, 4, 4), OpenGL axes.
    """
    scale = splats.unit_m
    rotation = splats.T_world_splats[:3, :3] / scale
    R = np.einsum("ji,bjk->bik", rotation, T_world_camera[:, :3, :3]) * np.array([1.0, -1.0, -1.0])
    position = (T_world_camera[:, :3, 3] - splats.T_world_splats[:3, 3]) @ rotation / scale
    view = np.empty((len(R), 3, 4))
    view[:, :, :3] = R.transpose(0, 2, 1)
    view[:, :, 3] = -np.einsum("bij,bj->bi", view[:, :, :3], position)
    return view, np.ascontiguousarray(position)
