"""The robot's place at every time: a path becomes poses at equal time steps, within the robot's limits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nimbusd.stages.types import F64


@dataclass(frozen=True, slots=True)
class DriveLimits:
    """Limits of the robot: speed along the path, its change, and turning."""

    max_speed_mps: float
    max_accel_mps2: float
    max_turn_radps: float


@dataclass(frozen=True, slots=True)
class TimedPath:
    """Poses at equal time steps. xy: (T, 2) metres. yaw: (T,) radians, continuous (not wrapped)."""

    xy: F64
    yaw: F64


def time_path(pieces: list[F64], limits: DriveLimits, fps: float, start_yaw: float | None = None) -> TimedPath:
    """The fastest drive along smooth pieces that keeps the limits, sampled at `fps`.

    pieces: (N, 2) polylines that join end to start. The robot looks along the path; it slows down in curves to
    keep its turn rate, stands still at both ends, and turns on the spot where pieces join at an angle and, given
    start_yaw, at the start. The first frame is the start, the last exactly the goal: the whole drive is
    slowed down by the part of a frame that is missing.
    Source of the speed profile: the usual forward and backward pass over v² (Bobrow et al. 1985).
    """
    knots = _Knots()
    yaw = start_yaw
    for piece in pieces:
        heading = _headings(piece)
        if yaw is not None:
            heading += 2 * np.pi * np.round((yaw - heading[0]) / (2 * np.pi))
            knots.turn(piece[0], yaw, heading[0], limits)
        knots.drive(piece, heading, limits)
        yaw = float(heading[-1])
    return knots.sample(fps)


def body_velocity(timed: TimedPath, fps: float) -> F64:
    """(T, 3) forward m/s, left m/s and yaw rad/s that lead from each frame to the next; the last row is 0.

    Forward and left are measured in the robot's frame at the frame where the motion begins.
    """
    step = np.diff(timed.xy, axis=0) * fps
    c, s = np.cos(timed.yaw[:-1]), np.sin(timed.yaw[:-1])
    velocity = np.zeros((len(timed.yaw), 3))
    velocity[:-1, 0] = c * step[:, 0] + s * step[:, 1]
    velocity[:-1, 1] = -s * step[:, 0] + c * step[:, 1]
    velocity[:-1, 2] = np.diff(timed.yaw) * fps
    return velocity


class _Knots:
    """A motion as segments, each from one pose to the next while a rate (of travel or turning) changes linearly."""

    def __init__(self) -> None:
        self._poses: list[F64] = []  # (K, 3) x, y, yaw where segments begin and end
        self._duration_s: list[F64] = []
        self._rates: list[F64] = []  # (K - 1, 2) at the two ends of each segment

    def turn(self, xy: F64, yaw0: float, yaw1: float, limits: DriveLimits) -> None:
        if abs(yaw1 - yaw0) < 1e-9:
            return
        self._add(
            np.array([[*xy, yaw0], [*xy, yaw1]]), np.array([abs(yaw1 - yaw0) / limits.max_turn_radps]), np.ones((1, 2))
        )

    def drive(self, piece: F64, heading: F64, limits: DriveLimits) -> None:
        if len(piece) == 2:  # a segment whose ends both stand still would never end
            piece, heading = (np.insert(a, 1, a.mean(axis=0), axis=0) for a in (piece, heading))
        length = np.linalg.norm(np.diff(piece, axis=0), axis=1)
        curvature = np.abs(np.diff(heading)) / length
        cap = np.minimum(limits.max_speed_mps, limits.max_turn_radps / np.maximum(curvature, 1e-9))
        speed = np.minimum(np.append(cap, 0.0), np.insert(cap, 0, 0.0))
        square, gain = speed**2, 2 * limits.max_accel_mps2 * length
        for i in range(len(length)):
            square[i + 1] = min(square[i + 1], square[i] + gain[i])
        for i in range(len(length) - 1, -1, -1):
            square[i] = min(square[i], square[i + 1] + gain[i])
        speed = np.sqrt(square)
        rates = np.stack([speed[:-1], speed[1:]], axis=1)
        self._add(np.column_stack([piece, heading]), length / rates.mean(axis=1), rates)

    def _add(self, poses: F64, duration_s: F64, rates: F64) -> None:
        self._poses.append(poses)
        self._duration_s.append(duration_s)
        self._rates.append(rates)

    def sample(self, fps: float) -> TimedPath:
        begin = np.concatenate([poses[:-1] for poses in self._poses])
        end = np.concatenate([poses[1:] for poses in self._poses])
        duration, rates = np.concatenate(self._duration_s), np.concatenate(self._rates)
        t_end = np.cumsum(duration)
        total_s = float(t_end[-1])
        steps = max(1, int(np.ceil(total_s * fps - 1e-9)))
        t = np.linspace(0.0, total_s, steps + 1)
        i = np.minimum(np.searchsorted(t_end, t, side="right"), len(duration) - 1)
        elapsed = np.clip(t - (t_end[i] - duration[i]), 0.0, duration[i])
        travelled = rates[i, 0] * elapsed + (rates[i, 1] - rates[i, 0]) / (2 * duration[i]) * elapsed**2
        share = np.clip(travelled / (rates[i].mean(axis=1) * duration[i]), 0.0, 1.0)[:, None]
        pose = begin[i] + share * (end[i] - begin[i])
        return TimedPath(np.asarray(pose[:, :2]), np.asarray(pose[:, 2]))


def _headings(piece: F64) -> F64:
    """(N,) continuous radians at a polyline's points: between the directions of the two segments that meet."""
    # Contiguous: the last bits of a strided `arctan2` depend on where its memory lies (docs/conventions.md).
    x, y = np.ascontiguousarray(np.diff(piece, axis=0).T)
    along = np.unwrap(np.arctan2(y, x))
    return np.concatenate([along[:1], (along[:-1] + along[1:]) / 2, along[-1:]])
