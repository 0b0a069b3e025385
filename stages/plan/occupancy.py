"""From a scene's triangles to a floor map: where a cylindrical robot can stand.

Two descriptions of the same obstacles are kept. The grid (occupancy, distance field) serves search. The exact
one serves checks: every triangle, clipped to the heights that the robot fills and projected to the floor, is a
convex polygon, and the robot's clearance is its axis's distance to the nearest of them. Nothing is sampled, so
a thin chair leg between two cells cannot be missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from nimbusd.stages.base import ComponentArgs, no_beat
from nimbusd.stages.errors import AssetError
from nimbusd.stages.plan.esdf import distance_to, interpolate
from nimbusd.stages.plan.grid_search import Cell
from nimbusd.stages.plan.obstacles import Obstacles, clearance_field
from nimbusd.stages.plan.raster import Grid, close_gaps, covered_cells, grown, room_index
from nimbusd.stages.plan.regions import places_for_people, regions_of
from nimbusd.stages.plan.surfaces import Surfaces, hulls
from nimbusd.stages.types import F32, F64, I32, BoolArray, Room, Scene

CHECK_MARGIN_M = 0.001
"""Planned clearance beyond the robot's radius, so that rounding in another checker finds no collision."""

_MOST_CELLS = 25_000_000


class MapArgs(ComponentArgs):
    """Measures that turn a scene into floor maps.

    step_m: obstacles lower than this are driven over (rugs, thresholds). floor_gap_m: gaps in the floor
    narrower than this are bridged (floors that stop at the wall in a doorway). min_region_m2: free regions
    smaller than this are not used (the inside of a wardrobe). min_furniture_clearance_m: distance that the
    robot's side keeps from furniture, beyond not touching it.
    """

    cell_m: float = Field(default=0.05, gt=0, le=0.5)
    robot_radius_m: float = Field(default=0.25, gt=0)
    robot_height_m: float = Field(default=1.2, gt=0)
    step_m: float = Field(default=0.05, ge=0)
    floor_gap_m: float = Field(default=0.3, ge=0)
    min_region_m2: float = Field(default=1.0, ge=0)
    min_furniture_clearance_m: float = Field(default=0.0, ge=0)

    @property
    def safe_m(self) -> float:
        """Clearance of the robot's axis that every point of a planned path keeps."""
        return self.robot_radius_m + CHECK_MARGIN_M

    @property
    def reach_m(self) -> float:
        """Clearances beyond this are not told apart."""
        return self.safe_m + 1.0


