"""The lesson of drives in the format interndata-n1 for a policy, by the arithmetic of InternNav's loader."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nimbusd.job import read_job
from nimbusd.stages.plan.nav import CameraArgs, NavArgs, base_poses, camera_mount
from nimbusd.stages.store.formats.n1.trees import N1_BASE
from nimbusd.stages.types import F64
from tests.benchmarks.n1_labels import drives, figures
from tests.support.internnav_loader import DIGIT, PREDICTED, SCALE, label, pixel_goal, steps_of

JOB = Path(__file__).parents[3] / "examples/nav_n1.yaml"


def drive(xy: F64, yaw: F64) -> tuple[F64, F64, F64]:
    """(T, 4, 4) camera poses, (4, 4) mounting as it is published and (3, 3) camera matrix of a robot's way."""
    camera, args = CameraArgs(), NavArgs(camera_height_m=0.5)
    mount = camera_mount(camera, args)
    return base_poses(xy, yaw, 0.0) @ mount, N1_BASE @ mount, camera.intrinsics().matrix()


@pytest.mark.parametrize("yaw", [0.0, 0.7, np.pi / 2, -2.5])
def test_a_straight_drive_is_read_as_one(yaw: float) -> None:
    ahead = np.linspace(0, 3.47, 120)[:, None] * [np.cos(yaw), np.sin(yaw)]
    poses, mounting, K = drive(np.array([4.0, -7.0]) + ahead, np.full(120, yaw))
    steps = steps_of(poses, mounting, 0, 119)
    along = 3.47 / 119
    np.testing.assert_allclose(steps[-1], [118 * along, 0, 0], atol=1e-9)
    np.testing.assert_allclose(
        label(poses, mounting, 0, 119), np.tile([DIGIT * along * SCALE, 0, 0], (PREDICTED, 1)), atol=1e-9
    )
    u, v = pixel_goal(steps[-1], K, mounting)
    assert u == pytest.approx(K[0, 2])
    assert 0 < v < 2 * K[1, 2]


def test_a_curve_to_the_left_is_read_as_one() -> None:
    angle = np.linspace(0, np.pi / 2, 121)
    poses, mounting, _ = drive(2.0 * np.column_stack([np.sin(angle), 1 - np.cos(angle)]), angle)
    taught = label(poses, mounting, 0, 120)
    way = np.cumsum(taught, axis=0) / SCALE
    angles = angle[DIGIT : (PREDICTED + 1) * DIGIT : DIGIT]
    np.testing.assert_allclose(way[:, :2], 2.0 * np.column_stack([np.sin(angles), 1 - np.cos(angles)]), atol=0.02)
    np.testing.assert_allclose(way[:, 2], angles, atol=1e-9)


def test_behind_the_goal_a_label_stands_still() -> None:
    poses, mounting, _ = drive(np.linspace(0, 3, 120)[:, None] * [1, 0], np.zeros(120))
    taught = label(poses, mounting, 10, 31)
    assert np.count_nonzero(taught[:, 0]) == 5
    assert taught.sum(axis=0)[0] == pytest.approx(20 * 3 / 119 * SCALE)


def test_the_recommended_job_keeps_its_labels_within_what_the_policy_can_say() -> None:
    """A step of a label is 4 frames, times 4, and the policy clips what it predicts to -1 … 1."""
    job = read_job(JOB)
    (seq,) = drives(job, 1)
    found = figures(seq, 50, np.random.default_rng(0))
    assert max(found["error_m"]) < 1e-5
    assert np.mean(found["clipped"]) < 0.01
    assert np.mean(found["still"]) / PREDICTED < 0.6
    args = NavArgs.model_validate(job.describe()["plan"]["args"])
    assert max(args.max_speed_mps, args.max_turn_radps) <= args.fps / (DIGIT * SCALE)
