"""An episode as the contact sheet shows it: plain arrays, wherever they were read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nimbusd.stages.types import F32, F64, U8, U16

STILL_M = 0.05
"""A camera that moves less stays where it is."""


@dataclass(frozen=True)
class RoomOutline:
    """A room's outline on the map. polygon: (N, 2) world x, y in metres."""

    name: str
    polygon: F64


@dataclass(frozen=True)
class EpisodeView:
    """One camera's view of a stored episode of T frames.

    rgb: (T, H, W, 3). depth_m: (T, H, W), 0 = no reading. instance: (T, H, W) ids. intrinsics: fx, fy, cx, cy.
    T_world_camera: (T, 4, 4), OpenGL axes. categories: instance id → category. beside: what the episode's other cameras
    saw, name → (T, H, W, 3).
    """

    title: str
    subtitle: str
    fps: float
    rgb: U8
    depth_m: F32 | None
    instance: U16 | None
    intrinsics: tuple[float, float, float, float]
    T_world_camera: F64
    categories: Mapping[int, str] = field(default_factory=dict)
    rooms: tuple[RoomOutline, ...] = ()
    beside: Mapping[str, U8] = field(default_factory=dict)

    @property
    def is_still(self) -> bool:
        """True where the camera stays in its place: an arm moves in front of it, and there is no path to draw."""
        return float(np.ptp(self.T_world_camera[:, :3, 3], axis=0).max()) < STILL_M

    def __len__(self) -> int:
        return len(self.rgb)

    def moments(self, count: int) -> list[int]:
        """`count` frames from first to last, evenly apart; fewer where the episode has fewer."""
        return sorted({round(float(t)) for t in np.linspace(0, len(self) - 1, min(count, len(self)))})
