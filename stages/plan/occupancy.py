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

from nimbusd.stages.base import ComponentArgs
from nimbusd.stages.errors import AssetError
from nimbusd.stages.plan.astar import Cell
from nimbusd.stages.plan.esdf import interpolate, signed_distance
from nimbusd.stages.types import F32, F64, I32, BoolArray, Room, Scene

STRUCTURE = frozenset({"wall", "floor", "ceiling", "door", "window", "baseboard", "stairs", "column"})
"""Categories that are the building itself; everything else counts as furniture."""

CHECK_MARGIN_M = 0.001
"""Planned clearance beyond the robot's radius, so that rounding in another checker finds no collision."""

_MOST_CELLS = 25_000_000
_UPWARD = 0.7  # cosine of the steepest floor, about 45°


class MapArgs(ComponentArgs):
    """What turns a scene into floor maps.

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


class Obstacles:
    """Exact distances to a set of plane shapes, indexed."""

    def __init__(self, shapes: Any) -> None:
        import shapely

        self.shapes = np.asarray(shapes, object)
        self._tree = shapely.STRtree(self.shapes)

    def clearance(self, points_xy: F64) -> F64:
        """(N,) metres from each point to the nearest obstacle, 0 inside one, infinite without any."""
        import shapely

        return self._nearest(shapely.points(points_xy))

    def path_clearance(self, path_xy: F64) -> float:
        """Least distance in metres from any point of a polyline, (N, 2), to the nearest obstacle."""
        return float(self._nearest(_stretches(path_xy)).min())

    def _nearest(self, shapes: Any) -> F64:
        distance = np.full(len(shapes), np.inf)
        if len(self.shapes) and len(shapes):
            (which, _), found = self._tree.query_nearest(shapes, return_distance=True, all_matches=False)
            distance[which] = found
        return distance


@dataclass(frozen=True, eq=False)
class FloorMap:
    """One floor as the robot sees it. Row 0 is the lowest y, column 0 the lowest x.

    z_m: floor height. origin_xy: world x, y of the corner of cell (0, 0).
    occupancy: (H, W) True where an obstacle touches the cell's circumscribed circle, or no floor carries it.
    esdf: (H, W) float32 metres to the nearest obstacle or edge of the floor: exact at the centres of cells that
    are not occupied, negative in occupied ones.
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


def floor_heights(scene: Scene, args: MapArgs) -> list[float]:
    """Heights of the scene's floors in metres, lowest first.

    The rooms say them where there are rooms. Otherwise they are the levels where much area faces up: at least
    2 m² and a fifth of the largest level. Above the lowest, a level counts only if something rises from it to
    the robot's height: the top of a roof is no floor.
    """
    if scene.rooms:
        heights: list[float] = []
        for z_m in sorted(room.z_m for room in scene.rooms):
            if not heights or z_m - heights[-1] > 2 * args.step_m:
                heights.append(z_m)
        return heights
    z, area = _upward_levels(scene, {"floor"})
    if not len(z):
        z, area = _upward_levels(scene, {o.category for o in scene.objects} - {"ceiling"})
    if not len(z):
        return []
    bin_m = 0.05
    bins = np.floor((z - z.min()) / bin_m + 0.5).astype(int)
    total = np.bincount(bins, weights=area)
    top = max(float(obj.world_vertices()[:, 2].max()) for obj in scene.objects if len(obj.vertices))
    levels: list[float] = []
    for number in np.flatnonzero(total >= max(2.0, 0.2 * float(total.max()))):
        z_m = float(np.average(z[bins == number], weights=area[bins == number]))
        if levels and (z_m - levels[-1] < args.robot_height_m or top - z_m < args.robot_height_m):
            continue
        levels.append(round(z_m, 4) + 0.0)  # no -0.0
    return levels


