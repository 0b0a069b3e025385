"""Mistakes that no layout of a task can mend, found without drawing one.

A robot whose home is outside its limits or touches something; slots and regions that no arm reaches; things that no
gripper takes, that are too heavy, or that do not fit into what they are put into; more things than a slot has room for.
Whatever is doubtful is let pass: layouts are drawn and tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import TypeAlias

import numpy as np

from nimbusd.stages.arguments import Mistake
from nimbusd.stages.plain import Key
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.layout.layout import Layout, Pose, RobotLayout, TableLayout
from nimbusd.stages.workflow.sim.models.fixtures import WALL_M, tray_m
from nimbusd.stages.workflow.sim.models.mesh_shape import mesh_shape
from nimbusd.stages.workflow.sim.models.objects import mass_kg, own_size
from nimbusd.stages.workflow.sim.motion.collision import CollisionChecker
from nimbusd.stages.workflow.sim.motion.kinematics import ArmKinematics
from nimbusd.stages.workflow.sim.motion.self_touch import self_touch
from nimbusd.stages.workflow.sim.rotation import UP, Vector
from nimbusd.stages.workflow.sim.skills.grasps import SAMPLES, WIDTH_SPARE_M, antipodal_grasps
from nimbusd.stages.workflow.sim.task.task import ManipTask, SlotSpec
from nimbusd.stages.workflow.sim.world.geometry import TriangleMesh
from nimbusd.stages.workflow.sim.world.world import ArmIndex, World, build_world

_GRID = 5
Span: TypeAlias = tuple[float, float]
"""Least and most along an axis, metres."""


def impossibilities(task: ManipTask) -> tuple[Mistake, ...]:
    """Every reason for which no layout of the task can be worked in, where it stands and what to do about it.

    The task's names must be right and its files there. Raises AssetError, BackendUnavailable as `build_world` does.
    """
    return _found(task.model_dump_json(by_alias=True))


@lru_cache(maxsize=8)
def _found(text: str) -> tuple[Mistake, ...]:
    task = ManipTask.model_validate_json(text)
    world = bare_world(task)
    home = list(_of_home(task, world))
    return (*home, *([] if home else _of_reach(task, world)), *_of_picks(task), *_of_containers(task), *_of_room(task))


def bare_world(task: ManipTask) -> World:
    """The task's robot in its home posture at its table, and nothing else."""
    model, table = task.robot_model(), task.table
    robot = RobotLayout(
        task.robot,
        model,
        Pose((0.0, 0.0, table.height_m)),
        {name: arm.home for name, arm in model.arms.items()},
        {name: arm.gripper.opening_m[1] for name, arm in model.arms.items()},
    )
    place = TableLayout(table.centre, table.size_m, table.height_m)
    return build_world(Layout(task.name, "", robot, place, (), (), (), (), (), physics=task.physics))


# The robot --------------------------------------------------------------------------------------------------------


def _of_home(task: ManipTask, world: World) -> Iterator[Mistake]:
    checker: CollisionChecker | None = None
    for name, arm in world.arms.items():
        place: tuple[Key, ...] = (
            ("robots", task.robot, "arms", name, "home") if task.robot in task.robots else ("robot",)
        )
        wrong = [
            f"{joint} at {value:.4g} (limits {low:.4g} to {high:.4g})"
            for joint, value, low, high in zip(arm.model.joints, arm.model.home, arm.lower, arm.upper, strict=True)
            if low < high and not low <= value <= high
        ]
        if wrong:
            text = f"the home posture of arm '{name}' is outside its joints' limits: {', '.join(wrong)}"
            yield Mistake(place, f"{text}; give a posture inside them")
            continue
        checker = checker or CollisionChecker(world)
        checker.observe(world.start)
        checker.set_query(arm)
        home = np.asarray(arm.model.home)
        pair = checker.touching(home) or self_touch(world, arm)
        if pair is not None:
            text = f"in the home posture of arm '{name}', {pair[0]} touches {pair[1]}"
            yield Mistake(place, f"{text}; give a posture free of collisions, or another table")


# Reach ------------------------------------------------------------------------------------------------------------


