"""`plan_episode`: perform a layout's skills in the simulation and hand out the demonstration."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from itertools import groupby

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.demonstration import ArmTrace, Demonstration, DemonstrationFailed
from nimbusd.stages.workflow.sim.layout.layout import Layout, SkillCall
from nimbusd.stages.workflow.sim.reasons import POSTPONED, RETRIED
from nimbusd.stages.workflow.sim.scene.seen import seen_at_start
from nimbusd.stages.workflow.sim.skills import make_skill
from nimbusd.stages.workflow.sim.task.task import ManipTask
from nimbusd.stages.workflow.sim.workcell.relations import holds, settled
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell
from nimbusd.stages.workflow.sim.world.poses import BodyPoses, camera_poses
from nimbusd.stages.workflow.sim.world.world import ArmIndex, build_world

SETTLE_STEPS = 20
_MOVED_M = 0.015
_ITEM_TRIES = 2
_END_STEPS, _PATIENCE_STEPS = 6, 40
_CLOSING_M = 1e-4
"""A command for an opening no further than this beyond the least is one to close."""


def plan_episode(
    task: ManipTask, layout: Layout, rng: np.random.Generator, beat: Callable[[], None] = lambda: None
) -> Demonstration:
    """Perform the skills of a layout of `task` until its goals hold.

    Raises PlanningFailed with one of the reasons in `REASONS` (DemonstrationFailed where something was done before it
    failed), ValueError for a layout of another task.
    """
    if layout.task != task.name:
        raise ValueError(f"the layout belongs to task {layout.task!r}, not to {task.name!r}")
    clock = _Clock()
    world = build_world(layout)
    clock.lap("build")
    cell = Workcell.open(world, rng, beat, task.planner)
    _settle(cell)
    clock.lap("settle")
    try:
        for block in _blocks(layout):
            _perform_block(cell, block, clock)
        _rest(cell)
        reached = _validate(cell)
    except PlanningFailed as error:
        cell.end_phase()
        if not cell.phases:
            raise
        cell.simulation.finish()
        raise DemonstrationFailed(error.reason, error.detail, _demonstration(cell, (), clock)) from error
    cell.simulation.finish()
    return _demonstration(cell, reached, clock)


_Numbered = tuple[int, SkillCall]


def _blocks(layout: Layout) -> list[list[list[_Numbered]]]:
    """The calls with their numbers: blocks of items, each item a list of calls in order.

    Calls that are not repeated form one item, up to the next that is.
    """
    blocks: list[list[list[_Numbered]]] = []
    for block, calls in groupby(enumerate(layout.skills), key=lambda entry: entry[1].block):
        if block:
            blocks.append([list(group) for _, group in groupby(calls, key=lambda entry: entry[1].item)])
        else:
            blocks.append([list(calls)])
    return blocks


def _perform_block(cell: Workcell, items: list[list[_Numbered]], clock: _Clock) -> None:
    """Do every item. One that cannot be done now (something is in the way) waits until others are done.

    Raises the PlanningFailed of the first that is left when none of those left can be done.
    """
    problem: PlanningFailed | None = None
    while items:
        waiting: list[list[_Numbered]] = []
        for item in items:
            point = cell.checkpoint()
            try:
                _perform_item(cell, item, clock)
            except PlanningFailed as error:
                if len(items) == 1 or error.reason not in POSTPONED or cell.exhausted:
                    raise
                cell.rollback(point)
                cell.count("postponed")
                problem = problem or error
                waiting.append(item)
        if len(waiting) == len(items):
            assert problem is not None
            raise problem
        items, problem = waiting, None


def _perform_item(cell: Workcell, item: list[_Numbered], clock: _Clock) -> None:
    """Do the calls of an item; where a later one fails, once more from the first, with other grasps and places."""
    point = cell.checkpoint()
    for attempt in range(_ITEM_TRIES):
        done = 0
        try:
            for number, call in item:
                cell.begin_call(call.skill, number, call.instruction)
                make_skill(call.skill, call.arguments).perform(cell)
                clock.lap(call.skill)
                done += 1
            return
        except PlanningFailed as error:
            if not done or attempt == _ITEM_TRIES - 1 or error.reason not in RETRIED or cell.exhausted:
                raise
            cell.rollback(point)
            cell.count("restarts")


class _Clock:
    """Seconds per stage."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now


