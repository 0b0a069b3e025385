"""The Workflow API and the components that drive workflows, in one process."""

from __future__ import annotations

import contextlib
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nimbusd.stages import AssetError, BackendUnavailable, ComponentError, PlanningFailed, RenderError, Scene, Sequence
from nimbusd.stages.arguments import ArgumentsError
from nimbusd.stages.modules import how_to_install
from nimbusd.stages.registry import create
from nimbusd.stages.runner import LoadIterator, PlanIterator, RandomizeIterator
from nimbusd.stages.seeds import stream
from nimbusd.stages.types import Episode, EpisodeRequest
from nimbusd.stages.workflow import (
    EnvLoader,
    EnvPlanner,
    EnvRandomizer,
    EnvRenderer,
    EnvScene,
    NimbusWorkFlow,
    Workflow,
    create_workflow,
    pack,
    register,
    unpack,
    workflow_class,
)
from nimbusd.stages.workflow.columns import columns_of
from nimbusd.stages.workflow.env_components import (
    EnvLoaderArgs,
    EnvPlannerArgs,
    EnvRandomizerArgs,
    EnvRendererArgs,
    EnvSceneConfig,
)
from tests.support.toy_workflow import MemoryArm, ToyArm, task_file


def loader(kind: str = "ToyArm", **workflow_args: Any) -> EnvLoader:
    return EnvLoader(EnvLoaderArgs(workflow_type=f"tests.support.toy_workflow:{kind}", workflow_args=workflow_args))


def loaded(folder: Path, kind: str = "ToyArm", *, task: int = 0, **settings: Any) -> EnvScene:
    scene = loader(kind).load_asset(EnvSceneConfig(name="lift", cfg_path=task_file(folder, **settings), task=task))
    assert isinstance(scene, EnvScene)
    return scene


def randomized(scene: Scene, variant: int = 0, tries: int = 1) -> Scene:
    return EnvRandomizer(EnvRandomizerArgs(tries=tries)).randomize(scene, stream(1, "lift", variant, "randomize"))


def planned(scene: Scene, index: int = 0, **args: Any) -> Sequence:
    return EnvPlanner(EnvPlannerArgs(**args)).gen_sequence(scene, stream(1, "lift", index, "plan"))


def rendered(scene: Scene, seq: Sequence, **args: Any) -> Any:
    renderer = EnvRenderer(EnvRendererArgs(**args))
    renderer.open("cpu")
    renderer.load(scene)
    return renderer.gen_obs(seq)


def workflow_of(scene: Scene | None) -> Any:
    assert isinstance(scene, EnvScene)
    assert scene.session is not None
    return scene.session.workflow


# --- names ---


def test_the_base_class_also_has_the_name_of_the_open_source_engine() -> None:
    assert NimbusWorkFlow is Workflow


def test_a_registered_name_and_a_path_lead_to_the_same_class() -> None:
    assert workflow_class("ToyArm") is workflow_class("tests.support.toy_workflow:ToyArm") is ToyArm


def test_an_unknown_name_is_told_the_nearest_one() -> None:
    with pytest.raises(ComponentError, match=r"no workflow is called 'ToyArn'.*did you mean 'ToyArm'"):
        workflow_class("ToyArn")


def test_a_name_cannot_be_given_to_two_workflows() -> None:
    with pytest.raises(ValueError, match=r"'ToyArm' is tests\.support\.toy_workflow\.ToyArm already"):
        register("ToyArm")(MemoryArm)


def test_a_class_that_is_no_workflow_or_lacks_methods_is_refused() -> None:
    with pytest.raises(ComponentError, match="not a class that extends"):
        workflow_class("pathlib:Path")
    with pytest.raises(ComponentError, match=r"does not implement generate_seq, get_task_name, .*save.*\(\)"):
        workflow_class("nimbusd.stages.workflow:Workflow")


def test_wrong_workflow_args_are_named(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match=r"cannot be made with these workflow_args.*shift"):
        create_workflow("tests.support.toy_workflow:ToyArm", {}, str(task_file(tmp_path)), {"shift": 1})


def test_a_job_that_names_no_workflow_fails_when_it_is_read() -> None:
    with pytest.raises(ArgumentsError, match="no workflow is called 'Nope'"):
        create("nimbusd.stages.workflow:EnvLoader", "load", {"workflow_type": "Nope"})


