"""`MotionPlanner`: what finds a way for an arm from its joint positions to a pose or to other joint positions.

The default, `ConnectPlanner`, searches with OMPL over MuJoCo's collision shapes and times with TOPP-RA (see `search`
and `timing`). Whoever plans, `check_trajectory` goes over the timed result densely.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.types import F64
from nimbusd.stages.workflow.sim.motion.collision import CollisionChecker
from nimbusd.stages.workflow.sim.motion.kinematics import ArmKinematics
from nimbusd.stages.workflow.sim.motion.search import Search, find_path
from nimbusd.stages.workflow.sim.motion.timing import timed

RECHECK_RAD = 0.004
"""Spacing of the samples at which timed trajectories are checked."""


@dataclass(frozen=True)
class Trajectory:
    """Joint set points, one row per control step, at rest at both ends.

    positions: (M, n) radians. planner: its maker.
    """

    positions: F64
    step_s: float
    planner: str


@dataclass(frozen=True)
class MotionLimits:
    """Joint limits that trajectories keep, and the control step. scale: factor of both limits."""

    velocity: F64
    acceleration: F64
    step_s: float
    scale: float = 1.0

    def time(self, path: F64) -> F64:
        """(M, n) set points along a (N, n) path."""
        return timed(path, self.velocity * self.scale, self.acceleration * self.scale, self.step_s)


class MotionPlanner(Protocol):
    """Plans for one arm. The checker has where things are, and by `set_query` what may touch what."""

    name: str

    def plan_pose(
        self, start: F64, T_world_tcp: F64, limits: MotionLimits, checker: CollisionChecker, rng: np.random.Generator
    ) -> Trajectory:
        """A trajectory that ends with the tool at the pose. Raises PlanningFailed: ik_failed, no_path."""

    def plan_joints(
        self, start: F64, goal: F64, limits: MotionLimits, checker: CollisionChecker, rng: np.random.Generator
    ) -> Trajectory:
        """A trajectory that ends at the joint positions. Raises PlanningFailed: no_path."""


def check_trajectory(positions: F64, checker: CollisionChecker) -> None:
    """Go over a timed trajectory at RECHECK_RAD. Raises PlanningFailed('collision_in_recheck') naming the pair."""
    touch = checker.first_touch(positions, RECHECK_RAD)
    if touch is not None:
        row, (a, b) = touch
        raise PlanningFailed("collision_in_recheck", f"{a} would touch {b} at step {row} of {len(positions)}")


@dataclass
class ConnectPlanner:
    """The default planner. check_rad: sampling along edges while searching."""

    kinematics: ArmKinematics
    search: Search = field(default_factory=Search)
    check_rad: float = 0.03
    name: str = "connect"

    def plan_pose(
        self, start: F64, T_world_tcp: F64, limits: MotionLimits, checker: CollisionChecker, rng: np.random.Generator
    ) -> Trajectory:
        solutions = self.kinematics.solve_any(T_world_tcp, start, rng)
        if not solutions:
            raise PlanningFailed("ik_failed", "no joint positions bring the tool there")
        free = [goal for goal in solutions if checker.free(goal)]
        if not free:
            pair = checker.touching(solutions[0])
            raise PlanningFailed("ik_failed", f"every posture that reaches it touches something, such as {pair}")
        problem: PlanningFailed | None = None
        for goal in free[:3]:
            try:
                return self.plan_joints(start, goal, limits, checker, rng)
            except PlanningFailed as error:
                problem = error
        assert problem is not None
        raise problem

    def plan_joints(
        self, start: F64, goal: F64, limits: MotionLimits, checker: CollisionChecker, rng: np.random.Generator
    ) -> Trajectory:
        straight = np.array([start, goal])
        positions = limits.time(straight)
        if checker.first_touch(positions, self.check_rad) is None:
            return self._checked(positions, checker, limits)
        pair = checker.touching(start)
        if pair is not None:
            raise PlanningFailed("no_path", f"the start already touches: {pair[0]} and {pair[1]}")
        problem: PlanningFailed | None = None
        for check_rad in (self.check_rad, self.check_rad / 3):
            bounds = self.kinematics.lower, self.kinematics.upper
            path = find_path(start, goal, bounds, checker.free, check_rad, rng, self.search)
            if path is None:
                raise PlanningFailed("no_path", f"no way found in {self.search.iterations} iterations")
            # The more knots, the closer the timed curve keeps to the checked polyline, and the slower its corners are.
            for spacing_rad in (0.15, 0.06, 0.025):
                try:
                    return self._checked(limits.time(_refined(path, spacing_rad)), checker, limits)
                except PlanningFailed as error:
                    problem = error
        assert problem is not None
        raise problem

    def _checked(self, positions: F64, checker: CollisionChecker, limits: MotionLimits) -> Trajectory:
        check_trajectory(positions, checker)
        return Trajectory(positions, limits.step_s, self.name)


def _refined(path: F64, spacing_rad: float) -> F64:
    """The same polyline with points at most `spacing_rad` apart."""
    rows = [path[:1]]
    for a, b in pairwise(path):
        pieces = max(1, int(np.ceil(np.abs(b - a).max() / spacing_rad)))
        rows.append(a + (b - a) * (np.arange(1, pieces + 1) / pieces)[:, None])
    return np.concatenate(rows)
