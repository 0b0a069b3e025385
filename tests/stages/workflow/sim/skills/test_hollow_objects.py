"""Mugs, bowls and open boxes are picked where a hand finds room, and refused with the right words where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimbusd.stages.errors import PlanningFailed
from nimbusd.stages.workflow.sim import ManipTask, plan_episode, randomize_layout
from nimbusd.stages.workflow.sim.rotation import UP, downward, transform
from nimbusd.stages.workflow.sim.skills.grasp_choice import CANDIDATES, GraspChoice
from nimbusd.stages.workflow.sim.skills.grasps import Grasp, antipodal_grasps
from nimbusd.stages.workflow.sim.skills.open_hand import OpenHand
from nimbusd.stages.workflow.sim.workcell.workcell import Workcell
from nimbusd.stages.workflow.sim.world.world import build_world
from tests.support.hollow_things import Mesh, bowl, cup, inside_out, mirrored, mixed, mug, open_box, write_obj
from tests.support.manip_worlds import require_simulation, task_of

require_simulation()
pytestmark = pytest.mark.mujoco


def lifting(folder: Path, mesh: Mesh, **model: Any) -> ManipTask:
    """Pick up a thing that stands alone."""
    thing = {"shape": "mesh", "category": "mug", "noun": "mug", "mesh": str(write_obj(folder / "thing.obj", mesh))}
    return task_of(
        [{"skill": "pick", "object": "$thing"}],
        [{"name": "thing", "models": ["thing"], "x_m": [0.4, 0.55], "y_m": [-0.2, 0.2]}],
        objects={"thing": {**thing, **model}},
        goals=[{"subject": "$thing", "relation": "lifted"}],
    )


def lift(task: ManipTask, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    assert plan_episode(task, randomize_layout(task, rng), rng).reached


@pytest.mark.parametrize("seed", range(3))
def test_a_mug_is_picked_around_its_body_though_rim_and_handle_offer_better_pairs(tmp_path: Path, seed: int) -> None:
    lift(lifting(tmp_path, mug()), seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_mug_that_hardly_fits_the_gripper_is_sampled_again(tmp_path: Path, seed: int) -> None:
    lift(lifting(tmp_path, mug(radius=0.034)), seed)


@pytest.mark.parametrize("spoil", [inside_out, mirrored, mixed])
def test_a_mug_of_any_winding_is_picked(tmp_path: Path, spoil: Any) -> None:
    lift(lifting(tmp_path, spoil(mug())))


@pytest.mark.parametrize("mesh", [mug(), bowl(), open_box()], ids=["mug", "bowl", "box"])
def test_a_hollow_thing_in_parts_is_picked(tmp_path: Path, mesh: Mesh) -> None:
    lift(lifting(tmp_path, mesh, collision="parts"))


@pytest.mark.parametrize("mesh", [bowl(), open_box()], ids=["bowl", "box"])
def test_a_wide_hollow_thing_that_collides_as_its_hull_is_refused_with_the_way_out(tmp_path: Path, mesh: Mesh) -> None:
    with pytest.raises(PlanningFailed, match=r"do not fit its own collision shape; give it collision: parts") as failed:
        lift(lifting(tmp_path, mesh))
    assert failed.value.reason == "no_grasp"


def cell_of(task: ManipTask) -> Workcell:
    rng = np.random.default_rng(0)
    return Workcell.open(build_world(randomize_layout(task, rng)), rng, lambda: None)


def test_an_open_hand_names_what_it_would_touch_and_holds_only_what_lies_between_its_fingers(tmp_path: Path) -> None:
    cell = cell_of(lifting(tmp_path, cup()))
    arm = cell.world.arm("")
    hand = OpenHand(cell.world, arm, cell.simulation.qpos)
    place = cell.simulation.object_pose("thing")[:3, 3]
    around, beside = (transform(downward(0.0), place + offset) for offset in ([0, 0, 0.03], [0.1, 0, 0.03]))
    assert hand.touched(around, 0.08) is None
    assert hand.touched(around, 0.05) == "thing"
    assert hand.touched(transform(downward(0.0), place + np.array([0.15, 0, -0.05])), 0.08) == "table"
    assert hand.holds("thing", around, 0.06)
    assert not hand.holds("thing", beside, 0.06)


def test_the_arm_tries_grasps_from_several_sides_and_not_more_than_its_share(tmp_path: Path) -> None:
    cell = cell_of(lifting(tmp_path, cup()))
    arm = cell.world.arm("")
    hand, T = OpenHand(cell.world, arm, cell.simulation.qpos), cell.simulation.object_pose("thing")
    grasps = antipodal_grasps(cell.mesh("thing"), arm.model.gripper, T[:3, :3].T @ -UP, cell.rng, 384)
    choice = GraspChoice(hand, "thing", T, 0.08, 0.001)
    tried = list(choice.worth_trying([(grasp, 0.08) for grasp in grasps], sampled=True))
    assert len(tried) == choice.tried <= CANDIDATES
    yaw = [np.arctan2(*(T @ grasp.T_object_tcp)[[1, 0], 1]) for grasp in tried]
    assert len(set(np.floor(np.array(yaw) / (np.pi / 4)))) >= 4
    assert all(hand.touched(T @ grasp.T_object_tcp, 0.08) is None for grasp in tried)
    scores = [grasp.score for grasp in tried]
    assert scores == sorted(scores, reverse=True)


def test_a_users_grasp_file_is_trusted_about_widths(tmp_path: Path) -> None:
    cell = cell_of(lifting(tmp_path, cup()))
    hand, T = OpenHand(cell.world, cell.world.arm(""), cell.simulation.qpos), cell.simulation.object_pose("thing")
    wrong = Grasp(np.linalg.inv(T) @ transform(downward(0.0), T[:3, 3] + [0, 0, 0.03]), 0.078, 1.0)
    for sampled, expected in ((True, []), (False, [wrong])):
        assert list(GraspChoice(hand, "thing", T, 0.08, 0.001).worth_trying([(wrong, 0.08)], sampled)) == expected
