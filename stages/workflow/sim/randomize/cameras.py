"""`cameras_of`: where a layout's cameras are. Still ones may be moved so that their pictures show what matters.

What is upwards in a picture follows from the numbers of the task file alone: the world's +z, or (looking within ten
degrees of straight down or up) the robot's forward direction. A mounted camera has the flange's +x upwards, or (looking
along that) its -z, which is up where the tool points down. Framing moves a camera without turning it, and random
shifts keep upwards what the file's numbers have upwards, so that no picture turns over from one layout to the next.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nimbusd.stages.types import F64, Camera
from nimbusd.stages.workflow.sim.layout.layout import (
    CameraLayout,
    ObjectLayout,
    Pose,
    RegionLayout,
    RelationLayout,
    SkillCall,
)
from nimbusd.stages.workflow.sim.models.fixtures import needed_space
from nimbusd.stages.workflow.sim.rotation import FORWARD, UP, about, image_up, look_at
from nimbusd.stages.workflow.sim.task.camera_spec import TASK, CameraSpec
from nimbusd.stages.workflow.sim.task.task import ManipTask
from nimbusd.stages.workflow.sim.workcell.relations import DIRECTIONS

_HAND_M = 0.1
"""Room above what is framed, for the hand that comes for it."""

_GOAL_GAP_M = 0.08
_MOUNT_SHARE = 0.1
"""Mounts are stiff: they vary by this share of what a tripod does."""


def cameras_of(
    task: ManipTask,
    objects: Sequence[ObjectLayout],
    regions: Sequence[RegionLayout],
    goals: Sequence[RelationLayout],
    skills: Sequence[SkillCall],
    rng: np.random.Generator,
) -> tuple[CameraLayout, ...]:
    """The cameras of a layout in which these objects and regions stand, with random shifts."""
    arms = list(task.robot_model().arms)
    asked = asked_of(objects, regions, goals, skills)
    cameras: list[CameraLayout] = []
    for spec in task.cameras:
        points = _framed_points(_framed_names(spec, objects, regions, asked), objects, regions, goals)
        for name, mount in spec.mounts(arms).items():
            cameras.append(_camera(task, spec, name, mount, points, rng))
    return tuple(cameras)


def asked_of(
    objects: Sequence[ObjectLayout],
    regions: Sequence[RegionLayout],
    goals: Sequence[RelationLayout],
    skills: Sequence[SkillCall],
) -> list[str]:
    """Names of the objects and visible regions that goals and skills speak of, in the layout's order."""
    words = {word for call in skills for word in call.words()}
    words |= {word for goal in goals for word in (goal.subject, goal.reference)}
    things = [entry.name for entry in objects] + [region.name for region in regions if region.visible]
    return [name for name in things if name in words]


def _camera(
    task: ManipTask, spec: CameraSpec, name: str, mount: str, points: F64, rng: np.random.Generator
) -> CameraLayout:
    vary, height_m = task.randomize, task.table.height_m
    nominal = spec.width / 2 / math.tan(spec.hfov_rad / 2)
    focal = nominal * (1 + float(rng.uniform(-vary.focal, vary.focal)))
    camera = Camera(name, spec.width, spec.height, focal, focal, spec.width / 2, spec.height / 2)
    shift = rng.uniform(-vary.camera_m, vary.camera_m, 3)
    turn = rng.uniform(-vary.camera_rad, vary.camera_rad, 3)
    eye, target = spec.eye_and_target(task.robot_model().arms[mount] if mount else None)
    if mount:
        up = image_up(target - eye, FORWARD, -UP)
        shift, turn = _MOUNT_SHARE * shift, _MOUNT_SHARE * turn
    else:
        eye, target = eye + height_m * UP, target + height_m * UP
        up = image_up(target - eye)
    T = look_at(eye, target, up, spec.roll_rad)
    if len(points):
        slopes = np.array([spec.width, spec.height]) / 2 / nominal * (1 - 2 * spec.margin)
        eye, target = framing(points, T[:3, :3], slopes, spec.nearest_m)
    T = look_at(eye + shift, target, T[:3, 1])
    angle = float(np.linalg.norm(turn))
    if angle > 0:
        T[:3, :3] = T[:3, :3] @ about(turn, angle)
    return CameraLayout(camera, Pose.from_matrix(T), mount)


def framing(points: F64, rotation: F64, slopes: F64, nearest_m: float) -> tuple[F64, F64]:
    """The nearest place from which a camera of this `rotation` (3, 3) sees all points, (N, 3), and what it looks at.

    slopes: (2,) tangents of half the angles of view to be used, across and upwards. The points' bounding rectangle on
    the picture is centred; none of them is nearer than `nearest_m`.
    """
    local = points @ rotation
    across, depth = local[:, :2], local[:, 2:]
    high, low = (across + slopes * depth).max(axis=0), (across - slopes * depth).min(axis=0)
    back = max(float(((high - low) / 2 / slopes).max()), float(depth.max()) + nearest_m)
    eye = rotation @ np.array([*((high + low) / 2), back])
    return eye, eye - rotation[:, 2] * (back - float(depth.mean()))


def _framed_names(
    spec: CameraSpec, objects: Sequence[ObjectLayout], regions: Sequence[RegionLayout], asked: list[str]
) -> list[str]:
    wanted = asked if TASK in spec.framed else []
    named = [entry.name for entry in objects if entry.name in wanted or f"${entry.group}" in spec.framed]
    return named + [region.name for region in regions if region.name in wanted or f"${region.name}" in spec.framed]


def _framed_points(
    names: list[str],
    objects: Sequence[ObjectLayout],
    regions: Sequence[RegionLayout],
    goals: Sequence[RelationLayout],
) -> F64:
    """(N, 3) corners of the boxes that are to be seen: what is named, with its doors open, and where it is to go."""
    found: list[F64] = []
    by_name = {entry.name: entry for entry in objects if entry.name in names}
    for entry in by_name.values():
        x0, x1, y0, y1 = needed_space(entry.definition, entry.size_m)
        found.append(_corners(entry.pose, (x0, x1), (y0, y1), (-entry.size_m[2] / 2, entry.size_m[2] / 2 + _HAND_M)))
    for region in regions:
        if region.name in names:
            x, y = region.size_m[0] / 2, region.size_m[1] / 2
            found.append(_corners(region.pose, (-x, x), (-y, y), (0.0, _HAND_M)))
    for goal in goals:
        subject, reference = by_name.get(goal.subject), by_name.get(goal.reference)
        if goal.kind in DIRECTIONS and subject and reference:
            radius = math.hypot(*subject.size_m[:2]) / 2
            away = math.hypot(*reference.size_m[:2]) / 2 + _GOAL_GAP_M + radius
            x, y, z = reference.pose.position
            forward, left = DIRECTIONS[goal.kind]
            spot, around = Pose((x + away * forward, y + away * left, z)), (-radius, radius)
            found.append(_corners(spot, around, around, (-reference.size_m[2] / 2, _HAND_M)))
    return np.concatenate(found) if found else np.empty((0, 3))


def _corners(pose: Pose, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float]) -> F64:
    """(8, 3) corners in the world of a box in a pose's frame."""
    corners = np.array([[a, b, c] for a in x for b in y for c in z])
    T = pose.matrix()
    return np.asarray(corners @ T[:3, :3].T + T[:3, 3])