def _of_reach(task: ManipTask, world: World) -> Iterator[Mistake]:
    kinematics = {name: ArmKinematics(world, arm) for name, arm in world.arms.items()}
    needed = _needed(task)
    for index, slot in enumerate(task.slots):
        if slot.name in needed and slot.count[1]:
            height = min(_least_size(task, slot, key)[2] for key in slot.models) / 2
            if not _reached(task, world, kinematics, slot.x_m, slot.y_m, height):
                yield Mistake(("slots", index), _far(f"slot '{slot.name}'", slot.x_m, slot.y_m))
    for index, region in enumerate(task.regions):
        if region.name in needed and not _reached(task, world, kinematics, region.x_m, region.y_m, 0.0):
            yield Mistake(("regions", index), _far(f"region '{region.name}'", region.x_m, region.y_m))


def _far(what: str, x_m: Span, y_m: Span) -> str:
    where = f"x_m {x_m[0]:g} to {x_m[1]:g}, y_m {y_m[0]:g} to {y_m[1]:g}"
    return (
        f"no arm of the robot reaches any of {what} ({where}) with the tool pointing down; move it nearer to the robot"
    )


def _reached(
    task: ManipTask, world: World, kinematics: dict[str, ArmKinematics], x_m: Span, y_m: Span, height_m: float
) -> bool:
    """True where an arm reaches above one of some points of a rectangle on the table."""
    xs, ys = (np.unique(np.linspace(*limits, _GRID)) for limits in (x_m, y_m))
    points = np.array([[x, y, task.table.height_m + height_m] for x in xs for y in ys])
    for name, arm in world.arms.items():
        near = points[
            np.argsort(np.abs(np.linalg.norm(points[:, :2] - _base(world, arm), axis=1) - 0.5), kind="stable")
        ]
        for point in near:
            if kinematics[name].reaches_above(point, np.asarray(arm.model.home)):
                return True
    return False


def _base(world: World, arm: ArmIndex) -> F64:
    return np.asarray(world.T_world_robot[:2, 3] + world.model.body_pos[arm.base][:2], np.float64)


def _needed(task: ManipTask) -> set[str]:
    """Slots and regions that skills name: an arm has to come there."""
    found: set[str] = set()
    for call in task.skills:
        for word in call.words():
            found |= {slot.name for slot in task.slots_of(word, call.for_each)}
            found |= {word.removeprefix("$")} & _regions(task)
    return found


def _regions(task: ManipTask) -> set[str]:
    return {region.name for region in task.regions}


# Things -----------------------------------------------------------------------------------------------------------


def _least_size(task: ManipTask, slot: SlotSpec, key: str) -> Vector:
    """The smallest bounding box in which a model may stand in a slot."""
    model = task.object_model(key)
    if slot.size_m is not None:
        return slot.size_m
    x, y, z = own_size(model)
    scale = task.randomize.scale[0] if model.shape == "mesh" else 1.0
    return x * scale, y * scale, z * scale


def _most_size(task: ManipTask, slot: SlotSpec, key: str) -> Vector:
    model = task.object_model(key)
    return slot.size_m or (model.size_max_m if task.randomize.sizes else None) or own_size(model)


def _of_picks(task: ManipTask) -> Iterator[Mistake]:
    """Slots of which nothing can be picked, though it is to be."""
    for index, call in enumerate(task.skills):
        if call.skill != "pick":
            continue
        own_grasps = bool(call.with_.get("grasps"))
        for slot in task.slots_of(call.word("object"), call.for_each):
            problems = [_unpickable(task, slot, key, own_grasps) for key in slot.models]
            if all(problems):
                yield Mistake(
                    ("skills", index, "with", "object"), f"nothing in slot '{slot.name}' can be picked: {problems[0]}"
                )