def floor_map(scene: Scene, args: MapArgs, z_m: float, beat: Callable[[], None] = lambda: None) -> FloorMap:
    """The map of the floor at height z_m. A cell needs floor under it; closed doors and glass block.

    beat: called often while it works, which takes seconds for a house of 100 000 triangles.

    Raises AssetError where no floor lies at that height, or where it is too large for the cell size.
    """
    import shapely
    from scipy import ndimage

    support = _hulls(_walkable(scene, either_way=False), z_m - args.step_m, z_m + args.step_m)
    if not len(support):
        support = _hulls(_walkable(scene, either_way=True), z_m - args.step_m, z_m + args.step_m)
    if not len(support):
        raise AssetError(
            f"scene {scene.name!r}: no surface faces up at the floor height {z_m:.2f} m. "
            "Check the mesh's up-axis and units, or the rooms' heights."
        )
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
    rows, columns = np.mgrid[:height, :width]
    centres = np.stack([left + (columns + 0.5) * cell, bottom + (rows + 0.5) * cell], axis=-1).reshape(-1, 2)

    carried = _covered(support, centres).reshape(height, width)
    carried = _close_gaps(carried, args.floor_gap_m / cell)
    rooms = tuple(r for r in scene.rooms if abs(r.z_m - z_m) <= 2 * args.step_m)
    room = _room_index(rooms, centres).reshape(height, width)

    solid = _obstacle_shapes(scene, args, z_m)
    edge = ndimage.binary_dilation(carried, np.ones((3, 3), bool)) & ~carried
    obstacles = Obstacles(np.concatenate([solid, _squares(edge, left, bottom, cell)]))

    clearance = np.zeros((height, width))
    for block in np.array_split(np.flatnonzero(carried), max(1, np.count_nonzero(carried) // 10_000)):
        beat()
        clearance.flat[block] = obstacles.clearance(centres[block])
    occupancy = clearance <= cell * np.sqrt(0.5)
    esdf = np.where(occupancy, signed_distance(occupancy, cell), clearance).astype(np.float32)
    # Two axis positions at distance L from each other, both at least sqrt(r² + L²/4) from an obstacle, have
    # every point between them at least r away from it. The longest step is a cell's diagonal.
    step_safe_m = float(np.sqrt(args.safe_m**2 + cell**2 / 2))
    free = clearance >= step_safe_m
    region = _regions(free, args.min_region_m2 / cell**2)
    if not rooms:
        open_edge = np.zeros_like(edge)
        open_edge[edge] = Obstacles(solid).clearance(centres[edge.ravel()]) > 2 * cell
        region = _indoors(region, signed_distance(open_edge, cell) <= step_safe_m + 2 * cell)
    origin = (float(left), float(bottom))
    return FloorMap(z_m, origin, cell, occupancy, esdf, region > 0, region, room, rooms, obstacles)


def _stretches(path_xy: F64, longest_m: float = 0.2) -> Any:
    """A polyline cut into short ones that touch: an index answers many small questions faster than a large one."""
    import shapely

    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(path_xy, axis=0), axis=1))])
    if along[-1] < 1e-9:
        return shapely.points(path_xy[:1])
    at = np.union1d(along, np.linspace(0.0, along[-1], int(np.ceil(along[-1] / longest_m)) + 1))
    points = np.column_stack([np.interp(at, along, path_xy[:, 0]), np.interp(at, along, path_xy[:, 1])])
    joints = np.flatnonzero(np.diff((at[:-1] / longest_m).astype(int))) + 1
    order = np.sort(np.concatenate([np.arange(len(at)), joints]))  # a joint ends one stretch and begins the next
    begins = np.zeros(len(order), int)
    begins[np.searchsorted(order, joints) + 1] = 1
    return shapely.linestrings(points[order], indices=np.cumsum(begins))


def _walkable(scene: Scene, *, either_way: bool) -> F64:
    """(N, 3, 3) corners in world metres of the triangles that face up, or also down if `either_way`."""
    parts = [obj.world_vertices()[obj.faces] for obj in scene.objects if len(obj.faces)]
    corners = np.concatenate(parts) if parts else np.empty((0, 3, 3))
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    rise = np.abs(normal[:, 2]) if either_way else normal[:, 2]
    return np.asarray(corners[rise > _UPWARD * np.maximum(np.linalg.norm(normal, axis=1), 1e-12)])


def _upward_levels(scene: Scene, categories: set[str]) -> tuple[F64, F64]:
    """Mean height and area of each nearly level triangle that faces up, of objects of these categories."""
    parts = [o.world_vertices()[o.faces] for o in scene.objects if o.category in categories and len(o.faces)]
    corners = np.concatenate(parts) if parts else np.empty((0, 3, 3))
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(normal, axis=1) / 2
    for rise in (normal[:, 2], np.abs(normal[:, 2])):  # some meshes have their floor's faces the wrong way round
        level = rise > 0.98 * np.maximum(2 * area, 1e-12)
        if area[level].sum() >= 2.0:
            return corners[level, :, 2].mean(axis=1), area[level]
    return np.empty(0), np.empty(0)


