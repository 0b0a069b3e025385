"""Hands whose fingers turn: they are read, coupled as their bars couple them, and grasp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimbusd.stages.workflow.sim import mistakes_in_files, parse_task, plan_episode, randomize_layout
from nimbusd.stages.workflow.sim.models.assets import cache_folder
from nimbusd.stages.workflow.sim.models.mjcf_files import mended_text
from nimbusd.stages.workflow.sim.models.robots import ROBOTS
from nimbusd.stages.workflow.sim.world.world import build_world
from tests.docs.test_docs_manipulation import BLOCKS
from tests.support.manip_worlds import require_simulation
from tests.support.slow import quick_first

pytestmark = pytest.mark.mujoco
require_simulation()

ROBOTIQ: dict[str, Any] = next(block["gripper"] for block in BLOCKS if "gripper" in block)
BARS = ROBOTIQ["finger_bodies"]


def hand(file: str, closed: dict[str, float], bodies: list[str], **more: Any) -> dict[str, Any]:
    fingers = [{"joint": joint, "closed": value, "open": 0.0} for joint, value in closed.items()]
    return {**ROBOTIQ, "mjcf": f"robosuite:grippers/{file}.xml", "fingers": fingers, "finger_bodies": bodies, **more}


ROBOTIQ_140 = hand(
    "robotiq_gripper_140",
    {"finger_joint": 0.7, "right_outer_knuckle_joint": -0.7, "left_inner_knuckle_joint": -0.7,
     "right_inner_knuckle_joint": -0.7, "left_inner_finger_joint": 0.7, "right_inner_finger_joint": 0.7},
    BARS, opening_m=[0.0, 0.127], tcp_m=[0, 0, 0.2], reach_m=0.03, palm_m=0.06,
)  # fmt: skip
XARM = hand(
    "xarm7_gripper",
    {f"{side}_{bar}_joint": 0.85 for bar in ("driver", "inner_knuckle", "finger") for side in ("left", "right")},
    [f"{side}_{bar}" for bar in ("outer_knuckle", "inner_knuckle", "finger") for side in ("left", "right")],
    opening_m=[0.0, 0.086], tcp_m=[0, 0, 0.147], reach_m=0.03,
)  # fmt: skip


def task_with(gripper: dict[str, Any]) -> Any:
    if not (cache_folder() / "robosuite-1.5.2" / gripper["mjcf"].partition(":")[2]).is_file():
        pytest.skip("needs `nimbusctl assets fetch`")
    robot = ROBOTS["franka"].model_dump(mode="json")
    robot["arms"]["arm"]["gripper"] = gripper
    return parse_task(
        {
            "name": "lift",
            "robot": "mine",
            "robots": {"mine": robot},
            "slots": [{"name": "cube", "models": ["cube"], "x_m": [0.42, 0.55], "y_m": [-0.15, 0.15]}],
            "goals": [{"subject": "$cube", "relation": "lifted"}],
            "skills": [{"skill": "pick", "with": {"object": "$cube"}}],
            "instructions": ["Lift the {cube}."],
        }
    )


@pytest.mark.parametrize("gripper", quick_first([ROBOTIQ, ROBOTIQ_140, XARM]), ids=lambda value: value["mjcf"][19:])
def test_a_hand_whose_fingers_turn_grasps_a_cube(gripper: dict[str, Any]) -> None:
    task = task_with(gripper)
    assert list(mistakes_in_files(task)) == []
    rng = np.random.default_rng(0)
    layout = randomize_layout(task, rng)
    demo = plan_episode(task, layout, rng)
    assert demo.reached == ("cube lifted ",)
    held = demo.arms["arm"].opening[-1]
    assert held == pytest.approx(layout.object("cube").size_m[1], abs=0.015)  # of some yaw, a cube's edges are alike


def test_bars_stay_coupled_while_the_hand_moves() -> None:
    task = task_with(ROBOTIQ)
    rng = np.random.default_rng(0)
    layout = randomize_layout(task, rng)
    arm = build_world(layout).arms["arm"]
    demo = plan_episode(task, layout, rng)
    shares = np.array(
        [
            (demo.qpos[:, address] - finger.closed) / (finger.open - finger.closed)
            for address, finger in zip(arm.fingers_q, arm.model.gripper.fingers, strict=True)
        ]
    )
    assert np.ptp(shares, axis=0).max() < 0.15


def test_of_assets_that_are_named_twice_the_first_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "hand.xml"
    file.write_text(
        '<mujoco><default><default class="a" group="1"><geom group="1"/></default></default><asset>'
        '<mesh name="m" file="one.stl"/><mesh name="m" file="two.stl"/><material name="m"/></asset></mujoco>'
    )
    text = mended_text(file, radians=False)
    assert text is not None
    assert "one.stl" in text
    assert "two.stl" not in text
    assert "<material" in text
    assert 'class="a" group' not in text
    assert '<geom group="1"' in text
    assert 'angle="radian"' not in text
    radians = mended_text(file, radians=True)
    assert radians is not None
    assert 'angle="radian"' in radians


@pytest.mark.parametrize("radians", [True, False])
def test_a_file_with_nothing_to_mend_is_read_as_it_is(radians: bool, tmp_path: Path) -> None:
    file = tmp_path / "hand.xml"
    file.write_text('<mujoco><compiler angle="degree"/><asset><mesh name="m" file="one.stl"/></asset></mujoco>')
    assert mended_text(file, radians) is None
    file.write_text("no XML")
    assert mended_text(file, radians) is None