def _unpickable(task: ManipTask, slot: SlotSpec, key: str, own_grasps: bool) -> str:
    """The reason for which a model of a slot can never be picked; empty where it may be."""
    model, arms = task.object_model(key), task.robot_model().arms
    size = _least_size(task, slot, key)
    if slot.stands_still(model):
        return f"'{key}' stands still; let it be moved by fixed: false, or pick something else"
    weight_n = mass_kg(model, size) * task.randomize.mass[0] * abs(task.physics.gravity)
    slip = model.friction * task.randomize.friction[1]
    if all(weight_n > 2 * arm.gripper.force_n * max(arm.gripper.pad_friction, slip) for arm in arms.values()):
        return f"'{key}' weighs {weight_n:.3g} N, more than the gripper's force_n can hold; lower randomize.mass"
    if model.grasps or own_grasps:
        return ""
    widest = max(arm.gripper.opening_m[1] for arm in arms.values())
    if model.shape == "mesh":
        fits = any(_has_grasp(task, key, arm) for arm in arms)
    else:
        fits = min(size[:2]) < widest - WIDTH_SPARE_M
    if fits:
        return ""
    box = " x ".join(f"{edge * 100:.3g}" for edge in size)
    said = f"'{key}' ({box} cm) has no opposite sides that fit the gripper, which opens {widest * 100:.3g} cm"
    return f"{said}; give it a smaller size_m, unit_m or randomize.scale, or a grasp file"


def _has_grasp(task: ManipTask, key: str, arm: str) -> bool:
    """True where a mesh, as it stands in its file, has a pair of opposite sides for an arm's gripper."""
    model = task.object_model(key)
    shape = mesh_shape(model.mesh, model.unit_m, model.up)
    vertices, faces = shape.coarse or (shape.vertices, shape.faces)
    mesh = TriangleMesh(vertices * task.randomize.scale[0], faces)
    gripper, rng = task.robot_model().arms[arm].gripper, np.random.default_rng(0)
    return any(antipodal_grasps(mesh, gripper, -UP, rng, samples) for samples in SAMPLES)


def _of_containers(task: ManipTask) -> Iterator[Mistake]:
    """Places into which nothing that is put there fits."""
    for index, call in enumerate(task.skills):
        if call.skill != "place" or call.word("relation") != "in":
            continue
        subjects, references = (
            [(slot, key) for slot in task.slots_of(call.word(name), call.for_each) for key in slot.models]
            for name in ("object", "reference")
        )
        spaces = [space for slot, key in references if (space := _space(task, slot, key)) is not None]
        if not subjects or not spaces or len(spaces) < len(references):
            continue
        if not any(_fits(_least_size(task, slot, key), space) for slot, key in subjects for space in spaces):
            said = f"nothing that '{call.word('object')}' may be fits into '{call.word('reference')}'"
            place = ("skills", index, "with", "reference")
            yield Mistake(place, f"{said}; give a larger size_m, or smaller things")


def _space(task: ManipTask, slot: SlotSpec, key: str) -> Vector | None:
    """Inner edges of the largest container that a model may be; a bin is open above."""
    x, y, z = _most_size(task, slot, key)
    shape = task.object_model(key).shape
    if shape == "bin":
        return x - 2 * WALL_M, y - 2 * WALL_M, math.inf
    if shape == "drawer":
        (ix, iy, iz), _ = tray_m((x, y, z))
        return ix - 2 * WALL_M, iy - 2 * WALL_M, iz
    return None


def _fits(size: Vector, space: Vector) -> bool:
    (a, b), (x, y) = sorted(size[:2]), sorted(space[:2])
    return a <= x and b <= y and size[2] <= space[2]


def _of_room(task: ManipTask) -> Iterator[Mistake]:
    """Slots with more things than their rectangle has room for, even if all stand side by side."""
    for index, slot in enumerate(task.slots):
        if slot.count[0] < 2:
            continue
        edges = [[edge + slot.gap_m for edge in sorted(_least_size(task, slot, key)[:2])] for key in slot.models]
        a, b = min(edge[0] for edge in edges), min(edge[1] for edge in edges)
        x, y = (limits[1] - limits[0] + b for limits in (slot.x_m, slot.y_m))
        if slot.count[0] * a * b > x * y:
            text = f"slot '{slot.name}' has no room for {slot.count[0]} things in its x_m and y_m"
            yield Mistake(("slots", index, "count"), f"{text}; give it wider ranges, a smaller gap_m or fewer things")
