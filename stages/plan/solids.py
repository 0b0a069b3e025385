"""Free regions that are no place for a person: hollows inside closed solids, and spaces where nobody can stand.

Meshes are shells: the inside of a closed box has no surface in it, and looks as free as a room. What tells them apart
is the side from which their faces are seen. Along a ray that leaves a solid, one surface is left that was never
entered; along a ray from a room, every surface that is left was entered before, or the ray ends at one that was not
left. This holds for boxes in boxes, for boxes in rooms of single faces, and for boxes that touch. One ray proves
nothing on a mesh with holes, so that many are cast from many places of a region: level ones all around at several
heights, and one straight up. What sees the sky is in no closed solid, whatever the level rays say.
Source: the winding number of a closed surface as the sum of its crossings along a ray (see Jacobson et al. 2013).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nimbusd.stages.base import no_beat
from nimbusd.stages.plan.raster import Grid
from nimbusd.stages.plan.surfaces import Surfaces
from nimbusd.stages.types import F64, I32, BoolArray

_PLACES = 16
"""Places of each region from which rays are cast."""

_HEIGHTS = (0.31, 0.53, 0.79)
"""Of level rays, as parts of the band that the robot fills."""

_ANGLES = tuple(0.13 + np.pi / 4 * np.arange(4))
"""Of lines along which level rays go both ways; none runs along the walls of most buildings."""

_MOST = 0.6
"""The share of the rays that must agree. A cabinet without a back leaves a part of them open."""

_TOUCHING_M = 0.001
"""Surfaces so near to each other on a ray are entered before one is left."""

_UPRIGHT_M = 1.8
"""Headroom of a place where a person can stand."""

_PLACES_AT_ONCE = 2048


@dataclass(frozen=True, slots=True)
class Enclosure:
    """Findings of rays from the regions of a floor. Arrays are (R,), one value for each region, from region 1 on.

    level, upward: part of the rays that leave something which they did not enter. low: part of the places with
    something over the robot that is too low for a person.
    """

    level: F64
    upward: F64
    low: F64

    @property
    def solid(self) -> BoolArray:
        """(R,) True for the insides of closed solids."""
        return (self.level >= _MOST) & (self.upward >= _MOST)

    @property
    def cramped(self) -> BoolArray:
        """(R,) True where nobody can stand: the hollow of a cabinet whose sides have a thickness."""
        return np.asarray(self.low > 0.9)


def enclosure(
    surfaces: Surfaces,
    region: I32,
    grid: Grid,
    band_m: tuple[float, float],
    z_m: float,
    beat: Callable[[], None] = no_beat,
) -> Enclosure:
    """Look around from every region of a floor.

    region: (H, W) int32, regions counted from 1. band_m: lowest and highest height that the robot fills, in world
    metres; nothing is between them where it is free. z_m: height of the floor.
    """
    places, owner = _places(region, grid)
    count = int(region.max(initial=0))
    rays = np.bincount(owner, minlength=count).astype(np.float64)
    left = np.zeros(len(places))
    heights = [band_m[0] + part * (band_m[1] - band_m[0]) for part in _HEIGHTS]
    for height_m in heights:
        outline = _Slice.of(surfaces, height_m)
        for angle in _ANGLES:
            for start in range(0, len(places), _PLACES_AT_ONCE):
                beat()
                some = slice(start, start + _PLACES_AT_ONCE)
                left[some] += outline.leaving(places[some], float(angle))
    upward, headroom_m = _look_up(surfaces, places, band_m[0], beat)
    below = headroom_m < z_m + _UPRIGHT_M - band_m[0]

    def share(of_places: F64) -> F64:
        return np.asarray(np.bincount(owner, weights=of_places, minlength=count) / np.maximum(rays, 1))

    return Enclosure(
        share(left / (2 * len(heights) * len(_ANGLES))),
        share(upward.astype(np.float64)),
        share(below.astype(np.float64)),
    )


def _places(region: I32, grid: Grid) -> tuple[F64, I32]:
    """(P, 2) centres of cells spread over every region, and (P,) the region's number less one."""
    from scipy import ndimage

    places, owner = [np.empty((0, 2))], [np.empty(0, np.int32)]
    for number, window in enumerate(ndimage.find_objects(region)):
        part = region[window] == number + 1
        cells = np.flatnonzero(part)
        chosen = cells[np.linspace(0, len(cells) - 1, min(len(cells), _PLACES)).astype(np.int64)]
        rows, columns = np.unravel_index(chosen, part.shape)
        places.append(grid.centres(rows + window[0].start, columns + window[1].start))
        owner.append(np.full(len(chosen), number, np.int32))
    return np.concatenate(places), np.concatenate(owner)


