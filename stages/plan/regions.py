"""The connected parts of a floor that are free, and which of them are places for people, and so for the robot."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nimbusd.stages.base import no_beat
from nimbusd.stages.plan.raster import Grid, grown
from nimbusd.stages.plan.solids import enclosure
from nimbusd.stages.plan.surfaces import Surfaces
from nimbusd.stages.types import I32, BoolArray

_WALL_M = 0.6
"""From the rim of a free region to the outside of the shell around it: the robot's radius and the shell's thickness."""

_LEAST_HOUSE_M2 = 4.0
"""Free area within walls that makes the ground around them no place to go; a crate on a yard is no house."""


def regions_of(free: BoolArray, least_cells: float, beat: Callable[[], None] = no_beat) -> I32:
    """Connected regions of `free` of at least so many cells, numbered from 1 by their first cell; else 0."""
    from scipy import ndimage

    region, count = ndimage.label(free, np.ones((3, 3), int))
    beat()
    size = np.bincount(region.ravel(), minlength=count + 1)
    beat()
    return _renumbered(np.asarray(region, np.int32), size >= max(least_cells, 1))


def places_for_people(
    surfaces: Surfaces,
    region: I32,
    carried: BoolArray,
    room: I32,
    by_open_edge: BoolArray,
    grid: Grid,
    band_m: tuple[float, float],
    z_m: float,
    beat: Callable[[], None] = no_beat,
) -> I32:
    """The regions without insides of solids, without hollows where nobody can stand, and without a house's ground.

    region, room: (H, W) int32 as in FloorMap. carried: (H, W) where there is floor. by_open_edge: (H, W) near where
    the floor ends without a wall. band_m, z_m: heights of the robot's lowest and highest part and of the floor.
    """
    if not region.any():
        return region
    beat()
    around = enclosure(surfaces, region, grid, band_m, z_m, beat)
    beat()
    solid = _kept(around.solid)
    solid &= ~_whole_rooms(region, room)
    if solid.any() and not _floor_goes_on(region, solid, carried, grid, beat):
        solid[:] = False  # a closed room whose walls look the wrong way: its floor ends where they are
    region = _renumbered(region, ~solid)
    usable = ~_kept(around.cramped[~solid[1:]])
    region = _renumbered(region, usable) if usable[1:].any() else region
    beat()
    return _indoors(region, by_open_edge, _LEAST_HOUSE_M2 / grid.cell_m**2)


def _kept(of_regions: BoolArray) -> BoolArray:
    """The same with a value for 0, which is no region."""
    return np.append(False, of_regions)


def _whole_rooms(region: I32, room: I32) -> BoolArray:
    """(R + 1,) True for the regions that take up most of one of the scene's rooms: they are that room."""
    count, rooms = int(region.max()) + 1, int(room.max()) + 1
    whole = np.zeros(count, np.bool_)
    if not rooms:
        return whole
    known = room >= 0
    area = np.bincount(room[known], minlength=rooms)
    both = np.bincount(region[known].astype(np.int64) * rooms + room[known], minlength=count * rooms)
    most = (both.reshape(count, rooms) > area / 2).any(axis=1)
    whole[1:] = most[1:]
    return whole


def _floor_goes_on(region: I32, solid: BoolArray, carried: BoolArray, grid: Grid, beat: Callable[[], None]) -> bool:
    """True where there is floor beyond the shells around the regions that look like the insides of solids."""
    return bool((carried & ~grown(solid[region], _WALL_M / grid.cell_m, beat)).any())


def _indoors(region: I32, by_open_edge: BoolArray, least_cells: float) -> I32:
    """Without the regions that are ground around a house: those with a third of their rim at the floor's open edge.

    by_open_edge: (H, W) True near where the floor ends without a wall. They all stay if what is within walls is
    smaller than least_cells.
    """
    from scipy import ndimage

    rim = (region > 0) & ~ndimage.binary_erosion(region > 0)
    count = int(region.max(initial=0)) + 1
    rims = np.bincount(region[rim], minlength=count)
    indoors = np.bincount(region[rim & by_open_edge], minlength=count) < rims / 3
    size = np.bincount(region.ravel(), minlength=count)
    return _renumbered(region, indoors) if size[1:][indoors[1:]].sum() >= least_cells else region


def _renumbered(region: I32, keep: BoolArray) -> I32:
    if keep[1:].all():
        return region
    keep = keep.copy()
    keep[0] = False
    return np.asarray(np.where(keep, np.cumsum(keep), 0)[region], np.int32)