def test_the_version_of_a_workflow_is_part_of_the_job_and_checked_where_it_runs() -> None:
    args = EnvLoaderArgs(workflow_type="tests.support.toy_workflow:ToyArm")
    assert args.workflow_version == "1.1.0"
    with pytest.raises(ArgumentsError, match=r"is version 1\.1\.0 here, the job wants 1\.0\.9"):
        create(
            "nimbusd.stages.workflow:EnvLoader",
            "load",
            {"workflow_type": "tests.support.toy_workflow:ToyArm", "workflow_version": "1.0.9"},
        )


# --- plan info ---

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.binary(max_size=8)
)
ARRAYS = hnp.arrays(
    hnp.floating_dtypes() | hnp.integer_dtypes() | hnp.boolean_dtypes(), hnp.array_shapes(min_dims=0, min_side=0)
)
VALUES = st.recursive(
    SCALARS | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(0, 9), inner, max_size=4)
    ),
    max_leaves=12,
)


def same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and (one.dtype, one.shape, one.tobytes()) == (
            other.dtype,
            other.shape,
            other.tobytes(),
        )
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_plan_info_comes_back_with_the_same_values_and_types(value: Any) -> None:
    assert same(value, unpack(pack(value)))
    assert pack(unpack(pack(value))) == pack(value)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_foreign_bytes_are_a_value_or_a_component_error(content: bytes) -> None:
    with contextlib.suppress(ComponentError):
        unpack(content)


def test_numpy_scalars_keep_their_type() -> None:
    assert isinstance(unpack(pack(np.float32(1.5))), np.float32)


@pytest.mark.parametrize("value", [object(), {"a": [1, {2, 3}]}, np.array(["x"], object), {(1, 2): 3}])
def test_what_cannot_cross_processes_is_named_with_its_place(value: Any) -> None:
    with pytest.raises(ComponentError, match=r"^value"):
        pack(value)


# --- columns ---


def test_mappings_become_columns_by_their_prefix() -> None:
    sequence = [{"states.x": [t, 1.0], "action": t, "actions.y": 2.0, "other": "z", 3: 4} for t in range(3)]
    states, actions = columns_of(sequence)
    assert {key: feature.values.shape for key, feature in states.items()} == {"states.x": (3, 2)}
    assert list(actions) == ["action", "actions.y"]


def test_a_column_that_changes_or_goes_missing_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"'states\.x' is missing in element 1"):
        columns_of([{"states.x": 1}, {}])
    with pytest.raises(ValueError, match=r"has shape \(2,\) in element 1, \(\) in the first"):
        columns_of([{"states.x": 1}, {"states.x": [1, 2]}])


def test_states_that_are_no_mappings_still_have_a_length() -> None:
    states, actions = columns_of(["a", "b"])
    assert states["states.step"].values.tolist() == [0, 1]
    assert not actions


# --- driving ---


def test_each_component_calls_the_methods_that_the_engine_documents(tmp_path: Path) -> None:
    bare = loaded(tmp_path, "MemoryArm")
    workflow = workflow_of(bare)
    assert workflow.calls == ["reset(True)"]
    scene = randomized(bare)
    assert workflow.calls[1:] == ["reset(False)", "randomization"]
    workflow.calls.clear()
    seq = planned(scene)
    assert workflow.calls == ["generate_seq"]
    workflow.calls.clear()
    rendered(scene, seq)
    assert workflow.calls == ["dedump_plan_info", "reset(False)", "randomization_from_mem", "seq_replay"]


def test_an_episode_does_not_depend_on_those_made_before_it(tmp_path: Path) -> None:
    scene = randomized(loaded(tmp_path))
    alone = planned(scene, 7)
    busy = randomized(loaded(tmp_path), 3)
    for index in (2, 9):
        rendered(busy, planned(busy, index))
    scene = randomized(busy)
    rendered(scene, planned(scene, 4))
    again = planned(scene, 7)
    for key, feature in {**alone.states, **alone.actions}.items():
        other = {**again.states, **again.actions}[key]
        assert np.asarray(feature.values).tobytes() == np.asarray(other.values).tobytes(), key
    assert alone.notes == again.notes  # the global generators were seeded as well
    assert alone.plan_info == again.plan_info


