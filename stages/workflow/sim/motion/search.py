"""A way for joints around what is in it, by OMPL's RRT-Connect (Kuffner & LaValle 2000) and its path shortening.

OMPL's random numbers come from one generator per process. It is seeded anew for every search and the search ends by a
count of iterations, never by time: the same seed gives the same path on a slow machine and on a fast one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from nimbusd.stages.errors import BackendUnavailable
from nimbusd.stages.types import F64


@dataclass(frozen=True)
class Search:
    """Limits of a search. range_rad: edge length of the trees. shortcuts: to be tried.

    iterations: of the search, which also ends when so many states have been asked about: where an arm is hemmed in, an
    iteration takes ten times as many of them as elsewhere.
    """

    range_rad: float = 0.7
    iterations: int = 1500
    states: int = 15_000
    shortcuts: int = 60


def find_path(
    start: F64,
    goal: F64,
    bounds: tuple[F64, F64],
    free: Callable[[F64], bool],
    check_rad: float,
    rng: np.random.Generator,
    search: Search,
) -> F64 | None:
    """A polyline (N, n) of joint positions from start to goal, each edge free where it was sampled; None without one.

    bounds: lowest and highest joint positions, (n,) each; where they are infinite, half a turn around start and goal
    is searched. check_rad: spacing of the samples along edges, by Euclidean distance.
    """
    ob, og, ou = _ompl()
    ou.RNG.setSeed(int(rng.integers(1, 2**31)))
    space = ob.RealVectorStateSpace(len(start))
    box = ob.RealVectorBounds(len(start))
    lower = np.where(np.isinf(bounds[0]), np.minimum(start, goal) - np.pi, bounds[0])
    upper = np.where(np.isinf(bounds[1]), np.maximum(start, goal) + np.pi, bounds[1])
    for joint, (low, high) in enumerate(zip(lower, upper, strict=True)):
        box.setLow(joint, float(low))
        box.setHigh(joint, float(high))
    space.setBounds(box)
    information = ob.SpaceInformation(space)
    asked = 0

    def valid(state: Any) -> bool:
        nonlocal asked
        asked += 1
        return free(_array(state, len(start)))

    information.setStateValidityChecker(valid)
    information.setStateValidityCheckingResolution(check_rad / space.getMaximumExtent())
    information.setup()
    problem = ob.ProblemDefinition(information)
    problem.setStartAndGoalStates(_state(space, start), _state(space, goal))
    planner = og.RRTConnect(information)
    planner.setProblemDefinition(problem)
    planner.setRange(search.range_rad)
    planner.setup()
    left = iter(range(search.iterations))
    planner.solve(ob.PlannerTerminationCondition(lambda: asked >= search.states or next(left, None) is None))
    if not problem.hasExactSolution():
        return None
    path = problem.getSolutionPath()
    og.PathSimplifier(information).partialShortcutPath(path, search.shortcuts, search.shortcuts)
    points = [_array(path.getState(number), len(start)) for number in range(path.getStateCount())]
    return np.array([start, *points[1:-1], goal])


@cache
def _ompl() -> tuple[Any, Any, Any]:
    try:
        from ompl import base, geometric, util
    except ImportError as error:
        raise BackendUnavailable(f"motion planning needs OMPL ({error}): pip install 'nimbusd[mujoco]'") from error
    # It would tell on standard error that its generator is seeded again, which is what is wanted.
    util.setLogLevel(util.LogLevel.LOG_NONE)
    return base, geometric, util


def _state(space: Any, joints: F64) -> Any:
    state = space.allocState()
    for joint, value in enumerate(joints):
        state[joint] = float(value)
    return state


def _array(state: Any, size: int) -> F64:
    return np.array([state[joint] for joint in range(size)])