@dataclass(frozen=True, eq=False)
class FloorMap:
    """One floor as the robot sees it. Row 0 is the lowest y, column 0 the lowest x.

    z_m: floor height. origin_xy: world x, y of the corner of cell (0, 0).
    occupancy: (H, W) True where an obstacle touches the cell's circumscribed circle, or no floor carries it.
    esdf: (H, W) float32 metres from a cell's centre to the nearest obstacle or edge of the floor, at most the
    arguments' `reach_m`; never too much, and short by `clearance_field`'s small margin. Negative in occupied cells.
    free: (H, W) True where the robot can stand with its axis at the cell's centre, in a region that is large
    enough. The margin in it makes every straight step between free neighbours free of collisions, too.
    region: (H, W) int32, connected regions of `free` counted from 1, 0 elsewhere.
    room: (H, W) int32, index into `rooms`, -1 outside all of them. obstacles: the exact geometry.
    """

    z_m: float
    origin_xy: tuple[float, float]
    cell_m: float
    occupancy: BoolArray
    esdf: F32
    free: BoolArray
    region: I32
    room: I32
    rooms: tuple[Room, ...]
    obstacles: Obstacles

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.free.shape[0], self.free.shape[1]

    @property
    def free_area_m2(self) -> float:
        """Area of the free cells."""
        return float(np.count_nonzero(self.free)) * self.cell_m**2

    def cell_of(self, xy: F64) -> Cell:
        """The cell that holds a world point, clamped to the map."""
        column, row = np.floor((np.asarray(xy) - self.origin_xy) / self.cell_m).astype(int)
        height, width = self.occupancy.shape
        return int(np.clip(row, 0, height - 1)), int(np.clip(column, 0, width - 1))

    def centres(self, cells: Any) -> F64:
        """(N, 2) world x, y of the centres of cells given as (N, 2) rows and columns."""
        return np.asarray(self.origin_xy + (np.asarray(cells)[:, ::-1] + 0.5) * self.cell_m, np.float64)

    def esdf_at(self, points_xy: F64) -> F64:
        """(N,) distance field in metres at (N, 2) points, bilinear."""
        return interpolate(self.esdf, self.origin_xy, self.cell_m, points_xy)

    def keeps_clear(self, path_xy: F64, distance_m: float) -> bool:
        """Does every point of a polyline stay `distance_m` away from every obstacle? Exact.

        Most stretches are settled by the distance field: the clearance at a cell's centre, less the distance
        to it, bounds the clearance from below.
        """
        along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path_xy, axis=0), axis=1))])
        at = np.union1d(along, np.arange(0.0, along[-1], self.cell_m / 2))
        points = np.column_stack([np.interp(at, along, path_xy[:, 0]), np.interp(at, along, path_xy[:, 1])])
        height, width = self.esdf.shape
        cells = np.floor((points - self.origin_xy) / self.cell_m).astype(int)[:, ::-1]
        inside = ((cells >= 0) & (cells < (height, width))).all(axis=1)
        cells = np.clip(cells, 0, (height - 1, width - 1))
        bound = (
            self.esdf[cells[:, 0], cells[:, 1]] - np.linalg.norm(points - self.centres(cells), axis=1) - self.cell_m / 4
        )
        doubtful = ~inside | (bound < distance_m + 1e-6)
        doubtful[1:] |= doubtful[:-1]  # a stretch between two points is settled only if both are
        doubtful[:-1] |= doubtful[1:]
        starts = np.flatnonzero(doubtful & ~np.concatenate([[False], doubtful[:-1]]))
        stops = np.flatnonzero(doubtful & ~np.concatenate([doubtful[1:], [False]]))
        return all(
            self.obstacles.path_clearance(points[i : j + 1]) >= distance_m for i, j in zip(starts, stops, strict=True)
        )


def floor_maps(scene: Scene, args: MapArgs, beat: Callable[[], None] = no_beat) -> tuple[FloorMap, ...]:
    """The maps of all floors of a scene, lowest first. See `floor_map`."""
    surfaces = Surfaces.of(scene)
    return tuple(_map_of(scene, surfaces, args, z_m, beat) for z_m in _heights(scene.rooms, surfaces, args))


def floor_heights(scene: Scene, args: MapArgs) -> list[float]:
    """Heights of the scene's floors in metres, lowest first.

    The rooms say them where there are rooms. Otherwise they are the levels where much area faces up: at least
    2 m² and a fifth of the largest level. Above the lowest, a level counts only if something rises from it to
    the robot's height: the top of a roof is no floor.
    """
    return _heights(scene.rooms, Surfaces.of(scene), args)


def floor_map(scene: Scene, args: MapArgs, z_m: float, beat: Callable[[], None] = no_beat) -> FloorMap:
    """The map of the floor at height z_m. A cell needs floor under it; closed doors and glass block.

    beat: called often while it works, which takes seconds for a large site or a house of 100 000 triangles.

    Raises AssetError where no floor lies at that height, or where it is too large for the cell size.
    """
    return _map_of(scene, Surfaces.of(scene), args, z_m, beat)


def _heights(rooms: tuple[Room, ...], surfaces: Surfaces, args: MapArgs) -> list[float]:
    if rooms:
        heights: list[float] = []
        for z_m in sorted(room.z_m for room in rooms):
            if not heights or z_m - heights[-1] > 2 * args.step_m:
                heights.append(z_m)
        return heights
    z, area = surfaces.levels()
    if not len(z):
        return []
    bin_m = 0.05
    bins = np.floor((z - z.min()) / bin_m + 0.5).astype(int)
    total = np.bincount(bins, weights=area)
    levels: list[float] = []
    for number in np.flatnonzero(total >= max(2.0, 0.2 * float(total.max()))):
        z_m = float(np.average(z[bins == number], weights=area[bins == number]))
        if levels and (z_m - levels[-1] < args.robot_height_m or surfaces.top_m - z_m < args.robot_height_m):
            continue
        levels.append(round(z_m, 4) + 0.0)  # no -0.0
    return levels