def test_images_show_the_recorded_states_and_not_replayed_actions(tmp_path: Path) -> None:
    scene = randomized(loaded(tmp_path))
    seq = planned(scene)
    obs = rendered(scene, seq)
    shown = obs.frames["front"].rgb.reshape(len(seq), -1)[:, :4].copy().view(np.float32)[:, 0]
    assert np.array_equal(shown, seq.states["states.joint.position"].values[:, 0].astype(np.float32))


def test_another_task_of_the_file_is_another_scene(tmp_path: Path) -> None:
    assert len(planned(loaded(tmp_path, task=1))) == 3
    assert loaded(tmp_path, task=1).provenance["workflow"]["task_name"] == "idle"


def test_a_task_that_the_file_does_not_have_is_an_asset_error(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"scene 'lift'.*has tasks 0…1, not 2"):
        loaded(tmp_path, task=2)


def test_a_missing_task_file_is_an_asset_error(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"none\.yaml is missing"):
        loader().load_asset(EnvSceneConfig(name="lift", cfg_path=tmp_path / "none.yaml"))


def test_the_randomizer_tries_again_where_no_layout_was_valid(tmp_path: Path) -> None:
    scene = loaded(tmp_path, bad_layouts=0.9)
    with pytest.raises(PlanningFailed, match="randomization_failed"):
        randomized(scene, tries=1)
    found = randomized(scene, tries=60)
    assert workflow_of(found).calls.count("randomization") > 2
    assert found.provenance["workflow"]["layout_seed"] is not None


def test_a_layout_file_is_handed_to_randomization(tmp_path: Path) -> None:
    layout = tmp_path / "layout.json"
    layout.write_text(json.dumps({"cube": [1, 2, 3]}))
    config = EnvSceneConfig(name="lift", cfg_path=task_file(tmp_path), layout_path=layout)
    scene = randomized(loader().load_asset(config))
    assert scene.provenance["cube"] == [1, 2, 3]


def test_an_empty_sequence_is_a_failed_plan(tmp_path: Path) -> None:
    with pytest.raises(PlanningFailed, match="no_sequence"):
        planned(loaded(tmp_path, unreachable=1.0))


def test_the_reason_of_a_failed_plan_is_the_workflows_own(tmp_path: Path) -> None:
    with pytest.raises(PlanningFailed, match="no_path: the toy says so"):
        planned(loaded(tmp_path, no_path=True))


def test_attempts_that_failed_are_plans_only_where_the_job_keeps_them(tmp_path: Path) -> None:
    scene = loaded(tmp_path, failed=True)
    with pytest.raises(PlanningFailed, match="goal_not_reached"):
        planned(scene)
    assert planned(scene, keep_failures=True).notes["result"] == {"success": False, "reason": "goal_not_reached"}


def test_planning_beats_at_every_step(tmp_path: Path) -> None:
    scene = loaded(tmp_path)
    planner = EnvPlanner(EnvPlannerArgs())
    beats: list[int] = []
    planner.beat = lambda: beats.append(1)
    planner.gen_sequence(scene, stream(1, "lift", 0, "plan"))
    assert len(beats) == 12


def test_scenes_with_other_layouts_have_other_content_hashes(tmp_path: Path) -> None:
    scene = loaded(tmp_path)
    hashes = {scene.content_hash, randomized(scene).content_hash, randomized(scene, 1).content_hash}
    assert len(hashes) == 3
    assert randomized(scene).content_hash == randomized(loaded(tmp_path)).content_hash


def test_own_files_come_with_the_frames_where_they_are_asked_for(tmp_path: Path) -> None:
    scene = loaded(tmp_path)
    seq = planned(scene)
    assert rendered(scene, seq).files == {}
    assert set(rendered(scene, seq, keep_files=True).files) == {"cube.npy", "frames/first.bin"}


def test_a_replay_that_shows_too_little_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = loaded(tmp_path)
    seq = planned(scene)
    whole = ToyArm.seq_replay
    monkeypatch.setattr(ToyArm, "seq_replay", lambda self, sequence: whole(self, sequence[:-1]))
    with pytest.raises(RenderError, match="showed 11 of 12 states"):
        rendered(scene, seq)


