"""`randomize_layout`: draw one world of a task, and make sure that it can be worked in.

What is drawn: objects, their number, sizes, colours, poses, masses and friction; the looks of table, floor and walls;
lamps; cameras' places and lenses; the robot's posture. A draw is thrown away where things overlap, the arm does not
reach an object, a goal holds from the start, or there is no free spot to bring it about.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import Rgb
from nimbusd.stages.workflow.sim.layout.cameras import asked_of, cameras_of
from nimbusd.stages.workflow.sim.layout.flooring import floor_beside
from nimbusd.stages.workflow.sim.layout.layout import (
    Layout,
    LightLayout,
    ObjectLayout,
    Pose,
    RegionLayout,
    RobotLayout,
    Surface,
    TableLayout,
    Vector,
)
from nimbusd.stages.workflow.sim.layout.relations import DIRECTIONS, holds, resting_spots
from nimbusd.stages.workflow.sim.layout.seen import seen_px
from nimbusd.stages.workflow.sim.models.fixtures import needed_space
from nimbusd.stages.workflow.sim.models.objects import ObjectModel, mass_kg, own_size
from nimbusd.stages.workflow.sim.motion.kinematics import ArmKinematics
from nimbusd.stages.workflow.sim.motion.reach import reached_above
from nimbusd.stages.workflow.sim.rotation import about, transform
from nimbusd.stages.workflow.sim.skills.workcell import Workcell
from nimbusd.stages.workflow.sim.task.feasible import bare_world, impossibilities
from nimbusd.stages.workflow.sim.task.task import ManipTask, RandomizeSpec, SlotSpec
from nimbusd.stages.workflow.sim.task.wording import bind_goals, bind_skills, nouns_of, sentences
from nimbusd.stages.workflow.sim.world.world import FIRST_OBJECT_ID, build_world

_DRAWS, _BUILT, _UNSEEN, _PLACES = 40, 20, 10, 200
"""Draws of a layout; of those that look right, the ones that are built and tried, and the ones that may be unseen by
cameras; draws of a thing's place."""


def randomize_layout(task: ManipTask, rng: np.random.Generator) -> Layout:
    """A layout in which the task can be tried.

    Raises PlanningFailed: `impossible` for a task that no layout can serve, `not_seen` where ten were found but for
    what the cameras see of them, `no_layout` where none was found.
    """
    if wrong := impossibilities(task):
        raise PlanningFailed("impossible", "; ".join(mistake.text for mistake in wrong))
    problem, built, unseen, number = "nothing was drawn", 0, 0, 0
    while number < _DRAWS and built < _BUILT:
        try:
            layout, check_rng = draw_layout(task, rng, number)
            _check_reach(task, layout)
            built += 1
            _check(layout, check_rng)
            _check_seen(layout, task.seen_share)
            return layout
        except PlanningFailed as error:
            if error.reason not in ("no_layout", "not_seen"):
                raise
            problem, number, unseen = error.detail, number + 1, unseen + (error.reason == "not_seen")
            if unseen == _UNSEEN:
                raise PlanningFailed(
                    "not_seen", f"{unseen} layouts would do, but cameras miss them: {problem}"
                ) from error
    raise PlanningFailed("no_layout", f"{number} draws in vain, the last one because {problem}")


def draw_layout(task: ManipTask, rng: np.random.Generator, number: int = 0) -> tuple[Layout, np.random.Generator]:
    """Draw `number` of a layout, in which nothing overlaps, and the generator to check with whether it can be tried.

    Raises PlanningFailed('no_layout') where there is no room.
    """
    # One stream per purpose: switching one kind of variation off leaves what the others draw as it was.
    place_rng, look_rng, view_rng, robot_rng, check_rng = rng.spawn(5)
    objects, regions = _place(task, place_rng)
    return _assemble(task, objects, regions, place_rng, look_rng, view_rng, robot_rng, number), check_rng


def _uniform(rng: np.random.Generator, limits: tuple[float, float]) -> float:
    return float(rng.uniform(*limits))


# Objects and regions ------------------------------------------------------------------------------------------


