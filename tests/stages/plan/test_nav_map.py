"""Floor maps of box scenes: what blocks, what carries, which floors there are, how exact the clearance is."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbusd.stages import AssetError, Scene
from nimbusd.stages.plan.occupancy import FloorMap, MapArgs, floor_heights, floor_map
from nimbusd.stages.plan.raster import Grid, covered_cells
from tests.support.nav_scenes import Boxes, clearance_by_force, cluttered_room, empty_room, two_rooms, two_storeys

ARGS = MapArgs()


def map_of(boxes: Boxes, args: MapArgs = ARGS) -> FloorMap:
    return floor_map(boxes.scene(), args, 0.0)


def is_free(floor: FloorMap, x: float, y: float) -> bool:
    return bool(floor.free[floor.cell_of(np.array([x, y]))])


def test_an_empty_room_is_free_up_to_the_robots_radius_from_its_walls() -> None:
    floor = map_of(empty_room((0, 5), (0, 4)))
    assert floor.free_area_m2 == pytest.approx((5 - 0.5) * (4 - 0.5), rel=0.03)
    assert floor.region.max() == 1
    inside = floor.esdf_at(np.array([[2.5, 1.9], [1.0, 2.0], [4.925, 3.0]]))
    assert inside == pytest.approx([ARGS.reach_m, 1.0, 0.075], abs=1e-3)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 2**32 - 1))
def test_the_map_clearance_is_that_of_a_checker_which_shares_no_code(seed: int) -> None:
    scene = cluttered_room(np.random.default_rng(seed))
    floor = floor_map(scene, ARGS, 0.0)
    cells = np.argwhere(~floor.occupancy)
    expected = clearance_by_force(scene.objects, floor.centres(cells), ARGS.step_m, ARGS.robot_height_m)
    expected = np.minimum(expected, ARGS.reach_m)
    esdf, free = floor.esdf[tuple(cells.T)], floor.free[tuple(cells.T)]
    # The inside of a box that is taller than the robot has no surface in the robot's heights, but no free cell either.
    within = expected == 0
    assert (esdf <= expected + 1e-6)[~within].all()
    assert (esdf >= expected - 0.02**2 / (8 * esdf) - 1e-6)[~within].all()
    assert not free[within].any()
    points = np.random.default_rng(seed).uniform((0.1, 0.1), (5.9, 4.9), (200, 2))
    points = points[clearance_by_force(scene.objects, points, ARGS.step_m, ARGS.robot_height_m) > 0]
    at_points = clearance_by_force(scene.objects, points, ARGS.step_m, ARGS.robot_height_m)
    assert floor.obstacles.clearance(points) == pytest.approx(at_points, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_a_cell_is_covered_if_its_centre_lies_in_a_shape(seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid(-1.0, 2.0, 0.1, 40, 30)
    corners = rng.uniform((-2, 1), (3, 7), (12, 3, 2))  # some beyond the grid
    shapes = shapely.convex_hull(shapely.multipoints(corners))
    rows, columns = np.indices(grid.shape)
    centres = shapely.points(grid.centres(rows, columns))
    areas = shapes[shapely.area(shapes) > 0]
    expected = np.zeros(grid.shape, np.bool_)
    sure = np.ones(grid.shape, np.bool_)
    for shape in areas:
        expected |= shapely.intersects(shape, centres)
        sure &= shapely.distance(shapely.boundary(shape), centres) > 1e-6
    assert (covered_cells(areas, grid) == expected)[sure].all()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1), st.floats(-0.02, 0.02).filter(lambda change: abs(change) > 1e-9))
def test_path_checks_agree_with_dense_points_along_the_path(seed: int, change: float) -> None:
    rng = np.random.default_rng(seed)
    floor = floor_map(cluttered_room(rng, 4), MapArgs(cell_m=0.1), 0.0)
    path = rng.uniform((0.1, 0.1), (5.9, 4.9), (4, 2))
    dense = np.concatenate([a + np.linspace(0, 1, 2000)[:, None] * (b - a) for a, b in pairwise(path)])
    sampled = floor.obstacles.clearance(dense).min()
    exact = floor.obstacles.path_clearance(path)
    assert exact <= sampled + 1e-9
    assert exact >= sampled - 0.004
    for margin in (change, 1e-9, -1e-9):
        assert floor.keeps_clear(path, exact + margin) == (margin < 0)


def test_rugs_are_driven_over_and_boards_above_the_robot_are_driven_under() -> None:
    boxes = empty_room()
    boxes.box("rug", (1, 2), (1, 2), (0, 0.02))
    boxes.box("lamp", (3, 4), (1, 2), (1.3, 1.4))
    floor = map_of(boxes)
    assert is_free(floor, 1.5, 1.5)
    assert is_free(floor, 3.5, 1.5)


def test_a_table_top_blocks_though_the_robot_fits_between_its_legs_heights() -> None:
    boxes = empty_room()
    boxes.box("table", (2, 3), (1, 2), (0.7, 0.75))
    assert not is_free(map_of(boxes), 2.5, 1.5)


def test_a_pole_thinner_than_a_cell_blocks() -> None:
    boxes = empty_room()
    boxes.box("lamp", (2.512, 2.514), (1.512, 1.514), (0, 1.5))
    floor = map_of(boxes)
    assert not is_free(floor, 2.5, 1.5)
    assert floor.esdf_at(np.array([[2.025, 1.513]]))[0] == pytest.approx(0.487, abs=1e-3)


def test_where_there_is_no_floor_there_is_no_free_cell_and_the_robot_keeps_off_the_edge() -> None:
    boxes = Boxes()
    boxes.box("floor", (0, 4), (0, 4), (-0.1, 0))
    floor = map_of(boxes)
    assert floor.free_area_m2 == pytest.approx(3.5 * 3.5, rel=0.05)
    assert not is_free(floor, 3.9, 2.0)
    assert is_free(floor, 3.7, 2.0)


@pytest.mark.parametrize(("gap_m", "regions"), [(0.1, 1), (0.24, 1), (0.6, 2)])
def test_narrow_gaps_in_the_floor_of_a_doorway_are_bridged(gap_m: float, regions: int) -> None:
    assert map_of(two_rooms(floor_gap_m=gap_m)).region.max() == regions


@pytest.mark.parametrize(("door_m", "regions"), [(0.0, 2), (0.45, 2), (0.6, 1), (0.9, 1)])
def test_a_door_joins_two_rooms_if_the_robot_fits_through(door_m: float, regions: int) -> None:
    assert map_of(two_rooms(door_m)).region.max() == regions


def test_the_inside_of_a_wardrobe_is_not_free() -> None:
    boxes = empty_room()
    boxes.box("wardrobe", (1, 2.2), (1, 1.8), (0, 2.1))
    assert not is_free(map_of(boxes), 1.6, 1.4)


@pytest.mark.parametrize("ground_m", [1.5, 6.0])
def test_the_ground_around_a_house_is_not_one_of_its_rooms(ground_m: float) -> None:
    boxes = empty_room((0, 5), (0, 4))
    boxes.box("ground", (-ground_m, 5 + ground_m), (-ground_m, 4.1), (-0.1, 0))
    floor = floor_map(boxes.scene(rooms=False), ARGS, 0.0)
    assert is_free(floor, 2.5, 2.0)
    assert not is_free(floor, -1.0, 1.0)


def test_furniture_clearance_widens_furniture_but_not_walls() -> None:
    boxes = empty_room()
    boxes.box("sofa", (2, 3), (1.5, 2.5), (0, 0.8))
    plain, wide = map_of(boxes), map_of(boxes, MapArgs(min_furniture_clearance_m=0.2))
    point, by_wall = np.array([[1.525, 2.025]]), np.array([[0.125, 2.025]])
    assert plain.esdf_at(point) - wide.esdf_at(point) == pytest.approx(0.2, abs=1e-4)
    assert plain.esdf_at(by_wall) == pytest.approx(wide.esdf_at(by_wall))


@pytest.mark.parametrize("rooms", [True, False])
def test_both_storeys_are_found_and_the_roof_is_not(rooms: bool) -> None:
    assert floor_heights(two_storeys(rooms=rooms), ARGS) == pytest.approx([0.0, 2.8], abs=1e-6)


def test_the_upper_storey_has_a_hole_where_the_stairs_are() -> None:
    scene = two_storeys(rooms=False)
    lower, upper = floor_map(scene, ARGS, 0.0), floor_map(scene, ARGS, 2.8)
    assert is_free(lower, 5.0, 4.5)
    assert not is_free(upper, 5.0, 4.5)
    assert is_free(upper, 2.0, 4.5)


def test_a_scene_without_level_surfaces_has_no_floors() -> None:
    assert floor_heights(Scene("void", ()), ARGS) == []


def test_a_floor_height_without_floor_is_an_asset_error_that_names_the_scene() -> None:
    with pytest.raises(AssetError, match=r"'boxes'.*7\.00 m"):
        floor_map(empty_room().scene(), ARGS, 7.0)


def test_a_scene_in_the_wrong_units_is_an_asset_error_that_says_so() -> None:
    with pytest.raises(AssetError, match="units"):
        floor_map(empty_room((0, 5000), (0, 4000)).scene(), ARGS, 0.0)


def test_turned_over_floor_faces_still_carry() -> None:
    scene = empty_room().scene(rooms=False)
    over = tuple(dataclasses.replace(obj, faces=obj.faces[:, ::-1].copy()) for obj in scene.objects)
    turned = dataclasses.replace(scene, objects=over)
    heights = floor_heights(turned, ARGS)
    assert 0.0 in [pytest.approx(z, abs=0.11) for z in heights]
