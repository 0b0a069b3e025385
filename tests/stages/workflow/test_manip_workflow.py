"""`ManipWorkflow`: planned in simulation, handed over, shown again, in one process and in two, in other styles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("mujoco", reason="needs the mujoco extra")

from nimbusd.stages import AssetError, ComponentError, Feature, Sequence
from nimbusd.stages.packing import pack_sequence, unpack
from nimbusd.stages.seeds import stream
from nimbusd.stages.store.poses import transforms_of
from nimbusd.stages.types import F64, SIMULATION_QPOS
from nimbusd.stages.workflow import EnvLoader, EnvPlanner, EnvRandomizer, EnvScene
from nimbusd.stages.workflow.env_components import (
    EnvLoaderArgs,
    EnvPlannerArgs,
    EnvRandomizerArgs,
    EnvSceneConfig,
)
from nimbusd.stages.workflow.sim import Layout
from tests.stages.workflow.test_workflow_modes import contents, pieces_of, run_well
from tests.support.slow import slow

TASK = {
    "name": "cube_in_bin",
    "instructions": ["Put the {target} into the {box}."],
    "slots": [
        {"name": "target", "models": ["cube"], "y_m": [-0.15, 0.05]},
        {"name": "box", "models": ["bin"], "x_m": [0.45, 0.55], "y_m": [0.2, 0.35], "yaw_rad": [0, 0]},
    ],
    "goals": [{"subject": "$target", "relation": "in", "reference": "$box"}],
    "skills": [
        {"skill": "pick", "with": {"object": "$target"}},
        {"skill": "place", "with": {"object": "$target", "reference": "$box", "relation": "in"}},
    ],
}


def scene(
    folder: Path,
    variant: int = 0,
    restyle: dict[str, Any] | None = None,
    task: dict[str, Any] = TASK,
    **config: Any,
) -> EnvScene:
    path = folder / "tasks.yaml"
    path.write_text(yaml.safe_dump({"tasks": [task]}))
    loader = EnvLoader(EnvLoaderArgs(workflow_type="ManipWorkflow", workflow_args={"restyle": restyle}))
    bare = loader.load_asset(EnvSceneConfig(name="cube", cfg_path=path, **config))
    made = EnvRandomizer(EnvRandomizerArgs()).randomize(bare, stream(1, "cube", variant, "randomize"))
    assert isinstance(made, EnvScene)
    return made


def planned(made: EnvScene) -> Sequence:
    for index in range(4):
        try:
            return EnvPlanner(EnvPlannerArgs()).gen_sequence(made, stream(1, "cube", index, "plan"))
        except Exception as error:
            if type(error).__name__ != "PlanningFailed":
                raise
    raise AssertionError("four plans failed")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[EnvScene, Sequence]:
    made = scene(tmp_path_factory.mktemp("manip"))
    return made, planned(made)


def layout_of(made: EnvScene) -> Layout:
    return Layout.from_json(made.provenance["layout"])


def test_the_same_seeds_give_the_same_plan_in_another_workflow(
    recorded: tuple[EnvScene, Sequence], tmp_path: Path
) -> None:
    made = scene(tmp_path)
    assert made.content_hash == recorded[0].content_hash
    again = planned(made)
    assert again.plan_info == recorded[1].plan_info
    assert pack_sequence(again) == pack_sequence(recorded[1])


def test_the_plan_info_carries_layout_and_states(recorded: tuple[EnvScene, Sequence]) -> None:
    made, seq = recorded
    data = unpack(unpack(seq.plan_info)["info"])
    assert Layout.from_json(data["layout"]) == layout_of(made)
    assert np.array_equal(data["qpos"], seq.states[SIMULATION_QPOS].values)
    assert set(data["T_world_camera"]) == {camera.name for camera in seq.cameras}


def test_the_object_ends_where_the_task_wants_it(recorded: tuple[EnvScene, Sequence]) -> None:
    _, seq = recorded
    target, box = (np.asarray(seq.T_world_object[name])[-1, :3, 3] for name in ("target", "box"))
    assert np.abs(target - box)[:2].max() < 0.1
    assert seq.notes["goals"] == seq.notes["reached"]


def test_the_notes_say_which_camera_sees_what_at_the_start(recorded: tuple[EnvScene, Sequence]) -> None:
    made, seq = recorded
    seen = seq.notes["seen_px"]
    assert set(seen) == {camera.name for camera in seq.cameras}
    names = {entry.name for entry in layout_of(made).objects}
    assert set().union(*seen.values()) <= names
    still = [entry.camera for entry in layout_of(made).cameras if not entry.mount]
    for name in ("target", "box"):
        assert max(seen[camera.name].get(name, 0) / camera.width / camera.height for camera in still) > 0.001
    assert json.loads(json.dumps(seen)) == seen


def test_a_command_is_what_the_arm_then_moves_towards(recorded: tuple[EnvScene, Sequence]) -> None:
    _, seq = recorded
    measured = np.asarray(seq.states["states.joint.position"].values)
    commanded = np.asarray(seq.actions["master_actions.joint.position"].values)

    def error(lag: int) -> float:
        length = len(measured) - 2
        return float(np.abs(measured[lag : length + lag] - commanded[:length]).mean())

    assert error(1) < error(0)  # one frame later the arm is nearer to the command than in the command's own frame
    assert np.array_equal(seq.actions["actions.joint.position"].values[:-1], measured[1:])


def test_a_recorded_plan_in_another_style_keeps_its_states_and_moves_its_cameras(
    recorded: tuple[EnvScene, Sequence], tmp_path: Path
) -> None:
    made, seq = recorded
    assert made.session is not None
    folder = tmp_path / "plan"
    folder.mkdir()
    for path, content in made.session.plan_files(made.place, seq).files.items():
        (folder / path).write_bytes(content)
    style = {"lights": True, "materials": True, "view_m": 0.05, "view_rad": 0.05}
    shown = scene(tmp_path, 1, style, layout_path=folder / "layout.json", seq_path=folder)
    again = planned(shown)
    for key, feature in {**seq.states, **seq.actions}.items():
        assert np.array_equal(feature.values, {**again.states, **again.actions}[key].values), key
    assert layout_of(shown).lights != layout_of(made).lights
    assert layout_of(shown).table.surface != layout_of(made).table.surface
    for camera in layout_of(shown).cameras:
        poses = np.asarray(again.T_world_camera[camera.name])
        moved = np.abs(poses - np.asarray(seq.T_world_camera[camera.name])).max()
        assert moved > 1e-4 if not camera.mount else moved < 1e-9, camera.name
        assert np.abs(poses - mount(seq, camera.mount) @ camera.pose.matrix()).max() < 1e-9, camera.name
    assert again.notes["seen_px"] != seq.notes["seen_px"]  # of the cameras as they are now
    assert json.dumps(again.notes["sub_tasks"]) == json.dumps(list(seq.notes["sub_tasks"]))


def mount(seq: Sequence, name: str) -> F64:
    def pose(key: str) -> F64:
        feature: Feature = seq.states[key]
        return transforms_of(feature.values)

    if not name:
        return np.tile(np.eye(4), (len(seq), 1, 1))
    return np.asarray(pose("states.robot_to_env_pose") @ pose("states.ee_to_robot_pose"))


def test_an_attempt_that_failed_can_be_kept_with_its_reason(tmp_path: Path) -> None:
    from nimbusd.stages import PlanningFailed

    impossible = {**TASK, "goals": [{"subject": "$target", "relation": "on", "reference": "$box"}]}
    made = scene(tmp_path, task=impossible)
    with pytest.raises(PlanningFailed, match="goal_not_reached"):
        EnvPlanner(EnvPlannerArgs()).gen_sequence(made, stream(1, "cube", 0, "plan"))
    seq = EnvPlanner(EnvPlannerArgs(keep_failures=True)).gen_sequence(made, stream(1, "cube", 0, "plan"))
    assert seq.notes["result"]["reason"] == "goal_not_reached"
    assert not seq.notes["result"]["success"]
    assert seq.notes["reached"] == []
    assert len(seq) > 50


@slow
@pytest.mark.processes
def test_fused_and_decoupled_processes_make_byte_equal_episodes(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.yaml"
    camera = {"name": "front", "width": 64, "height": 48}
    tasks.write_text(yaml.safe_dump({"tasks": [{**TASK, "cameras": [camera]}]}))
    settings = {
        "workflow": "ManipWorkflow",
        "workflow_args": {"renderer_args": {"shadows": False, "segmentation": False, "depth": False}},
        "tasks": str(tasks),
        "episodes": [0],
        "writer": "nimbusd.stages.store.formats.a1.writer:InternDataA1Writer",
    }
    run_well("fused", tmp_path / "fused", **settings)
    run_well("plan", tmp_path / "apart", **settings)
    run_well("render", tmp_path / "apart", **settings)
    (fused,), (apart,) = pieces_of(tmp_path / "fused"), pieces_of(tmp_path / "apart")
    assert contents(tmp_path / "fused", fused) == contents(tmp_path / "apart", apart)


def test_without_a_randomizer_the_job_is_told_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(yaml.safe_dump({"tasks": [TASK]}))
    loader = EnvLoader(EnvLoaderArgs(workflow_type="ManipWorkflow"))
    bare = loader.load_asset(EnvSceneConfig(name="cube", cfg_path=path))
    with pytest.raises(ComponentError, match="add `randomize"):
        EnvPlanner(EnvPlannerArgs()).gen_sequence(bare, np.random.default_rng(0))


def test_a_wrong_style_or_layout_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="restyle of ManipWorkflow: light: unknown key 'light'"):
        scene(tmp_path, restyle={"light": True})
    (tmp_path / "layout.json").write_text('{"version": 9}')
    with pytest.raises(AssetError, match=r"layout\.json cannot be read: this layout has version 9"):
        scene(tmp_path, layout_path=tmp_path / "layout.json")


def test_a_layout_file_with_a_robot_that_is_none_is_named_with_the_key(
    tmp_path: Path, recorded: tuple[EnvScene, Sequence]
) -> None:
    stated = dict(recorded[0].provenance["layout"])
    stated["robot"] = {**stated["robot"], "definition": {**stated["robot"]["definition"], "arms": {}}}
    (tmp_path / "layout.json").write_text(json.dumps(stated))
    with pytest.raises(AssetError, match=r"layout\.json cannot be read: the layout's RobotModel: arms: must not be"):
        scene(tmp_path, layout_path=tmp_path / "layout.json")


def test_a_task_file_without_tasks_is_an_asset_error(tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text("name: x\n")
    with pytest.raises(AssetError, match="has no list called `tasks`"):
        EnvLoader(EnvLoaderArgs(workflow_type="ManipWorkflow")).load_asset(EnvSceneConfig(name="x", cfg_path=path))