def _place(task: ManipTask, rng: np.random.Generator) -> tuple[list[ObjectLayout], list[RegionLayout]]:
    objects: list[ObjectLayout] = []
    regions: list[RegionLayout] = []
    taken: list[tuple[float, float, float, float]] = []  # x, y and half edges of what stands already
    number = FIRST_OBJECT_ID
    used: set[tuple[str, str]] = set()
    # What stands still is placed first: it is larger and has less freedom.
    for slot in sorted(task.slots, key=lambda slot: not _is_fixed(task, slot)):
        for name, key in _drawn_models(slot, _plain(task, used), rng):
            entry = _draw_object(task, slot, name, key, number, used, rng)
            objects.append(_put(task, slot, entry, taken, rng))
            number += 1
    for spec in task.regions:
        for _ in range(_PLACES):
            x, y = _uniform(rng, spec.x_m), _uniform(rng, spec.y_m)
            if not _overlaps((x, y, spec.size_m[0] / 2, spec.size_m[1] / 2), taken, 0.01):
                break
        else:
            raise PlanningFailed("no_layout", f"there is no room for region {spec.name}")
        taken.append((x, y, spec.size_m[0] / 2, spec.size_m[1] / 2))
        pose = Pose((x, y, task.table.height_m + 0.0005))
        regions.append(RegionLayout(spec.name, number, pose, spec.size_m, spec.color, spec.visible))
        number += 1
    return objects, regions


def _is_fixed(task: ManipTask, slot: SlotSpec) -> bool:
    return slot.fixed if slot.fixed is not None else task.object_model(slot.models[0]).is_fixture


def _plain(task: ManipTask, used: set[tuple[str, str]]) -> set[str]:
    """Models that stand on the table already and come in one look only: a second one could not be told from it."""
    return {key for key, _ in used if not task.object_model(key).colors}


def _drawn_models(slot: SlotSpec, spent: set[str], rng: np.random.Generator) -> list[tuple[str, str]]:
    count = int(rng.integers(slot.count[0], slot.count[1] + 1))
    pool: list[str] = []
    names = []
    for index in range(count):
        if not pool or not slot.distinct:
            left = [key for key in slot.models if key not in spent] if slot.distinct else []
            left = left or list(slot.models)
            pool = [left[i] for i in rng.permutation(len(left))]
        names.append((slot.name if slot.count == (1, 1) else f"{slot.name}_{index + 1}", pool.pop()))
    return names


def _draw_object(
    task: ManipTask,
    slot: SlotSpec,
    name: str,
    key: str,
    number: int,
    used: set[tuple[str, str]],
    rng: np.random.Generator,
) -> ObjectLayout:
    model, spec = task.object_model(key), task.randomize
    fixed = _is_fixed(task, slot)
    scale = _uniform(rng, spec.scale) if model.shape == "mesh" else 1.0
    size = slot.size_m or _draw_size(model, scale, spec, rng)
    color_name, surface = _draw_look(model, slot, key, used, rng)
    used.add((key, color_name))
    mass = mass_kg(model, size) * _uniform(rng, spec.mass)
    return ObjectLayout(
        name=name,
        model=key,
        definition={**model.dump(), "noun": f"{color_name} {model.noun}".strip()},
        category=model.category,
        instance_id=number,
        pose=Pose(),
        size_m=size,
        scale=scale,
        mass_kg=mass,
        friction=model.friction * _uniform(rng, spec.friction),
        surface=surface,
        fixed=fixed,
        joint=slot.joint * model.travel,
        group=slot.name,
    )


def _draw_size(model: ObjectModel, scale: float, spec: RandomizeSpec, rng: np.random.Generator) -> Vector:
    low = np.asarray(own_size(model))
    high = np.asarray(model.size_max_m or low)
    size = low * scale if model.shape == "mesh" else low
    if spec.sizes and model.shape != "mesh":
        size = low + (high - low) * rng.random(3)
        if model.shape == "cylinder":
            size[1] = size[0]
    return float(size[0]), float(size[1]), float(size[2])


def _draw_look(
    model: ObjectModel, slot: SlotSpec, key: str, used: set[tuple[str, str]], rng: np.random.Generator
) -> tuple[str, Surface]:
    if not model.colors:
        shade = float(rng.uniform(0.85, 1.0))
        return "", Surface(color=(shade, shade, shade), own=True, gloss=float(rng.uniform(0.1, 0.4)))
    colors = dict(model.colors)
    free = [name for name in colors if (key, name) not in used] or list(colors)
    name = slot.color or free[int(rng.integers(len(free)))]
    if name not in colors:
        raise PlanningFailed("no_layout", f"slot {slot.name} wants colour {name!r}, which {key} does not come in")
    tint = np.clip(np.asarray(colors[name]) * rng.uniform(0.9, 1.1, 3), 0, 1)
    return name, Surface(color=(float(tint[0]), float(tint[1]), float(tint[2])), gloss=float(rng.uniform(0.05, 0.5)))


