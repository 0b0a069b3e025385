"""Planned drives: free of collisions, inside limits, honest about why there is none, and always the same."""

from __future__ import annotations

import dataclasses
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nimbusd.stages import PlanningFailed, Room, Scene, Sequence
from nimbusd.stages.plan.front3d import BProc3DFrontArgs, BProc3DFrontPlanner
from nimbusd.stages.plan.nav import CameraArgs, NavArgs, NavPlanner
from nimbusd.stages.plan.obstacles import Obstacles
from nimbusd.stages.plan.route import explore, find_way, plan_route
from nimbusd.stages.store.formats.n1.trees import N1_BASE
from tests.support.internnav_loader import pixel_goal, point_goal
from tests.support.nav_scenes import Boxes, clearance_by_force, cluttered_room, empty_room, two_rooms, two_storeys
from tests.support.nav_sites import building, site


@cache
def planner_of(args: NavArgs) -> NavPlanner[NavArgs]:
    """Planners are kept, as in a worker, so that a scene's map is made once for many drives."""
    return NavPlanner(args)


def plan(scene: Scene, seed: int = 0, **args: Any) -> Sequence:
    return planner_of(NavArgs.model_validate(args)).gen_sequence(scene, np.random.default_rng(seed))


def why_not(scene: Scene, **args: Any) -> str:
    with pytest.raises(PlanningFailed) as failure:
        plan(scene, **args)
    assert len(failure.value.detail) > 20
    return failure.value.reason


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(2, 10))
def test_no_smoothed_path_touches_anything(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    scene = cluttered_room(rng, count)
    args = NavArgs(min_path_m=1.0, cell_m=0.1 if seed % 2 else 0.05)
    planner = NavPlanner(args)
    for floor in planner.floors(scene):
        for region in range(1, floor.region.max() + 1):
            cells = np.argwhere(floor.region == region)
            start, goal = floor.centres(cells[rng.integers(len(cells), size=2)])
            if floor.cell_of(start) == floor.cell_of(goal):
                continue
            route = plan_route(floor, args.comfort, start, goal)
            assert route.xy[0] == pytest.approx(start)
            assert route.xy[-1] == pytest.approx(goal)
            gaps = np.linalg.norm(np.diff(route.xy, axis=0), axis=1)
            assert gaps.max() <= 0.005 + 1e-9
            clearance = clearance_by_force(scene.objects, route.xy, args.step_m, args.robot_height_m)
            assert clearance.min() >= args.robot_radius_m
            assert route.min_clearance_m == pytest.approx(clearance.min(), abs=0.003)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_every_frame_stands_clear_of_obstacles_and_within_limits(seed: int) -> None:
    scene = two_rooms().scene()
    args = NavArgs(random_start_heading=bool(seed % 2))
    sequence = planner_of(args).gen_sequence(scene, np.random.default_rng(seed))
    state = sequence.states["observation.state"].values
    action = sequence.actions["action"].values
    assert 8 <= len(sequence) <= args.max_frames
    assert state.dtype == action.dtype == np.float32
    assert state.shape == (len(sequence), 4)
    assert action.shape == (len(sequence), 3)
    standing = [obj for obj in scene.objects if obj.category != "floor"]
    assert clearance_by_force(standing, state[:, :2].astype(float), 0.05, 1.2).min() >= 0.25
    assert np.hypot(action[:, 0], action[:, 1]).max() <= args.max_speed_mps + 1e-5
    assert np.abs(action[:, 2]).max() <= args.max_turn_radps + 1e-5
    assert sequence.notes["path_length_m"] >= args.min_path_m
    assert sequence.notes["min_clearance_m"] >= args.robot_radius_m
    assert len(sequence.notes["path_xy"]) <= 200


def test_the_camera_looks_along_the_heading_and_sees_what_is_ahead_in_its_middle_column() -> None:
    cameras = (
        CameraArgs(),
        CameraArgs(name="left", width=64, height=48, fx=50, cx=20.0, yaw_rad=np.pi / 2, pitch_rad=0.0),
    )
    sequence = plan(two_rooms().scene(), 3, cameras=cameras, camera_height_m=0.9, camera_pitch_rad=-0.2)
    state = sequence.states["observation.state"].values
    for camera, turn, pitch in ((sequence.cameras[0], 0.0, -0.2), (sequence.cameras[1], np.pi / 2, 0.0)):
        for (x, y, z, yaw), T in zip(state, sequence.T_world_camera[camera.name], strict=True):
            assert T[:3, 3] == pytest.approx([x, y, z + 0.9], abs=1e-5)
            ahead = np.array([x + 2 * np.cos(yaw + turn), y + 2 * np.sin(yaw + turn), z + 0.9, 1.0])
            right, up, back, _ = np.linalg.inv(T) @ ahead
            forward = -back
            assert forward == pytest.approx(2 * np.cos(pitch), abs=1e-4)
            u, v = camera.cx + camera.fx * right / forward, camera.cy - camera.fy * up / forward
            assert u == pytest.approx(camera.cx, abs=0.01)
            # Level with the camera: above the middle when it looks down.
            assert v == pytest.approx(camera.cy + camera.fy * np.tan(pitch), abs=0.01)
            beside = ahead + np.array([-np.sin(yaw + turn), np.cos(yaw + turn), 0.5, 0.0])
            right, up, _, _ = np.linalg.inv(T) @ beside
            assert right < 0 < up + 0.5
            assert np.linalg.det(T[:3, :3]) == pytest.approx(1.0)
    mount = sequence.T_base_camera["front"]
    assert sequence.T_world_camera["front"][0][:3, 3] - mount[:3, 3] == pytest.approx([*state[0, :2], 0.0], abs=1e-5)


def test_intrinsics_follow_from_the_field_of_view_unless_given() -> None:
    wide = CameraArgs(width=320, height=240, hfov_rad=np.pi / 2).intrinsics()
    assert (wide.fx, wide.fy, wide.cx, wide.cy) == pytest.approx((160, 160, 160, 120))
    given_ = CameraArgs(fx=300, fy=310, cx=150.5, cy=99).intrinsics()
    assert (given_.fx, given_.fy, given_.cx, given_.cy) == (300, 310, 150.5, 99)


@pytest.mark.parametrize("rooms", [True, False])
def test_a_two_storey_house_is_used_on_both_storeys_and_no_drive_mixes_them(rooms: bool) -> None:
    scene = two_storeys(rooms=rooms)
    planner = NavPlanner(NavArgs(min_path_m=1.5))
    seen = set()
    for seed in range(12):
        sequence = planner.gen_sequence(scene, np.random.default_rng(seed))
        z = sequence.states["observation.state"].values[:, 2]
        assert (z == z[0]).all()
        assert sequence.T_world_camera["front"][:, 2, 3] == pytest.approx(sequence.notes["floor_z_m"] + 1.0)
        seen.add(round(float(z[0]), 2))
    assert seen == {0.0, 2.8}


def test_the_same_seed_gives_the_same_drive_whether_the_map_is_cached_or_not() -> None:
    scene = two_rooms().scene()
    planner = NavPlanner(NavArgs())
    others = [planner.gen_sequence(scene, np.random.default_rng(seed)) for seed in (1, 2, 7)]
    fresh = NavPlanner(NavArgs()).gen_sequence(dataclasses.replace(scene), np.random.default_rng(7))
    assert fresh.task == others[2].task
    assert fresh.notes == others[2].notes
    assert (fresh.states["observation.state"].values == others[2].states["observation.state"].values).all()
    assert (fresh.T_world_camera["front"] == others[2].T_world_camera["front"]).all()
    assert others[0].notes != others[1].notes


def test_a_changed_scene_is_looked_at_anew() -> None:
    planner = NavPlanner(NavArgs())
    before, after = two_rooms(0.9).scene(), two_rooms(0.0).scene()
    assert planner.floors(before)[0].region.max() == 1
    assert planner.floors(after)[0].region.max() == 2
    assert planner.floors(before)[0] is planner.floors(before)[0]
    bare = dataclasses.replace(before, rooms=())  # looks the same, and yet has other places to begin in
    assert planner.floors(bare)[0].rooms == ()


def test_maps_of_scenes_used_before_go_when_all_together_are_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nimbusd.stages.plan.nav._CELLS_KEPT", 30_000)  # one room has some 11,000, two rooms 18,000
    planner = NavPlanner(NavArgs())
    small, large = empty_room().scene(), two_rooms().scene()
    kept, used = planner.floors(small), planner.floors(large)
    assert planner.floors(small)[0] is kept[0]
    assert planner.floors(large)[0] is used[0]
    other = empty_room((0, 9), (0, 4)).scene()
    newest = planner.floors(other)
    assert planner.floors(other)[0] is newest[0]
    assert planner.floors(small)[0] is not kept[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_search_in_part_of_the_map_finds_a_way_as_cheap_as_one_in_all_of_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = empty_room((0, 16), (0, 12))
    for x in np.arange(2.0, 15.0, 2.0):  # walls with one gap each, so that ways are long
        gap = float(rng.uniform(0.5, 10.5))
        boxes.box("wall", (x, x + 0.1), (0, gap), (0, 2))
        boxes.box("wall", (x, x + 0.1), (gap + 1.0, 12), (0, 2))
    args = NavArgs(cell_m=0.1)
    (floor,) = NavPlanner(args).floors(boxes.scene())
    cells = np.argwhere(floor.free)
    for _ in range(3):
        start, goal = ((int(r), int(c)) for r, c in cells[rng.integers(len(cells), size=2)])
        whole = explore(floor, args.comfort, start, 1e6)
        assert whole.cost.shape == floor.free.shape
        found = find_way(floor, args.comfort, start, goal)
        assert found.cost_to(goal) == pytest.approx(whole.cost_to(goal), rel=1e-9)
        path = found.path_to(goal)
        assert (path[0], path[-1]) == (start, goal)
        near = explore(floor, args.comfort, start, 5.0)
        within = whole.cost[near.window] <= 5.0
        assert near.cost[within] == pytest.approx(whole.cost[near.window][within])
        assert np.count_nonzero(within) == np.count_nonzero(whole.cost <= 5.0)


def test_looking_at_a_large_scene_beats_all_along() -> None:
    beats: dict[str, int] = {"part": 0, "whole": 0}

    def count(which: str) -> None:
        beats[which] += 1

    for which, scene in (("part", site(40.0, 40.0, 2, 20)), ("whole", site(160.0, 80.0, 8, 100))):
        planner = NavPlanner(NavArgs(cell_m=0.1))
        planner.beat = partial(count, which)
        planner.floors(scene)
    assert beats["part"] > 20
    assert beats["whole"] > beats["part"] + 10


def test_a_building_of_several_storeys_and_a_site_of_solid_buildings_are_driven_in() -> None:
    house = NavPlanner(NavArgs())
    floors = house.floors(building(storeys=2, rooms_a_side=2, things_a_room=6))
    assert [floor.z_m for floor in floors] == pytest.approx([0.0, 3.2])
    assert all(floor.free_area_m2 > 200 for floor in floors)
    scene = site(60.0, 40.0, 3, 10)
    (floor,) = NavPlanner(NavArgs()).floors(scene)
    for obj in scene.objects:
        if obj.category == "building":
            middle = obj.T_world_object[:2, 3]
            assert not floor.free[floor.cell_of(middle)]
    assert floor.free_area_m2 > 1500


def test_drives_prefer_another_room_and_say_so() -> None:
    scene = two_rooms().scene()
    tasks = {plan(scene, seed).task for seed in range(12)}
    assert tasks <= {
        "Go from the bedroom to the kitchen.",
        "Go from the kitchen to the bedroom.",
        "Walk to the bed in the bedroom.",
        "Walk to the table in the kitchen.",
    }
    assert len(tasks) >= 3


@pytest.mark.parametrize(("tv_x", "named"), [((2.1, 2.15), False), ((1.95, 2.0), True)])
def test_the_task_does_not_name_what_hangs_behind_a_wall(tv_x: tuple[float, float], named: bool) -> None:
    house = Boxes()
    house.box("floor", (0, 4), (0, 3), (-0.1, 0))
    house.walls((0, 4), (0, 3), (0, 2.5))
    house.box("wall", (2.0, 2.1), (0, 3), (0, 2.5))
    house.box("tv", tv_x, (1.0, 2.0), (0.8, 1.4))
    sequence = plan(house.scene(rooms=False), min_path_m=1.0, start_xy_m=(0.5, 0.5), goal_xy_m=(1.4, 1.5))
    assert ("tv" in sequence.task) is named


def test_without_rooms_the_task_names_the_distance() -> None:
    assert plan(empty_room().scene(rooms=False)).task.startswith("Navigate to the goal ")


def test_a_scene_without_surfaces_has_no_floor() -> None:
    assert why_not(Scene("void", ())) == "no_floor"


def test_a_room_full_of_furniture_has_no_free_space() -> None:
    boxes = empty_room((0, 2), (0, 2))
    boxes.box("bed", (0.3, 1.7), (0.3, 1.7), (0, 0.5))
    assert why_not(boxes.scene()) == "no_free_space"


def test_fixed_ends_inside_furniture_are_blocked() -> None:
    scene = two_rooms().scene()
    assert why_not(scene, start_xy_m=(1.0, 1.0)) == "start_blocked"
    assert why_not(scene, goal_xy_m=(6.5, 2.8)) == "goal_blocked"


def test_a_closed_door_makes_the_other_room_unreachable() -> None:
    assert why_not(two_rooms(0.0).scene(), start_xy_m=(3.0, 3.0), goal_xy_m=(5.0, 1.0)) == "unreachable"


def test_a_room_smaller_than_the_least_path_is_too_short() -> None:
    assert why_not(empty_room((0, 2), (0, 2)).scene(), min_path_m=3.0) == "too_short"


def test_a_drive_of_fewer_than_eight_frames_is_too_short() -> None:
    ends = {"start_xy_m": (1.0, 1.0), "goal_xy_m": (1.3, 1.0)}
    assert why_not(empty_room().scene(), min_path_m=0.0, fps=2.0, **ends) == "too_short"


def test_goals_beyond_the_longest_path_are_too_long() -> None:
    scene = empty_room((0, 9), (0, 2)).scene()
    ends = {"start_xy_m": (0.5, 1.0), "goal_xy_m": (8.5, 1.0)}
    assert why_not(scene, max_path_m=3.0, **ends) == "too_long"
    assert why_not(scene, max_frames=30, **ends) == "too_long"


def test_geometry_that_the_grid_does_not_know_is_found_by_the_last_check() -> None:
    args = NavArgs()
    floor = NavPlanner(args).floors(empty_room((0, 6), (0, 2)).scene())[0]
    pole = empty_room((0, 6), (0, 2))
    pole.box("lamp", (2.9, 3.1), (0, 2), (0, 1))
    blocked = NavPlanner(args).floors(pole.scene())[0]
    stale = dataclasses.replace(floor, obstacles=Obstacles(blocked.obstacles.shapes))
    with pytest.raises(PlanningFailed) as failure:
        plan_route(stale, args.comfort, np.array([1.0, 1.0]), np.array([5.0, 1.0]))
    assert failure.value.reason == "collision_after_smoothing"


def test_paths_keep_their_distance_where_there_is_room() -> None:
    boxes = empty_room((0, 8), (0, 6))
    boxes.box("wall", (3.9, 4.1), (0, 3), (0, 2))
    planner = NavPlanner(NavArgs())
    floor = planner.floors(boxes.scene())[0]
    route = plan_route(floor, planner.args.comfort, np.array([2.0, 1.0]), np.array([6.0, 1.0]))
    assert route.min_clearance_m > 0.4
    assert len(route.pieces) == 1
    assert route.length_m < 7.5


@cache
def three_rooms(*, doors: bool = True) -> Scene:
    """Bedroom, kitchen and bathroom in a row; the way from the first to the last goes through two doors."""
    boxes = Boxes()
    boxes.box("floor", (0, 12), (0, 4), (-0.1, 0))
    boxes.walls((0, 12), (0, 4), (0, 2.5))
    for x in (4.0, 8.0):
        boxes.box("wall", (x, x + 0.1), (0, 3 if doors else 4), (0, 2.5))
    boxes.box("sofa", (5, 7), (0.1, 1.0), (0, 0.8))
    boxes.room("a", "MasterBedroom", (0, 4), (0, 4))
    boxes.room("b", "LivingDiningRoom", (4.1, 8), (0, 4))
    boxes.room("c", "Bathroom", (8.1, 12), (0, 4))
    return boxes.scene("three_rooms")


@cache
def front3d_planner(args: BProc3DFrontArgs) -> BProc3DFrontPlanner:
    return BProc3DFrontPlanner(args)


def inside(room: Room, xy: list[float]) -> bool:
    low, high = room.polygon.min(axis=0), room.polygon.max(axis=0)
    return bool((low <= xy).all() and (xy <= high).all())


@pytest.mark.parametrize("seed", range(6))
def test_front3d_drives_go_from_chosen_room_to_chosen_room_away_from_furniture(seed: int) -> None:
    scene = three_rooms()
    args = BProc3DFrontArgs(
        start_rooms=("bedroom",), goal_rooms=("bath_room",), min_furniture_clearance_m=0.3, max_frames=200
    )
    sequence = front3d_planner(args).gen_sequence(scene, np.random.default_rng(seed))
    xy = sequence.states["observation.state"].values[:, :2].astype(float)
    assert inside(scene.rooms[0], xy[0])
    assert inside(scene.rooms[2], xy[-1])
    assert any(inside(scene.rooms[1], at) for at in xy)
    sofa = [obj for obj in scene.objects if obj.category == "sofa"]
    assert clearance_by_force(sofa, xy, 0.05, 1.2).min() >= 0.25 + 0.3 * 0.98
    assert sequence.task == "Go from the master bedroom to the bathroom."


def test_front3d_drives_always_change_the_room() -> None:
    scene = three_rooms()
    planner = BProc3DFrontPlanner(BProc3DFrontArgs())
    for seed in range(6):
        notes = planner.gen_sequence(scene, np.random.default_rng(seed)).notes
        rooms = [[inside(room, end[:2]) for room in scene.rooms] for end in (notes["start"], notes["goal"])]
        assert sum(rooms[0]) == sum(rooms[1]) == 1
        assert rooms[0] != rooms[1]


def test_front3d_failures_tell_missing_rooms_from_closed_doors() -> None:
    def reason(scene: Scene, **args: object) -> str:
        planner = BProc3DFrontPlanner(BProc3DFrontArgs.model_validate(args))
        with pytest.raises(PlanningFailed) as failure:
            planner.gen_sequence(scene, np.random.default_rng(0))
        return failure.value.reason

    assert reason(three_rooms(), start_rooms=("library",)) == "no_free_space"
    assert reason(three_rooms(), goal_rooms=("library",)) == "unreachable"
    assert reason(three_rooms(doors=False)) == "unreachable"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"min_path_m": 5.0, "max_path_m": 3.0}, "max_path_m"),
        ({"camera_height_m": 1.5}, "robot_height_m"),
        ({"robot_height_m": 0.04, "camera_height_m": 0.03}, "step_m"),
        ({"cameras": [{}, {}]}, "share a name"),
        ({"speed": 3}, "speed"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(args: dict[str, object], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        NavArgs.model_validate(args)


def test_internnavs_loader_reads_goals_where_the_robot_goes_and_sees_those_ahead() -> None:
    """With the mounting in our own base it would read all of them turned by 90 degrees."""
    scene, rng = two_rooms().scene(), np.random.default_rng(0)
    ahead = 0
    for seed in range(20):
        seq = plan(scene, seed, min_path_m=1.0)
        poses, own = np.asarray(seq.T_world_camera["front"]), seq.T_base_camera["front"]
        state = seq.states["observation.state"].values.astype(np.float64)
        for _ in range(5):
            start = int(rng.integers(0, len(seq) // 2))
            target = int(rng.integers(start + 1, len(seq)))
            moved, yaw = state[target, :2] - state[start, :2], state[start, 3]
            c, s = np.cos(yaw), np.sin(yaw)
            goal = point_goal(poses, N1_BASE @ own, start, target)
            assert goal == pytest.approx([c * moved[0] + s * moved[1], c * moved[1] - s * moved[0], 0], abs=1e-4)
            if goal[0] > 1.2 and abs(goal[1]) < 0.5 * goal[0]:
                ahead += 1
                assert is_seen(seq, pixel_goal(goal, seq.cameras[0].matrix(), N1_BASE @ own))
            assert point_goal(poses, own, start, target) == pytest.approx([goal[1], -goal[0], 0], abs=1e-9)
    assert ahead >= 30


def is_seen(seq: Sequence, pixel: tuple[float, float]) -> bool:
    return 0 < pixel[0] < seq.cameras[0].width and 0 < pixel[1] < seq.cameras[0].height
