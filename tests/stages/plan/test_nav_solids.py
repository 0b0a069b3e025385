"""The robot is never inside anything solid, and every place for people stays one, however its mesh is made."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from nimbusd.stages import PlanningFailed
from nimbusd.stages.plan.bodies import inside_out
from nimbusd.stages.plan.nav import NavArgs, NavPlanner
from nimbusd.stages.plan.occupancy import FloorMap, MapArgs, floor_map
from tests.benchmarks.nav_solids import ARGS as SHORT_DRIVES
from tests.benchmarks.nav_solids import BAND_M, CHORD_M, drives
from tests.support.nav_scenes import Boxes, empty_room, two_rooms
from tests.support.nav_solids import GROUNDS, SolidBoxes, ground, rectangle, solid_scene
from tests.support.slow import quick_first

ARGS = MapArgs()


def map_of(boxes: Boxes) -> FloorMap:
    return floor_map(boxes.scene(rooms=False), ARGS, 0.0)


def free_m2(floor: FloorMap, x: tuple[float, float], y: tuple[float, float]) -> float:
    """Free area between two corners."""
    cells = floor.centres(np.argwhere(floor.free))
    return float(((cells >= (x[0], y[0])) & (cells <= (x[1], y[1]))).all(axis=1).sum()) * floor.cell_m**2


@pytest.mark.parametrize("number", quick_first(range(80), 20))
def test_no_drive_touches_a_solid_whatever_it_is_and_stands_on(number: int) -> None:
    made = solid_scene(number)
    planned, _ = drives(NavPlanner(SHORT_DRIVES), made.scene, 3)
    assert len(planned) == 3
    for path in planned:
        assert made.distance_m(path, BAND_M) >= SHORT_DRIVES.robot_radius_m - CHORD_M


@pytest.mark.parametrize("kind", GROUNDS)
@pytest.mark.parametrize("inside_out", [False, True])
def test_a_cube_leaves_all_the_floor_around_it_free_and_nothing_inside(kind: str, inside_out: bool) -> None:
    boxes = ground(kind, 10.0)
    boxes.prism(rectangle((4, 6), (4, 6)), (0, 2), inside_out=inside_out)
    floor = map_of(boxes)
    assert free_m2(floor, (4, 4), (4, 6)) == free_m2(floor, (4, 6), (4, 6)) == 0
    assert floor.free_area_m2 == pytest.approx(9.5**2 - 2.5**2 + 0.0537, rel=0.02)


@pytest.mark.parametrize("kind", GROUNDS)
def test_the_space_between_two_nested_boxes_is_inside_too(kind: str) -> None:
    boxes = ground(kind, 12.0)
    boxes.prism(rectangle((2, 8), (2, 8)), (0, 2.4))
    boxes.prism(rectangle((4, 6), (4, 6)), (0, 2.2))
    assert free_m2(map_of(boxes), (2, 8), (2, 8)) == 0


def test_solids_behind_doors_that_are_shut_do_not_make_rooms_solid() -> None:
    boxes = two_rooms(door_m=0.0)
    boxes.box("ceiling", (-0.1, 8.1), (-0.1, 4.1), (2.5, 2.6))
    boxes.box("wardrobe", (4.2, 6.2), (2.2, 4.0), (0, 2.0))
    floor = map_of(boxes)
    assert floor.region.max() == 2
    assert free_m2(floor, (4.2, 6.2), (2.2, 4.0)) == 0


def shell(boxes: SolidBoxes, size_m: float, *, looks_in: bool, z_m: float = 0.0) -> None:
    boxes.prism(rectangle((0, size_m), (0, size_m)), (z_m, z_m + 2.6), inside_out=looks_in)
    boxes.solids.pop()


def test_a_closed_room_of_one_mesh_that_looks_inwards_is_free_on_ground_that_goes_on_under_it() -> None:
    boxes = SolidBoxes()
    boxes.box("ground", (-10, 15), (-10, 15), (-0.5, -0.03))
    shell(boxes, 5.0, looks_in=True)
    boxes.prism(rectangle((1, 3), (1, 3)), (0, 1.9))
    floor = map_of(boxes)
    assert free_m2(floor, (0, 5), (0, 5)) == pytest.approx(4.5**2 - 2.5**2, rel=0.05)
    assert free_m2(floor, (1, 3), (1, 3)) == 0


def test_a_closed_room_whose_walls_look_outwards_is_free_where_its_floor_ends_with_it() -> None:
    boxes = SolidBoxes()
    boxes.plane("floor", [(0, 0, 0), (5, 0, 0), (5, 5, 0), (0, 5, 0)])
    shell(boxes, 5.0, looks_in=False)
    boxes.prism(rectangle((1, 3), (1, 3)), (0, 1.9))
    floor = map_of(boxes)
    assert free_m2(floor, (0, 5), (0, 5)) == pytest.approx(4.5**2 - 2.5**2, rel=0.05)
    assert free_m2(floor, (1, 3), (1, 3)) == 0


def test_a_box_as_large_as_a_room_is_solid_where_the_floor_goes_on_under_it() -> None:
    for looks_in in (False, True):
        boxes = SolidBoxes()
        boxes.box("ground", (-10, 15), (-10, 15), (-0.5, 0))
        shell(boxes, 5.0, looks_in=looks_in)
        floor = map_of(boxes)
        assert free_m2(floor, (0, 5), (0, 5)) == 0
        assert floor.free_area_m2 > 500


@pytest.mark.parametrize("looks_in", [True, False])
def test_single_faced_walls_without_a_ceiling_enclose_a_room_whichever_way_they_look(looks_in: bool) -> None:
    boxes = SolidBoxes()
    boxes.plane("floor", [(-0.2, -0.2, 0), (5.2, -0.2, 0), (5.2, 5.2, 0), (-0.2, 5.2, 0)])
    ring = [(0, 0), (5, 0), (5, 5), (0, 5), (0, 0)]
    for (ax, ay), (bx, by) in pairwise(ring):
        corners = [(bx, by, 0), (ax, ay, 0), (ax, ay, 2.6), (bx, by, 2.6)]
        boxes.plane("wall", corners if looks_in else corners[::-1])
    assert map_of(boxes).free_area_m2 == pytest.approx(4.5**2, rel=0.05)


def test_a_house_with_all_its_faces_turned_over_is_still_a_house() -> None:

    boxes = two_rooms()
    boxes.box("ceiling", (-0.1, 8.1), (-0.1, 4.1), (2.5, 2.6))
    boxes.box("wardrobe", (4.2, 6.2), (2.2, 4.0), (0, 2.0))
    scene = boxes.scene(rooms=False)
    turned = tuple(dataclasses.replace(obj, faces=obj.faces[:, ::-1].copy()) for obj in scene.objects)
    right, over = (floor_map(s, ARGS, 0.0) for s in (scene, dataclasses.replace(scene, objects=turned)))
    assert (right.free == over.free).all()


def test_an_open_crate_on_a_yard_is_not_taken_for_its_house() -> None:
    boxes = Boxes()
    boxes.box("ground", (0, 12), (0, 12), (-0.2, 0))
    boxes.walls((5, 7), (5, 7), (0, 1.5))
    assert map_of(boxes).free_area_m2 > 100


@pytest.mark.parametrize(("high_m", "free"), [(1.7, False), (2.3, True)])
def test_a_hollow_with_thick_sides_is_a_place_only_if_a_person_can_stand_in_it(high_m: float, free: bool) -> None:
    boxes = empty_room((0, 8), (0, 8))
    boxes.walls((3, 5), (3, 5), (0, high_m))
    boxes.box("lid", (2.9, 5.1), (2.9, 5.1), (high_m, high_m + 0.05))
    floor = map_of(boxes)
    assert (free_m2(floor, (3, 5), (3, 5)) > 0) is free
    assert floor.free_area_m2 > 40


def test_a_closed_shell_that_takes_up_one_of_the_scenes_rooms_is_that_room() -> None:
    boxes = SolidBoxes()
    boxes.plane("floor", [(-3, -3, 0), (8, -3, 0), (8, 8, 0), (-3, 8, 0)])
    shell(boxes, 5.0, looks_in=False)
    boxes.room("hall", "living_room", (0, 5), (0, 5))
    floor = floor_map(boxes.scene(), ARGS, 0.0)
    assert free_m2(floor, (0, 5), (0, 5)) > 15


def test_the_check_of_paths_against_solids_sees_those_through_and_those_beside() -> None:
    boxes = ground("slab", 10.0)
    boxes.prism(rectangle((4, 6), (4, 6), 0.4), (0, 2))
    (solid,) = boxes.solids
    through, beside = np.array([[2.0, 5.0], [8.0, 5.0]]), np.array([[2.0, 8.0], [8.0, 8.0]])
    corner_y = 5 + np.cos(0.4) + np.sin(0.4)
    assert solid.distance_m(through, BAND_M) == 0
    assert solid.distance_m(beside, BAND_M) == pytest.approx(8 - corner_y)
    assert solid.distance_m(through, (2.1, 3.0)) == np.inf


def test_bodies_that_are_not_closed_are_left_as_they_are() -> None:
    boxes = SolidBoxes()
    boxes.prism(rectangle((0, 1), (0, 1)), (0, 1), bottom=False, inside_out=True)
    boxes.prism(rectangle((2, 3), (0, 1)), (0, 1), inside_out=True)
    soup = [obj.world_vertices()[obj.faces] for obj in boxes.objects]
    owner = np.repeat(np.arange(2, dtype=np.int32), [len(part) for part in soup])
    assert inside_out(np.concatenate(soup), owner).tolist() == [False] * 10 + [True] * 12


def test_a_drive_that_begins_in_a_solid_is_refused() -> None:
    boxes = ground("slab", 10.0)
    boxes.prism(rectangle((4, 6), (4, 6)), (0, 2))
    with pytest.raises(PlanningFailed) as failure:
        NavPlanner(NavArgs(start_xy_m=(5.0, 5.0))).gen_sequence(boxes.scene(rooms=False), np.random.default_rng(0))
    assert failure.value.reason == "start_blocked"
