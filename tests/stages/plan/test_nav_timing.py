"""Drives keep the robot's limits, begin and end where they should, and describe themselves rightly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbusd.stages.plan.timing import DriveLimits, body_velocity, time_path
from nimbusd.stages.types import F64

limits_strategy = st.builds(DriveLimits, st.floats(0.2, 2.0), st.floats(0.3, 3.0), st.floats(0.3, 3.0))


@st.composite
def drives(draw: st.DrawFn) -> list[F64]:
    """Smooth wavy pieces of 0.1 to 6 m, with corners between them."""
    start, heading = np.zeros(2), draw(st.floats(-3, 3))
    pieces = []
    for _ in range(draw(st.integers(1, 3))):
        length, bend = draw(st.floats(0.1, 6.0)), draw(st.floats(-2.0, 2.0))
        s = np.linspace(0, length, max(3, int(length / 0.005)))
        angle = heading + bend * np.sin(s)
        step = np.stack([np.cos(angle), np.sin(angle)], axis=1)[:-1] * (s[1] - s[0])
        pieces.append(start + np.concatenate([np.zeros((1, 2)), np.cumsum(step, axis=0)]))
        start, heading = pieces[-1][-1], float(angle[-1]) + draw(st.floats(-2, 2))
    return pieces


@settings(deadline=None, max_examples=60)
@given(drives(), limits_strategy, st.sampled_from([5.0, 10.0, 30.0]), st.none() | st.floats(-3, 3))
def test_a_drive_keeps_speed_acceleration_and_turn_rate(
    pieces: list[F64], limits: DriveLimits, fps: float, start_yaw: float | None
) -> None:
    timed = time_path(pieces, limits, fps, start_yaw)
    velocity = body_velocity(timed, fps)
    speed = np.hypot(velocity[:, 0], velocity[:, 1])
    assert speed.max() <= limits.max_speed_mps * (1 + 1e-9)
    assert np.abs(velocity[:, 2]).max() <= limits.max_turn_radps * (1 + 1e-6)
    # A chord is a little shorter than the arc that was driven, which looks like a change of speed.
    chord_loss = limits.max_speed_mps * (limits.max_turn_radps / fps) ** 2 / 24
    change = np.abs(np.diff(speed[:-1]))
    assert change.max(initial=0) <= limits.max_accel_mps2 / fps + chord_loss + 1e-9
    assert timed.xy[0] == pytest.approx(pieces[0][0])
    assert timed.xy[-1] == pytest.approx(pieces[-1][-1])
    assert (velocity[-1] == 0).all()


@settings(deadline=None, max_examples=30)
@given(drives(), limits_strategy)
def test_every_pose_lies_on_the_path(pieces: list[F64], limits: DriveLimits) -> None:
    points = np.concatenate(pieces)
    for xy in time_path(pieces, limits, 10.0).xy:
        assert np.linalg.norm(points - xy, axis=1).min() <= 0.5 * 0.05 + 1e-9


@given(st.floats(-3, 3), st.floats(0.2, 5.0))
def test_actions_lead_from_each_state_to_the_next(heading: float, length: float) -> None:
    s = np.linspace(0, length, 200)
    piece = np.stack([s * np.cos(heading), s * np.sin(heading) + 0.1 * np.sin(s)], axis=1)
    timed = time_path([piece], DriveLimits(1.0, 1.0, 1.0), 10.0, start_yaw=0.5)
    velocity = body_velocity(timed, 10.0)
    for t in range(len(timed.yaw) - 1):
        c, s_ = np.cos(timed.yaw[t]), np.sin(timed.yaw[t])
        world = np.array([c * velocity[t, 0] - s_ * velocity[t, 1], s_ * velocity[t, 0] + c * velocity[t, 1]])
        assert timed.xy[t] + world / 10.0 == pytest.approx(timed.xy[t + 1], abs=1e-9)
        assert timed.yaw[t] + velocity[t, 2] / 10.0 == pytest.approx(timed.yaw[t + 1], abs=1e-9)


def test_a_straight_drive_takes_the_time_of_a_trapezoid() -> None:
    piece = np.stack([np.linspace(0, 5, 1001), np.zeros(1001)], axis=1)
    timed = time_path([piece], DriveLimits(1.0, 1.0, 1.0), 10.0)
    assert len(timed.yaw) == 61  # 5 m at 1 m/s, plus 1 s for speeding up and braking at 1 m/s²
    assert (timed.yaw == 0).all()


def test_the_robot_turns_on_the_spot_where_pieces_join_at_an_angle() -> None:
    along_x, along_y = np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 1.0]])
    timed = time_path([along_x, along_y], DriveLimits(1.0, 1.0, 1.0), 20.0)
    turning = np.abs(np.diff(timed.yaw)) > 1e-9
    assert turning.sum() == pytest.approx(np.pi / 2 * 20, abs=2)
    standing = np.linalg.norm(timed.xy - [1.0, 0.0], axis=1) < 0.01
    assert standing[:-1][turning].all()
    assert timed.yaw[-1] == pytest.approx(np.pi / 2)
