"""Cameras of manipulation: what is upwards in their pictures, what they frame, where they may be mounted."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nimbusd.stages.arguments import ArgumentsError
from nimbusd.stages.store.frame_labels import inside, project
from nimbusd.stages.types import F64, Camera
from nimbusd.stages.workflow.sim import ManipTask, parse_task
from nimbusd.stages.workflow.sim.layout.flooring import APART, colour_distance, floor_beside
from nimbusd.stages.workflow.sim.layout.layout import LightLayout, ObjectLayout, Pose, RelationLayout, SkillCall
from nimbusd.stages.workflow.sim.models.objects import LIBRARY
from nimbusd.stages.workflow.sim.randomize.cameras import cameras_of, framing
from nimbusd.stages.workflow.sim.rotation import POLE_RAD, image_up, look_at
from nimbusd.stages.workflow.sim.scene.scene import _light
from nimbusd.stages.workflow.sim.task.task import RandomizeSpec

STEADY = {"camera_m": 0, "camera_rad": 0, "focal": 0}
TABLE_M = 0.75


def task_with(cameras: list[dict[str, Any]], **more: Any) -> ManipTask:
    slots = [{"name": "things", "models": ["cube"], "count": [0, 2]}, {"name": "far", "models": ["bin"]}]
    return parse_task(
        {"name": "t", "slots": slots, "skills": [{"skill": "home"}], "instructions": ["-"], "cameras": cameras, **more}
    )


def thing(name: str, x: float, y: float, model: str = "cube", group: str = "things") -> ObjectLayout:
    size = LIBRARY[model].size_m
    assert size is not None
    pose = Pose((x, y, TABLE_M + size[2] / 2))
    return ObjectLayout(name, model, LIBRARY[model], model, 10, pose, size, group=group)


def pose_of(camera: dict[str, Any], seed: int = 0, **spread: float) -> F64:
    """(4, 4) of the only camera of a task without things."""
    task = task_with([{"name": "eye", **camera}], randomize={**STEADY, **spread})
    (made,) = cameras_of(task, [], [], [], [], np.random.default_rng(seed))
    return made.pose.matrix()


OVERHEAD = {"position_m": [0.42, 0.1, 1.2], "target_m": [0.42, 0.1, 0.0]}
CEILING = {"position_m": [0.42, 0.1, 0.1], "target_m": [0.42, 0.1, 2.0]}


@pytest.mark.parametrize("camera", [OVERHEAD, CEILING])
def test_a_camera_that_looks_straight_down_or_up_has_the_robots_forward_direction_upwards(
    camera: dict[str, Any],
) -> None:
    T = pose_of(camera)  # with no spread at all
    assert T[:3, 1] == pytest.approx([1, 0, 0], abs=1e-12)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1)
    for seed in range(50):
        noisy = pose_of(camera, seed, camera_m=0.05, camera_rad=0.05)
        assert noisy[:3, 1] @ [1, 0, 0] > 0.97


@pytest.mark.parametrize("degrees", [0.0, 4.0, 9.5, 10.0, 10.5, 16.0, 45.0])
@pytest.mark.parametrize("azimuth", [0.0, 1.0, 2.0, math.pi, 4.5])
def test_no_spread_turns_a_picture_over(degrees: float, azimuth: float) -> None:
    tilt = math.radians(degrees)
    away = np.array([math.sin(tilt) * math.cos(azimuth), math.sin(tilt) * math.sin(azimuth), math.cos(tilt)])
    camera = {"position_m": (np.array([0.42, 0, 0]) + away).tolist(), "target_m": [0.42, 0.0, 0.0]}
    steady = pose_of(camera)
    for seed in range(20):
        noisy = pose_of(camera, seed, camera_m=0.2, camera_rad=0.05)
        assert noisy[:3, 1] @ steady[:3, 1] > 0.85
    if tilt > POLE_RAD + 0.01:
        assert steady[2, 0] == pytest.approx(0, abs=1e-12)  # level
        assert steady[2, 1] > 0  # and the world's +z upwards


@given(st.floats(-0.17, 0.17), st.floats(-0.17, 0.17))
def test_near_the_pole_the_picture_turns_as_little_as_the_camera(x: float, y: float) -> None:
    if math.hypot(x, y) > 0.17:
        return
    away = look_at((0, 0, 1), (math.tan(x), math.tan(y), 0))
    assert away[:3, 1] @ [1, 0, 0] > math.cos(0.18)


def test_a_camera_on_the_flange_has_its_x_upwards_and_along_that_the_arm() -> None:
    mounted = {"mount": "arm", "position_m": [0.0, 0.0, 0.05]}
    along = pose_of({**mounted, "target_m": [0.0, 0.0, 0.5]})  # where the tool points
    assert along[:3, 1] == pytest.approx([1, 0, 0])
    sideways = pose_of({**mounted, "target_m": [1.0, 0.0, 0.05]})  # along +x itself
    assert sideways[:3, 1] == pytest.approx([0, 0, -1])
    assert pose_of({"mount": "arm"})[0, 1] > 0.8  # the default, which looks at the fingers


def test_roll_turns_a_camera_counter_clockwise_about_its_line_of_sight() -> None:
    level = pose_of(OVERHEAD)
    rolled = pose_of({**OVERHEAD, "roll_rad": 0.5})
    assert rolled[:3, 2] == pytest.approx(level[:3, 2])
    expected = -math.sin(0.5) * level[:3, 0] + math.cos(0.5) * level[:3, 1]
    assert rolled[:3, 1] == pytest.approx(expected)
    camera = Camera("eye", 100, 100, 100, 100, 50, 50)
    above = [0.5, 0.1, TABLE_M]  # ahead of the target: at the top of the picture, by the roll to the right
    (level_px,), _ = project(camera, level, [above])
    (rolled_px,), _ = project(camera, rolled, [above])
    assert level_px[0] == pytest.approx(50)
    assert level_px[1] < 50
    assert rolled_px[0] > 51


def test_what_has_no_direction_is_told() -> None:
    with pytest.raises(ValueError, match="cannot look at its own place"):
        look_at((1, 2, 3), (1, 2, 3))
    with pytest.raises(ValueError, match="cannot have that direction upwards"):
        look_at((0, 0, 1), (0, 0, 0), (0, 0, 1))
    assert image_up((0, 0, -1)).tolist() == [1, 0, 0]
    assert image_up((1, 0, 0)).tolist() == [0, 0, 1]


@pytest.mark.parametrize("direction", [(0.0, 0.0, -1.0), (0.01, 0.0, -1.0), (0.0, 0.0, 1.0), (0.3, -0.4, -1.0)])
def test_a_lamp_that_shines_straight_down_has_a_pose(direction: tuple[float, float, float]) -> None:
    lamp = LightLayout("key", "sun", (0.0, 0.0, 2.0), direction, (1.0, 1.0, 1.0))
    T = _light(lamp).T_world_light
    assert T[:3, :3] @ T[:3, :3].T == pytest.approx(np.eye(3))
    assert -T[:3, 2] == pytest.approx(np.asarray(direction) / np.linalg.norm(direction))


# Framing ---------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000))
def test_framing_brings_every_point_into_the_picture_and_comes_no_nearer_than_that_needs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = np.add(rng.uniform(-0.4, 0.4, (9, 3)), [0.5, 0, 0.8])
    rotation = look_at(rng.uniform(-1, 1, 3) * 3, (0.5, 0, 0.8), roll_rad=float(rng.uniform(-3, 3)))[:3, :3]
    camera = Camera("eye", 320, 240, 300, 300, 160, 120)
    slopes = np.array([160, 120]) / 300 * 0.8
    eye, target = framing(points, rotation, slopes, 0.01)
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = rotation, eye
    pixels, depths = project(camera, T, points)
    assert inside(camera, pixels).all()
    assert depths.min() >= 0.01 - 1e-9
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    assert (low >= [32 - 1e-6, 24 - 1e-6]).all()
    assert (high <= [288 + 1e-6, 216 + 1e-6]).all()
    tight = [low[0] == pytest.approx(32) and high[0] == pytest.approx(288),
             low[1] == pytest.approx(24) and high[1] == pytest.approx(216)]  # fmt: skip
    assert any(tight) or depths.min() == pytest.approx(0.01)
    assert np.cross(target - eye, rotation[:, 2]) == pytest.approx([0, 0, 0], abs=1e-9)


def test_a_camera_frames_what_it_is_told_from_the_side_it_is_told() -> None:
    near = [thing("things_1", 0.4, 0.0), thing("things_2", 0.45, 0.05), thing("far", 0.5, 0.5, "bin", "far")]
    wanted = {
        "task": {"near": False, "far": True},
        "things": {"near": True, "far": False},
    }
    for word, frame in (("task", "task"), ("things", ["$things"])):
        task = task_with([{"name": "eye", "position_m": [1.2, 0, 0.7], "frame": frame}], randomize=STEADY)
        skills = [SkillCall("pick", {"object": "far"})]
        (made,) = cameras_of(task, near, [], [], skills, np.random.default_rng(0))
        T = made.pose.matrix()
        for entry in near:
            seen = inside(made.camera, project(made.camera, T, [entry.pose.position])[0])[0]
            assert seen or not wanted[word]["far" if entry.name == "far" else "near"], (word, entry.name)
        direction = np.subtract((0.42, 0, 0.05), (1.2, 0, 0.7))
        assert -T[:3, 2] == pytest.approx(direction / np.linalg.norm(direction))


def test_the_place_that_a_thing_is_to_go_to_is_in_the_picture() -> None:
    task = task_with([{"name": "eye"}], randomize=STEADY)
    things = [thing("things_1", 0.5, -0.1), thing("things_2", 0.5, 0.0)]
    goals = [RelationLayout("things_1", "left_of", "things_2")]
    (made,) = cameras_of(task, things, [], goals, [], np.random.default_rng(0))
    pixels, _ = project(made.camera, made.pose.matrix(), [[0.5, 0.15, TABLE_M]])
    assert inside(made.camera, pixels)[0]


def test_without_anything_to_frame_a_camera_stays_at_its_numbers() -> None:
    T = pose_of({"frame": "task"})
    assert T[:3, 3] == pytest.approx([1.15, 0, 0.7 + TABLE_M])


@pytest.mark.parametrize(
    ("camera", "told"),
    [
        (
            {"mount": "arm", "position_m": [1.15, 0, 0.7]},
            "cameras.0.position_m: 'eye' would ride 1.35 m off the flange",
        ),
        ({"mount": "*", "position_m": [0, 0, 0.4]}, "set mount_limit_m, which is 0.3"),
        ({"mount": "arm", "frame": "task"}, "a mounted camera goes where its hand goes"),
        ({"position_m": [1, 0, 1], "target_m": [1, 0, 1]}, "cameras.0.target_m: 'eye' stands in its own target"),
        ({"frame": ["$thing"]}, "cameras.0.frame.0: nothing to frame is called '$thing'; did you mean '$things'?"),
        ({"frame": "tasks"}, "cameras.0.frame.0: nothing to frame is called 'tasks'; did you mean 'task'?"),
        ({"roll_rad": 90}, "roll_rad"),
    ],
)
def test_cameras_that_cannot_be_meant_are_told(camera: dict[str, Any], told: str) -> None:
    with pytest.raises(ArgumentsError) as caught:
        task_with([{"name": "eye", **camera}])
    assert told in str(caught.value)


def test_a_camera_may_ride_far_from_its_flange_on_purpose_and_its_defaults_are_near_it() -> None:
    far = pose_of({"mount": "arm", "position_m": [0, 0, -0.4], "mount_limit_m": 0.5})
    assert far[2, 3] == pytest.approx(-0.4)
    assert np.linalg.norm(pose_of({"mount": "arm"})[:3, 3]) < 0.1


def test_a_camera_for_every_arm_has_a_name_for_each() -> None:
    pair = [{"name": "wrist", "mount": "*"}, {"name": "wrist_left"}]
    with pytest.raises(ArgumentsError, match=r"cameras.1.name: two cameras are called 'wrist_left'"):
        task_with(pair, robot="dual_franka")
    made = cameras_of(task_with(pair[:1], robot="dual_franka"), [], [], [], [], np.random.default_rng(0))
    assert [(entry.name, entry.mount) for entry in made] == [("wrist_left", "left"), ("wrist_right", "right")]


# Floor and table -------------------------------------------------------------------------------------------------


def test_the_floor_is_told_from_the_table() -> None:
    from nimbusd.stages.workflow.sim.randomize.draw import _surface

    spec, closest = RandomizeSpec(), math.inf
    for seed in range(12):
        rng = np.random.default_rng(seed)
        table = _surface(spec.tables, rng, 1.5)
        floor = floor_beside(table, partial(_surface, spec.floors, rng, 0.6))
        closest = min(closest, colour_distance(table, floor))
    assert closest >= APART