def _put(
    task: ManipTask, slot: SlotSpec, entry: ObjectLayout, taken: list[tuple[float, float, float, float]],
    rng: np.random.Generator,
) -> ObjectLayout:  # fmt: skip
    x0, x1, y0, y1 = needed_space(entry)
    half_x, half_y, half_z = (x1 - x0) / 2, (y1 - y0) / 2, entry.size_m[2] / 2
    for _ in range(_PLACES):
        x, y, yaw = _uniform(rng, slot.x_m), _uniform(rng, slot.y_m), _uniform(rng, slot.yaw_rad)
        c, s = math.cos(yaw), math.sin(yaw)
        off_x, off_y = (x0 + x1) / 2, (y0 + y1) / 2
        box = (
            x + c * off_x - s * off_y, y + s * off_x + c * off_y,
            abs(c) * half_x + abs(s) * half_y, abs(s) * half_x + abs(c) * half_y,
        )  # fmt: skip
        if not _overlaps(box, taken, slot.gap_m):
            taken.append(box)
            height = task.table.height_m + half_z + (0.0 if entry.fixed else 0.0005)
            return replace(entry, pose=Pose.from_matrix(transform(about((0, 0, 1), yaw), (x, y, height))))
    raise PlanningFailed("no_layout", f"there is no room for {entry.name}")


def _overlaps(
    box: tuple[float, float, float, float], taken: list[tuple[float, float, float, float]], gap: float
) -> bool:
    return any(
        abs(box[0] - other[0]) < box[2] + other[2] + gap and abs(box[1] - other[1]) < box[3] + other[3] + gap
        for other in taken
    )


# The rest of the world -----------------------------------------------------------------------------------------


def _assemble(
    task: ManipTask, objects: list[ObjectLayout], regions: list[RegionLayout], place_rng: np.random.Generator,
    look_rng: np.random.Generator, view_rng: np.random.Generator, robot_rng: np.random.Generator, number: int,
) -> Layout:  # fmt: skip
    chosen = {name: values[int(place_rng.integers(len(values)))] for name, values in sorted(task.choices.items())}
    nouns = nouns_of(objects, regions)
    words = sentences(task, objects, chosen, nouns, place_rng)
    goals, skills = bind_goals(task, objects, chosen), bind_skills(task, objects, chosen, nouns)
    spec, table = task.randomize, task.table
    top, floor_rng = _surface(spec.tables, look_rng, 1.5), look_rng.spawn(1)[0]
    floor = floor_beside(top, lambda: _surface(spec.floors, floor_rng, 0.6))
    return Layout(
        task=task.name,
        instruction=words[0],
        paraphrases=words[1:],
        robot=_robot(task, robot_rng),
        table=TableLayout(table.centre, table.size_m, table.height_m, top),
        objects=tuple(sorted(objects, key=lambda entry: entry.instance_id)),
        regions=tuple(regions),
        cameras=cameras_of(task, objects, regions, goals, skills, view_rng),
        lights=_lights(spec, look_rng),
        goals=goals,
        skills=skills,
        background={"floor": floor, "wall": _surface(spec.walls, look_rng, 0.6)},
        physics=task.physics,
        draws={"choices": chosen, "nouns": nouns, "draw": number},
    )


def _surface(kinds: tuple[str, ...], rng: np.random.Generator, scale: float) -> Surface:
    if not kinds:
        return Surface()
    kind, seed = kinds[int(rng.integers(len(kinds)))], int(rng.integers(2**31))
    return Surface((1.0, 1.0, 1.0), kind, seed, scale * _uniform(rng, (0.8, 1.3)), _uniform(rng, (0.02, 0.3)))


