"""Time-optimal parametrization of a joint path under velocity and acceleration limits, by TOPP-RA.

Pham & Pham 2018, "A New Approach to Time-Optimal Path Parameterization Based on Reachability Analysis".
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from nimbusd.stages.errors import BackendUnavailable, PlanningFailed
from nimbusd.stages.types import F64


def timed(path: F64, velocity: F64, acceleration: F64, step_s: float, grid: int = 100) -> F64:
    """Joint positions at every `step_s` along a smooth curve through `path`, at rest at both ends.

    path: (N, n) waypoints, N >= 2. velocity, acceleration: (n,) limits. Returns (M, n); the first row is the start, the
    last exactly the end. A path that goes nowhere returns its single end. Raises PlanningFailed('no_path') where the
    limits cannot be kept.
    """
    path = _distinct(path)
    if len(path) < 2:
        return path[-1:]
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
    knots = np.concatenate([[0.0], np.cumsum(lengths)])
    if len(path) == 2:
        path = np.array([path[0], (path[0] + path[1]) / 2, path[1]])
        knots = np.array([0.0, knots[-1] / 2, knots[-1]])
    ta, algorithm, constraint = _toppra()
    parametrization = algorithm.TOPPRA(
        [
            constraint.JointVelocityConstraint(np.stack([-velocity, velocity], axis=1)),
            constraint.JointAccelerationConstraint(np.stack([-acceleration, acceleration], axis=1)),
        ],
        ta.SplineInterpolator(knots, path, bc_type="natural"),
        gridpoints=np.linspace(0.0, knots[-1], max(grid, 3 * len(path))),
        parametrizer="ParametrizeConstAccel",
    )
    trajectory = parametrization.compute_trajectory()
    if trajectory is None:
        raise PlanningFailed("no_path", "no timing of the path keeps the joints' limits")
    # Stretching to whole steps only slows the motion down.
    steps = max(1, int(np.ceil(trajectory.duration / step_s)))
    rows = np.asarray(trajectory(np.linspace(0.0, trajectory.duration, steps + 1)), np.float64)
    rows[0], rows[-1] = path[0], path[-1]
    return rows


def _distinct(path: F64) -> F64:
    keep = np.concatenate([[True], np.abs(np.diff(path, axis=0)).max(axis=1) > 1e-6])
    return np.asarray(path[keep])


@cache
def _toppra() -> tuple[Any, Any, Any]:
    try:
        import toppra
        from toppra import algorithm, constraint
    except ImportError as error:
        raise BackendUnavailable(f"motion planning needs toppra ({error}): pip install 'nimbusd[mujoco]'") from error
    return toppra, algorithm, constraint
