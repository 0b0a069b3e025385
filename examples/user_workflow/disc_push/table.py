"""The table: a round pusher, a disc that gives way to it, and a mark. Metres, x and y on the table."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Point = npt.NDArray[np.float64]

PUSHER_RADIUS_M = 0.015
DISC_RADIUS_M = 0.035
MARK_RADIUS_M = 0.045
HALF_TABLE_M = 0.3
REACHED_M = 0.008
_TOUCH_M = PUSHER_RADIUS_M + DISC_RADIUS_M
_CLEARANCE_M = 0.02


@dataclass(frozen=True)
class Table:
    """Positions of everything, (2,) each, metres."""

    pusher: Point
    disc: Point
    mark: Point

    @property
    def reached(self) -> bool:
        return float(np.linalg.norm(self.disc - self.mark)) < REACHED_M


def step(table: Table, command: Point, max_step_m: float) -> Table:
    """The pusher goes towards `command`, at most `max_step_m`; the disc gives way along the line of centres."""
    way = command - table.pusher
    length = float(np.linalg.norm(way))
    pusher = table.pusher + way * min(1.0, max_step_m / length) if length > 0 else table.pusher
    apart = table.disc - pusher
    distance = float(np.linalg.norm(apart))
    disc = table.disc
    if distance < _TOUCH_M:
        disc = pusher + apart / max(distance, 1e-9) * _TOUCH_M
    return replace(table, pusher=pusher, disc=disc)


def command_of(table: Table) -> Point:
    """The next place to go to: behind the disc as seen from the mark, around it if need be, and then through it."""
    ahead = table.mark - table.disc
    ahead = ahead / max(float(np.linalg.norm(ahead)), 1e-9)
    offset = table.pusher - table.disc
    along, side = float(offset @ ahead), float(offset @ np.array([-ahead[1], ahead[0]]))
    if along < 0 and abs(side) < 0.006:
        gap = float(np.linalg.norm(table.mark - table.disc))
        return np.asarray(table.disc - ahead * (_TOUCH_M - gap))
    behind = table.disc - ahead * (_TOUCH_M + _CLEARANCE_M)
    if along < -_TOUCH_M / 2:
        return np.asarray(behind)
    # Around the disc on the side where the pusher is already.
    angle = np.arctan2(offset[1], offset[0]) + np.copysign(0.5, side)
    return np.asarray(table.disc + (_TOUCH_M + _CLEARANCE_M) * np.array([np.cos(angle), np.sin(angle)]))