@dataclass(frozen=True, slots=True)
class _Slice:
    """A level cut through the surfaces. ends: (K, 2, 2) segments. outward: (K, 2) their surfaces' normals, levelled."""

    ends: F64
    outward: F64

    @classmethod
    def of(cls, surfaces: Surfaces, height_m: float) -> _Slice:
        above = surfaces.corners[:, :, 2] > height_m
        cut = above.any(axis=1) & ~above.all(axis=1)
        corners, above = surfaces.corners[cut], above[cut]
        lone = np.where(above.sum(axis=1) == 1, above.argmax(axis=1), (~above).argmax(axis=1))
        each = np.arange(len(corners))
        apex = corners[each, lone]
        ends = []
        for step in (1, 2):
            other = corners[each, (lone + step) % 3]
            share = (height_m - apex[:, 2]) / (other[:, 2] - apex[:, 2])
            ends.append((apex + share[:, None] * (other - apex))[:, :2])
        return cls(np.stack(ends, axis=1), surfaces.normals[cut, :2])

    def leaving(self, places: F64, angle: float) -> F64:
        """(P,) how many of the two rays along a line, this way and back, leave what they did not enter."""
        along = np.array([np.cos(angle), np.sin(angle)])
        aside = np.array([-along[1], along[0]])
        u, v = self.ends @ along, self.ends @ aside
        outward = np.sign(self.outward @ along).astype(np.int64)
        order = np.argsort(places @ aside)
        at = (places @ aside)[order]
        # A segment has its lower end and not its upper one, so that a ray through a corner meets one of two.
        first, stop = np.searchsorted(at, v.min(axis=1)), np.searchsorted(at, v.max(axis=1))
        crossed = stop - first
        segment = np.repeat(np.arange(len(crossed)), crossed)
        place = order[np.arange(len(segment)) - (np.cumsum(crossed) - crossed - first)[segment]].astype(np.int32)
        share = ((places @ aside)[place] - v[segment, 0]) / (v[segment, 1] - v[segment, 0])
        away = u[segment, 0] + share * (u[segment, 1] - u[segment, 0]) - (places @ along)[place]
        sign = outward[segment].astype(np.int32)
        ahead = away > 0
        both = _leaves(place[ahead], away[ahead], sign[ahead], len(places)).astype(np.float64)
        both += _leaves(place[~ahead], -away[~ahead], -sign[~ahead], len(places))
        return both


def _look_up(surfaces: Surfaces, places: F64, low_m: float, beat: Callable[[], None]) -> tuple[BoolArray, F64]:
    """(P,) whether the ray straight up leaves what it did not enter; (P,) metres above `low_m` of what it meets."""
    reaches = surfaces.corners[:, :, 2].max(axis=1) > low_m
    corners, rise = surfaces.corners[reaches], np.sign(surfaces.normals[reaches, 2]).astype(np.int32)
    low, high = corners[:, :, :2].min(axis=1), corners[:, :, :2].max(axis=1)
    found: list[tuple[I32, F64, I32]] = []
    for start in range(0, len(places), _PLACES):
        beat()
        some = places[start : start + _PLACES]
        near = np.flatnonzero(((low <= some.max(axis=0)) & (high >= some.min(axis=0))).all(axis=1) & (rise != 0))
        where, which = np.nonzero(((low[near] <= some[:, None]) & (high[near] >= some[:, None])).all(axis=2))
        triangle = near[which]
        height, inside = _height_at(corners[triangle], some[where])
        met = inside & (height > low_m)
        found.append(((where[met] + start).astype(np.int32), height[met] - low_m, rise[triangle[met]]))
    place, away, sign = (np.concatenate(parts) for parts in zip(*found, strict=True)) if found else _NOTHING
    headroom_m = np.full(len(places), np.inf)
    np.minimum.at(headroom_m, place, away)
    return _leaves(place, away, sign, len(places)), headroom_m


_NOTHING = (np.empty(0, np.int32), np.empty(0), np.empty(0, np.int32))


def _height_at(corners: F64, xy: F64) -> tuple[F64, BoolArray]:
    """(K,) heights of triangles over points, and whether a point is under the triangle: on a shared edge, under one."""
    a, b, c = (corners[:, i] for i in range(3))

    def side(p: F64, q: F64) -> tuple[F64, BoolArray]:
        """Twice the signed area with the point; whether it is to the left: on the line, for one of two neighbours."""
        area: F64 = (q[:, 0] - p[:, 0]) * (xy[:, 1] - p[:, 1]) - (q[:, 1] - p[:, 1]) * (xy[:, 0] - p[:, 0])
        forward = (q[:, 1] > p[:, 1]) | ((q[:, 1] == p[:, 1]) & (q[:, 0] > p[:, 0]))
        return area, (area > 0) | ((area == 0) & forward)

    (wc, ab), (wa, bc), (wb, ca) = side(a, b), side(b, c), side(c, a)
    total = wa + wb + wc
    inside = ((ab == bc) & (bc == ca)) & (total != 0)
    safe = np.where(total == 0, 1.0, total)
    return (wa * a[:, 2] + wb * b[:, 2] + wc * c[:, 2]) / safe, inside


def _leaves(place: I32, away: F64, sign: I32, count: int) -> BoolArray:
    """(count,) whether a ray leaves what it did not enter.

    Crossings of rays in any order: whose ray, metres along it, and 1 where it goes with the surface's normal (leaves),
    -1 against it (enters).
    """
    leaves = np.zeros(count, np.bool_)
    if not len(place):
        return leaves
    order = np.lexsort((sign, np.round(away / _TOUCHING_M), place))
    place, sign = place[order], sign[order]
    depth = np.cumsum(sign)
    begins = np.flatnonzero(np.append(True, np.diff(place) != 0))
    before = (depth - sign)[begins]
    leaves[place[begins]] = np.maximum.reduceat(depth, begins) - before >= 1
    return leaves