def _settle(cell: Workcell) -> None:
    """Let everything come to rest. Raises PlanningFailed('no_layout') where it does not stay in its place."""
    cell.simulation.settle(SETTLE_STEPS)
    for entry in cell.layout.objects:
        T = cell.simulation.object_pose(entry.name)
        upright = float((T[:3, :3].T @ entry.pose.matrix()[:3, :3]).trace())
        if np.linalg.norm(T[:3, 3] - np.asarray(entry.pose.position)) > _MOVED_M or upright < 2.9:
            raise PlanningFailed("no_layout", f"{entry.name} does not stay where the layout puts it")


def _rest(cell: Workcell) -> None:
    """Nothing is commanded for some control steps, so that the goal is judged at rest and seen reached."""
    arm = next(iter(cell.world.arms.values()))
    cell.begin_call("rest", len(cell.layout.skills), "wait")
    cell.begin_phase("rest", arm, "wait")
    cell.wait(arm, _END_STEPS)
    for _ in range(_PATIENCE_STEPS):
        if all(settled(cell, goal.subject) for goal in cell.layout.goals):
            break
        cell.wait(arm, 1)
    cell.end_phase()


def _validate(cell: Workcell) -> tuple[str, ...]:
    """The goals, all of which hold. Raises PlanningFailed('goal_not_reached') naming the first that does not."""
    for goal in cell.layout.goals:
        if not holds(cell, goal):
            raise PlanningFailed("goal_not_reached", f"{goal.words()} does not hold at the end")
        if not settled(cell, goal.subject):
            raise PlanningFailed("goal_not_reached", f"{goal.subject} still moves at the end")
    return tuple(goal.words() for goal in cell.layout.goals)


def _demonstration(cell: Workcell, reached: tuple[str, ...], clock: _Clock) -> Demonstration:
    world, rows = cell.world, cell.simulation.rows
    qpos, qvel = np.array([row.qpos for row in rows]), np.array([row.qvel for row in rows])
    poses, T_world_camera = BodyPoses(world, qpos), camera_poses(world.layout, qpos)
    # The last row shows the result of the last command and belongs to the last phase.
    phases = (*cell.phases[:-1], dataclasses.replace(cell.phases[-1], stop=len(rows)))
    clock.lap("record")
    return Demonstration(
        fps=world.layout.physics.fps,
        instruction=world.layout.instruction,
        qpos=qpos,
        qvel=qvel,
        arms={name: _trace(cell, poses, arm, qpos, qvel) for name, arm in world.arms.items()},
        T_world_object={
            **{name: poses.of(index.body) for name, index in world.objects.items()},
            **{region.name: np.repeat(region.pose.matrix()[None], len(rows), 0) for region in world.layout.regions},
        },
        joints={name: qpos[:, index.joint_q] for name, index in world.objects.items() if index.joint_q >= 0},
        T_world_camera=T_world_camera,
        T_world_robot=world.T_world_robot,
        phases=phases,
        contacts=tuple(cell.simulation.contacts),
        keypoints=tuple(cell.keypoints),
        reached=reached,
        timings_s=dict(clock.laps),
        seen_px=seen_at_start(world.layout, qpos, T_world_camera),
        facts={
            **cell.facts,
            "planners": sorted({planner.name for planner in cell.planners.values()}),
            "simulator": f"{cell.simulation.simulator.name} {cell.simulation.simulator.version}",
        },
    )


def _trace(cell: Workcell, poses: BodyPoses, arm: ArmIndex, qpos: F64, qvel: F64) -> ArmTrace:
    commands = [row.commands[arm.name] for row in cell.simulation.rows]
    joint_command = np.array([command.joints for command in commands])
    opening_command = np.array([command.opening_m for command in commands])
    before = np.concatenate([np.asarray(cell.layout.robot.start[arm.name])[None], joint_command[:-1]])
    commanded = qpos.copy()
    commanded[:, arm.q] = joint_command
    T_world_ee = poses.of(arm.flange)
    return ArmTrace(
        joint_names=tuple(arm.model.joints),
        joint_position=qpos[:, arm.q],
        joint_command=joint_command,
        joint_velocity=qvel[:, arm.v],
        joint_velocity_command=(joint_command - before) * cell.layout.physics.fps,
        opening=arm.opening_of(qpos),
        opening_command=opening_command,
        opening_velocity=arm.opening_velocity_of(qvel),
        openness_command=np.where(opening_command > arm.model.gripper.opening_m[0] + _CLOSING_M, 1.0, 0.0),
        opening_range=arm.model.gripper.opening_m,
        T_world_ee=T_world_ee,
        T_world_tcp=T_world_ee @ arm.T_ee_tcp,
        T_world_ee_command=BodyPoses(cell.world, commanded).of(arm.flange),
        T_world_base=poses.of(arm.base)[0],
    )