def _lights(spec: RandomizeSpec, rng: np.random.Generator) -> tuple[LightLayout, ...]:
    def tinted(level: float) -> Rgb:
        warm = _uniform(rng, (-spec.warmth, spec.warmth))
        return level * min(1.0, 1 + warm), level, level * min(1.0, 1 - warm)

    turn, tilt = _uniform(rng, (-math.pi, math.pi)), _uniform(rng, (0.15, 0.15 + spec.sun_rad))
    down = (math.sin(tilt) * math.cos(turn), math.sin(tilt) * math.sin(turn), -math.cos(tilt))
    ambient = _uniform(rng, spec.ambient)
    key = LightLayout(
        "key", "sun", (0.4 - 2 * down[0], -2 * down[1], 0.8 - 2 * down[2]), down, tinted(_uniform(rng, spec.key)),
        (ambient, ambient, ambient),
    )  # fmt: skip
    fill = LightLayout(
        "fill", "sun", (0.4, 0.0, 2.5), (-0.5 * down[0], -0.5 * down[1] + 0.2, -1.0), tinted(_uniform(rng, spec.fill)),
        shadow=False,
    )  # fmt: skip
    return key, fill


def _robot(task: ManipTask, rng: np.random.Generator) -> RobotLayout:
    model, spread = task.robot_model(), task.randomize.robot_rad
    start = {
        name: tuple(float(value) for value in np.asarray(arm.home) + rng.uniform(-spread, spread, len(arm.home)))
        for name, arm in model.arms.items()
    }
    opening = {name: arm.gripper.opening_m[1] for name, arm in model.arms.items()}
    return RobotLayout(task.robot, model.dump(), Pose((0.0, 0.0, task.table.height_m)), start, opening)


# Checks ----------------------------------------------------------------------------------------------------------


def _check(layout: Layout, rng: np.random.Generator) -> None:
    """Raises PlanningFailed('no_layout') with what is wrong."""
    cell = Workcell.open(build_world(layout), rng, lambda: None)
    for arm in cell.world.arms.values():
        start = cell.commanded(arm)
        if ((arm.lower < arm.upper) & ((start < arm.lower) | (start > arm.upper))).any():
            raise PlanningFailed("no_layout", f"at the start, a joint of {arm.name} is outside its limits")
        cell.allow(arm)
        pair = cell.checker.touching(start)
        if pair is not None:
            raise PlanningFailed("no_layout", f"at the start, {pair[0]} touches {pair[1]}")
    for entry in layout.objects:
        touched = cell.simulation.touches(entry.name) - {"table"}
        if touched:
            raise PlanningFailed("no_layout", f"{entry.name} overlaps {sorted(touched)[0]}")
    for goal in layout.goals:
        if goal.kind in (*DIRECTIONS, "near", "on", "in"):
            if holds(cell, goal):
                raise PlanningFailed("no_layout", f"{goal.words()} holds from the start")
            # A drawer has room only when it has been opened.
            held_back = goal.reference in cell.world.objects and cell.world.objects[goal.reference].joint_q >= 0
            if not held_back and next(iter(resting_spots(cell, goal.subject, goal, 40)), None) is None:
                raise PlanningFailed("no_layout", f"there is no free spot for {goal.words()}")


def _check_seen(layout: Layout, least: float) -> None:
    """Raises PlanningFailed('not_seen') where no still camera sees enough of a thing that the task is about."""
    still = {entry.name: (entry.camera, entry.pose.matrix()) for entry in layout.cameras if not entry.mount}
    if not still or not least:
        return
    world = build_world(layout)
    seen = seen_px(world, world.start, still)
    for name in asked_of(layout.objects, layout.regions, layout.goals, layout.skills):
        shares = {key: seen[key].get(name, 0) / (lens.width * lens.height) for key, (lens, _) in still.items()}
        best = max(shares, key=lambda key: shares[key])
        if shares[best] < least:
            raise PlanningFailed(
                "not_seen",
                f"{name} fills {shares[best]:.3%} of the picture of {best}, and less of those of other still cameras; "
                f"seen_share wants {least:.3%}",
            )


def _to_reach(layout: Layout) -> list[str]:
    names = {entry.name for entry in layout.objects}
    asked = {value for call in layout.skills for value in call.arguments.values() if isinstance(value, str)}
    return sorted(names & asked)


def _check_reach(task: ManipTask, layout: Layout) -> None:
    """Raises PlanningFailed where no arm reaches above an object with the tool pointing down."""
    world = bare_world(task)
    arms = {name: ArmKinematics(world, arm) for name, arm in world.arms.items()}
    for name in _to_reach(layout):
        point = np.asarray(layout.object(name).pose.position)
        if not any(reached_above(arms[arm], np.asarray(layout.robot.start[arm]), point) for arm in arms):
            raise PlanningFailed("no_layout", f"no arm reaches {name}")