@pytest.mark.parametrize(
    ("method", "value", "words"),
    [
        ("randomization", None, "randomization() returned None, but must return True or False"),
        ("generate_seq", None, "generate_seq() returned None, but must return a list of states"),
        ("generate_seq", np.zeros((3, 2)), "generate_seq() returned a ndarray, but must return a list"),
        ("seq_replay", None, "seq_replay() returned None, but must return a number of frames"),
        ("save", None, "save() returned None, but must return a number of frames"),
        ("save", True, "save() returned True, but must return a number of frames"),
        ("recover_seq_from_mem", {}, "recover_seq_from_mem() returned a dict, but must return a list"),
    ],
)
def test_a_method_that_returns_something_else_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, value: object, words: str
) -> None:
    def returning(*_: object) -> object:
        return value

    def run() -> None:
        scene = randomized(loaded(tmp_path))
        rendered(scene, planned(scene), keep_files=True)

    returning.__name__ = method
    monkeypatch.setattr(ToyArm, method, returning)
    with pytest.raises(ComponentError, match=re.escape(words)):
        run()


def test_a_reset_that_draws_numbers_leads_to_the_same_state_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, float, float]] = []
    whole = ToyArm.reset

    def reset(self: ToyArm, need_preload: bool) -> None:
        whole(self, need_preload)
        drawn.append((self.rng.random(), random.random(), np.random.rand()))

    monkeypatch.setattr(ToyArm, "reset", reset)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        scene = loaded(tmp_path / folder)
        for variant in range(2):
            randomized(scene, variant)
    assert len(drawn) >= 4
    assert len(set(drawn)) == 1


def test_env_components_refuse_scenes_and_sequences_of_others(tmp_path: Path) -> None:
    with pytest.raises(ComponentError, match="EnvPlanner works on scenes of EnvLoader"):
        planned(Scene("room", ()))
    scene = loaded(tmp_path)
    foreign = Sequence(10.0, "go", (), {}, {}, planned(scene).states, {})
    with pytest.raises(ComponentError, match="without plan info"):
        rendered(scene, foreign)


def test_a_scene_that_is_loaded_again_is_randomized_again(tmp_path: Path) -> None:
    files = {"lift": task_file(tmp_path / "a"), "torn": tmp_path / "torn.yaml"}
    files["torn"].write_text("tasks: [")

    def made(scenes: list[str]) -> list[Episode]:
        requests = [EpisodeRequest("job", scene, index) for index, scene in enumerate(scenes)]
        source = LoadIterator(
            requests, loader(), lambda name: EnvSceneConfig(name=name, cfg_path=files[name]), tmp_path, {}
        )
        randomizer = EnvRandomizer(EnvRandomizerArgs())
        return list(PlanIterator(RandomizeIterator(source, randomizer, 1), EnvPlanner(EnvPlannerArgs()), 1))

    first, torn, again = made(["lift", "torn", "lift"])
    assert first.failure is None
    assert torn.failure is not None
    assert again.failure is None
    assert again.sequence is not None
    alone = made(["torn", "torn", "lift"])[2].sequence
    assert alone is not None
    assert again.sequence.plan_info == alone.plan_info
    assert workflow_of(first.scene) is not workflow_of(again.scene)  # the first was closed for the torn one


def test_the_documentation_names_methods_that_are_there() -> None:
    text = (Path(__file__).parents[3] / "docs/workflows.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `") and "| Env" in line]
    named = {name for row in rows for name in re.findall(r"`(\w+)\(", row)}
    hooks = {name for name in vars(Workflow) if not name.startswith("_")} - {
        "workflows",
        "version",
        "requires",
        "may_use",
        "modules",
        "fps",
        "register",
    }
    assert named == hooks - {"beat"}


def test_the_modules_that_a_workflow_imports_are_known_before_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyArm, "requires", ("no_such_module_anywhere",))
    assert loader().needs() == ("no_such_module_anywhere",)


def test_a_module_that_is_missing_stops_the_process_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToyArm, "requires", ("numpy", "surely_not_installed"))
    with pytest.raises(BackendUnavailable, match="'surely_not_installed', which is not installed here: install the"):
        loaded(tmp_path)
    assert how_to_install("mujoco") == "pip install 'nimbusd[mujoco]'"


def test_a_plan_comes_from_one_place_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="either `plans`, or"):
        EnvSceneConfig(name="x", cfg_path=tmp_path, plans=tmp_path, seq_path=tmp_path)


def test_a_recorded_plan_that_is_not_there_is_an_asset_that_is_missing(tmp_path: Path) -> None:
    config = EnvSceneConfig(name="x", cfg_path=tmp_path, plans=tmp_path, seed=4)
    assert loader().asset_paths(config) == [tmp_path, tmp_path / "files/episode_000004"]