def _map_of(scene: Scene, surfaces: Surfaces, args: MapArgs, z_m: float, beat: Callable[[], None]) -> FloorMap:
    from scipy import ndimage

    support = _support(scene, surfaces, args, z_m)
    grid = _grid_over(scene, support, args, z_m)
    cell = args.cell_m
    beat()
    carried = close_gaps(covered_cells(support, grid, beat), args.floor_gap_m / cell, beat)
    rooms = tuple(r for r in scene.rooms if abs(r.z_m - z_m) <= 2 * args.step_m)

    band_m = z_m + args.step_m, z_m + args.robot_height_m
    solid = _obstacle_shapes(surfaces, args, band_m)
    edge = ndimage.binary_dilation(carried, np.ones((3, 3), bool)) & ~carried
    beat()
    obstacles = Obstacles(np.concatenate([solid, grid.squares(edge)]))
    beat()
    esdf = clearance_field(obstacles.shapes, grid, carried, args.reach_m, beat)
    occupancy = esdf <= cell * np.sqrt(0.5)
    # Two axis positions at distance L from each other, both at least sqrt(r² + L²/4) from an obstacle, have
    # every point between them at least r away from it. The longest step is a cell's diagonal.
    step_safe_m = float(np.sqrt(args.safe_m**2 + cell**2 / 2))
    beat()
    region = regions_of(esdf >= step_safe_m, args.min_region_m2 / cell**2, beat)
    beat()
    np.copyto(esdf, -distance_to(~occupancy, cell, args.reach_m, beat), where=occupancy)

    beat()
    room = room_index(rooms, grid)
    by_open_edge = np.zeros(grid.shape, np.bool_)
    if not rooms:
        open_edge = np.zeros_like(edge)
        open_edge[edge] = Obstacles(solid).clearance(grid.centres(*np.nonzero(edge))) > 2 * cell
        by_open_edge = grown(open_edge, step_safe_m / cell + 2, beat)
    region = places_for_people(surfaces, region, carried, room, by_open_edge, grid, band_m, z_m, beat)
    origin = (grid.left, grid.bottom)
    return FloorMap(z_m, origin, cell, occupancy, esdf, region > 0, region, room, rooms, obstacles)


def _support(scene: Scene, surfaces: Surfaces, args: MapArgs, z_m: float) -> Any:
    """Ground that carries the robot at a height, as plane shapes: faces that look up, or any if none does."""
    for either_way in (False, True):
        support, _ = hulls(surfaces.walkable(either_way=either_way), z_m - args.step_m, z_m + args.step_m)
        if len(support):
            return support
    raise AssetError(
        f"scene {scene.name!r}: no surface faces up at the floor height {z_m:.2f} m. "
        "Check the mesh's up-axis and units, or the rooms' heights."
    )


def _grid_over(scene: Scene, support: Any, args: MapArgs, z_m: float) -> Grid:
    import shapely

    cell = args.cell_m
    x0, y0, x1, y1 = shapely.total_bounds(support)
    # Floor heights and extents are often round numbers; snapping the grid keeps walls on cell borders.
    margin = args.floor_gap_m + 2 * cell
    left, bottom = np.floor((x0 - margin) / cell) * cell, np.floor((y0 - margin) / cell) * cell
    width, height = int(np.ceil((x1 + margin - left) / cell)), int(np.ceil((y1 + margin - bottom) / cell))
    if width * height > _MOST_CELLS:
        raise AssetError(
            f"scene {scene.name!r}: the floor at {z_m:.2f} m is {x1 - x0:.0f} x {y1 - y0:.0f} m, too large for cells "
            f"of {cell} m. Check the mesh's units, or make `cell_m` larger."
        )
    return Grid(float(left), float(bottom), cell, height, width)


def _obstacle_shapes(surfaces: Surfaces, args: MapArgs, band_m: tuple[float, float]) -> Any:
    import shapely

    shapes, present = hulls(surfaces.corners, *band_m)
    furniture = surfaces.furniture[present]
    if args.min_furniture_clearance_m and furniture.any():
        shapes[furniture] = shapely.buffer(shapes[furniture], args.min_furniture_clearance_m, quad_segs=4)
    return shapes