def _hulls(corners: F64, low_m: float, high_m: float) -> Any:
    """The parts of triangles between two heights, projected to the floor: (M,) convex shapely shapes."""
    import shapely

    z = corners[:, :, 2]
    corners = corners[(z.max(axis=1) >= low_m) & (z.min(axis=1) <= high_m)]
    if not len(corners):
        return np.empty(0, object)
    z = corners[:, :, 2]
    points, valid = [corners[:, :, :2]], [(z >= low_m) & (z <= high_m)]
    tail, head = corners, np.roll(corners, -1, axis=1)
    rise = head[:, :, 2] - tail[:, :, 2]
    for plane in (low_m, high_m):
        crosses = (tail[:, :, 2] - plane) * (head[:, :, 2] - plane) < 0
        share = np.where(crosses, (plane - tail[:, :, 2]) / np.where(crosses, rise, 1.0), 0.0)
        points.append(tail[:, :, :2] + share[:, :, None] * (head - tail)[:, :, :2])
        valid.append(crosses)
    xy, ok = np.concatenate(points, axis=1), np.concatenate(valid, axis=1)
    # A clipped triangle has at most 5 corners of 9 candidates; the others repeat one that is in the band.
    first = xy[np.arange(len(xy)), ok.argmax(axis=1)]
    xy = np.where(ok[:, :, None], xy, first[:, None, :])
    return shapely.convex_hull(shapely.linestrings(xy))


def _obstacle_shapes(scene: Scene, args: MapArgs, z_m: float) -> Any:
    import shapely

    shapes = [np.empty(0, object)]
    for obj in scene.objects:
        hulls = _hulls(obj.world_vertices()[obj.faces], z_m + args.step_m, z_m + args.robot_height_m)
        if args.min_furniture_clearance_m and obj.category not in STRUCTURE and len(hulls):
            hulls = shapely.buffer(hulls, args.min_furniture_clearance_m, quad_segs=4)
        shapes.append(hulls)
    return np.concatenate(shapes)


def _squares(cells: BoolArray, left: float, bottom: float, cell: float) -> Any:
    """Cells as shapes. To the robot, the first cells beyond the floor are obstacles."""
    import shapely

    rows, columns = np.nonzero(cells)
    x, y = left + columns * cell, bottom + rows * cell
    return np.asarray(shapely.box(x, y, x + cell, y + cell), object).reshape(-1)


def _covered(shapes: Any, points_xy: F64) -> BoolArray:
    """(N,) True where a point lies on one of the shapes."""
    import shapely

    covered = np.zeros(len(points_xy), np.bool_)
    covered[shapely.STRtree(shapes).query(shapely.points(points_xy), predicate="intersects")[0]] = True
    return covered


def _close_gaps(carried: BoolArray, gap_cells: float) -> BoolArray:
    """Morphological closing with a disc of that diameter. The map's margin is wide enough for it."""
    if gap_cells <= 0 or not carried.any():
        return carried
    reached = signed_distance(carried, 1.0) <= gap_cells / 2
    return np.asarray(carried | (signed_distance(~reached, 1.0) > gap_cells / 2))


def _regions(free: BoolArray, least_cells: float) -> I32:
    """Connected regions of `free` of at least so many cells, numbered from 1 by their first cell; else 0."""
    from scipy import ndimage

    region, count = ndimage.label(free, np.ones((3, 3), int))
    size = np.bincount(region.ravel(), minlength=count + 1)
    return _renumbered(region, size >= max(least_cells, 1))


def _indoors(region: I32, by_open_edge: BoolArray) -> I32:
    """Without the regions that are ground around a house: those with a third of their rim at the floor's open edge.

    by_open_edge: (H, W) True near where the floor ends without a wall. If all regions are such, they all stay.
    """
    from scipy import ndimage

    rim = (region > 0) & ~ndimage.binary_erosion(region > 0)
    count = int(region.max()) + 1
    rims = np.bincount(region[rim], minlength=count)
    indoors = np.bincount(region[rim & by_open_edge], minlength=count) < rims / 3
    return _renumbered(region, indoors) if indoors[1:].any() else region


def _renumbered(region: I32, keep: BoolArray) -> I32:
    keep = keep.copy()
    keep[0] = False
    return np.asarray(np.where(keep, np.cumsum(keep), 0)[region], np.int32)


def _room_index(rooms: tuple[Room, ...], points_xy: F64) -> I32:
    import shapely

    index = np.full(len(points_xy), -1, np.int32)
    for number, room in enumerate(rooms):
        shape = shapely.polygons(room.polygon)
        index[(index < 0) & shapely.contains_xy(shape, points_xy)] = number
    return index
