"""`randomize_layout`: draw one world of a task, and make sure that it can be worked in.

What is drawn: objects, their number, sizes, colours, poses, masses and friction; the looks of table, floor and walls;
lamps; cameras' places and lenses; the robot's posture. A draw is thrown away where things overlap, the arm does not
reach an object, a goal holds from the start, or there is no free spot to bring it about.
"""

from __future__ import annotations

import math

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import Rgb
from nimbusd.stages.workflow.sim.layout.flooring import floor_beside
from nimbusd.stages.workflow.sim.layout.layout import (
    Draws,
    Layout,
    LightLayout,
    ObjectLayout,
    Pose,
    RegionLayout,
    RobotLayout,
    Surface,
    TableLayout,
)
from nimbusd.stages.workflow.sim.motion.kinematics import ArmKinematics
from nimbusd.stages.workflow.sim.randomize.cameras import asked_of, cameras_of
from nimbusd.stages.workflow.sim.randomize.placing import place_things, uniform
from nimbusd.stages.workflow.sim.randomize.wording import bind_goals, bind_skills, nouns_of, sentences
from nimbusd.stages.workflow.sim.scene.seen import seen_px
from nimbusd.stages.workflow.sim.task.feasible import bare_world, impossibilities
from nimbusd.stages.workflow.sim.task.task import ManipTask, RandomizeSpec
from nimbusd.stages.workflow.sim.workcell.relations import DIRECTIONS, holds, resting_spots
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell
from nimbusd.stages.workflow.sim.world.world import build_world

_DRAWS, _BUILT, _UNSEEN = 40, 20, 10
"""Draws of a layout; of those that look right, the ones that are built and tried; of these, the ones that cameras may
miss."""


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
    objects, regions = place_things(task, place_rng)
    return _assemble(task, objects, regions, place_rng, look_rng, view_rng, robot_rng, number), check_rng


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
        draws=Draws(chosen, nouns, number),
    )


def _surface(kinds: tuple[str, ...], rng: np.random.Generator, scale: float) -> Surface:
    if not kinds:
        return Surface()
    kind, seed = kinds[int(rng.integers(len(kinds)))], int(rng.integers(2**31))
    return Surface((1.0, 1.0, 1.0), kind, seed, scale * uniform(rng, (0.8, 1.3)), uniform(rng, (0.02, 0.3)))


def _lights(spec: RandomizeSpec, rng: np.random.Generator) -> tuple[LightLayout, ...]:
    def tinted(level: float) -> Rgb:
        warm = uniform(rng, (-spec.warmth, spec.warmth))
        return level * min(1.0, 1 + warm), level, level * min(1.0, 1 - warm)

    turn, tilt = uniform(rng, (-math.pi, math.pi)), uniform(rng, (0.15, 0.15 + spec.sun_rad))
    down = (math.sin(tilt) * math.cos(turn), math.sin(tilt) * math.sin(turn), -math.cos(tilt))
    ambient = uniform(rng, spec.ambient)
    key = LightLayout(
        "key", "sun", (0.4 - 2 * down[0], -2 * down[1], 0.8 - 2 * down[2]), down, tinted(uniform(rng, spec.key)),
        (ambient, ambient, ambient),
    )  # fmt: skip
    fill = LightLayout(
        "fill", "sun", (0.4, 0.0, 2.5), (-0.5 * down[0], -0.5 * down[1] + 0.2, -1.0), tinted(uniform(rng, spec.fill)),
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
    return RobotLayout(task.robot, model, Pose((0.0, 0.0, task.table.height_m)), start, opening)


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


def _check_reach(task: ManipTask, layout: Layout) -> None:
    """Raises PlanningFailed where no arm reaches above an object with the tool pointing down."""
    world = bare_world(task)
    arms = {name: ArmKinematics(world, arm) for name, arm in world.arms.items()}
    asked = {word for call in layout.skills for word in call.words()}
    for name in sorted(asked & {entry.name for entry in layout.objects}):
        point = np.asarray(layout.object(name).pose.position)
        if not any(arms[arm].reaches_above(point, np.asarray(layout.robot.start[arm])) for arm in arms):
            raise PlanningFailed("no_layout", f"no arm reaches {name}")
