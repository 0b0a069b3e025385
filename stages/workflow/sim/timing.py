"""Time-optimal parametrization of a joint path under velocity and acceleration limits.

Reachability analysis after Pham & Pham 2018 ("A New Approach to Time-Optimal Path Parameterization Based on
Reachability Analysis"): a backward pass finds the highest speed from which the path can still be followed, a forward
pass drives as fast as that allows.
"""

from __future__ import annotations

import numpy as np

from nimbusd.stages.types import F64

_BISECTIONS = 24


def timed(path: F64, velocity: F64, acceleration: F64, step_s: float, grid: int = 100) -> F64:
    """Joint positions at every `step_s` along a smooth curve through `path`, at rest at both ends.

    path: (N, n) waypoints, N >= 2. velocity, acceleration: (n,) limits. Returns (M, n); the first row is the start, the
    last exactly the end. A path that goes nowhere returns its single end.
    """
    from scipy.interpolate import CubicSpline

    path = _distinct(path)
    if len(path) < 2:
        return path[-1:]
    lengths = np.linalg.norm(np.diff(path, axis=0), axis=1)
    knots = np.concatenate([[0.0], np.cumsum(lengths)])
    if len(path) == 2:
        path = np.array([path[0], (path[0] + path[1]) / 2, path[1]])
        knots = np.array([0.0, knots[-1] / 2, knots[-1]])
    curve = CubicSpline(knots, path, bc_type="natural")
    s = np.linspace(0.0, knots[-1], max(grid, 3 * len(path)))
    first, second = curve(s, 1), curve(s, 2)
    speeds = _squared_speeds(first, second, velocity, acceleration, s[1] - s[0])
    roots = np.sqrt(speeds)
    spans = 2 * np.diff(s) / np.maximum(roots[:-1] + roots[1:], 1e-9)
    times = np.concatenate([[0.0], np.cumsum(spans)])
    count = max(1, int(np.ceil(times[-1] / step_s)))
    # Stretching to whole steps only slows the motion down.
    moments = np.linspace(0.0, times[-1], count + 1)
    interval = np.clip(np.searchsorted(times, moments, side="right") - 1, 0, len(spans) - 1)
    since = moments - times[interval]
    push = np.diff(roots)[interval] / spans[interval]
    rows = np.asarray(curve(s[interval] + (roots[interval] + push * since / 2) * since), np.float64)
    rows[0], rows[-1] = path[0], path[-1]
    return rows


def _distinct(path: F64) -> F64:
    keep = np.concatenate([[True], np.abs(np.diff(path, axis=0)).max(axis=1) > 1e-6])
    return np.asarray(path[keep])


def _squared_speeds(first: F64, second: F64, velocity: F64, acceleration: F64, ds: float) -> F64:
    """(G,) squared path speeds, zero at both ends."""
    small = 1e-9
    limit = np.min((velocity / np.maximum(np.abs(first), small)) ** 2, axis=1)
    count = len(first)
    reach = np.zeros(count)
    limits = acceleration.tolist()
    rows = [
        # The limits hold at both ends of an interval: at its end the squared speed is x + 2 ds u.
        [*zip(a0, b0, limits, strict=True), *zip((a1 + 2 * ds * b1).tolist(), b1.tolist(), limits, strict=True)]
        for a0, b0, a1, b1 in zip(first[:-1].tolist(), second[:-1].tolist(), first[1:], second[1:], strict=True)
    ]
    for i in range(count - 2, -1, -1):
        low, high = 0.0, float(limit[i])
        if _feasible(rows[i], high, reach[i + 1], ds) is None:
            for _ in range(_BISECTIONS):
                middle = (low + high) / 2
                if _feasible(rows[i], middle, reach[i + 1], ds) is None:
                    high = middle
                else:
                    low = middle
            high = low
        reach[i] = high
    speeds = np.zeros(count)
    for i in range(count - 1):
        span = _feasible(rows[i], speeds[i], reach[i + 1], ds)
        push = span[1] if span is not None else 0.0
        speeds[i + 1] = min(max(speeds[i] + 2 * ds * push, 0.0), reach[i + 1])
    return speeds


def _feasible(row: list[tuple[float, float, float]], x: float, reach: float, ds: float) -> tuple[float, float] | None:
    """Path accelerations that keep every joint within its limit at squared speed x and arrive in 0…reach."""
    low, high = -x / (2 * ds), (reach - x) / (2 * ds)
    for a, b, limit in row:
        drag = b * x
        if abs(a) < 1e-9:
            if abs(drag) > limit:
                return None
            continue
        one, two = (-limit - drag) / a, (limit - drag) / a
        if one > two:
            one, two = two, one
        low, high = max(low, one), min(high, two)
    return (low, high) if low <= high + 1e-9 else None
