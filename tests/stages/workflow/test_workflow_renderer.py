"""A job's choice of a workflow's renderer is checked before anything runs."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from nimbusd.cli.check import check
from nimbusd.renderers.blender.renderer import BlenderProcRenderer
from nimbusd.stages.base import BaseRenderer, ComponentArgs
from nimbusd.stages.errors import RenderError
from nimbusd.stages.motion import check_motion, moved_objects
from nimbusd.stages.registry import create
from nimbusd.stages.seeds import stream
from nimbusd.stages.types import Camera, Observation, Scene, Sequence
from nimbusd.stages.workflow import EnvLoader, EnvPlanner, EnvRandomizer
from nimbusd.stages.workflow.env_components import (
    EnvLoaderArgs,
    EnvPlannerArgs,
    EnvRandomizerArgs,
    EnvRenderer,
    EnvRendererArgs,
    EnvSceneConfig,
)
from nimbusd.stages.workflow.manip import ManipWorkflow
from tests.support.analytic_scenes import shot
from tests.support.store_makers import make_scene
from tests.support.task_files import JOB, TASK

pytest.importorskip("mujoco", reason="needs the mujoco extra")


def findings(folder: Path, workflow_args: dict[str, Any], kind: str = "errors") -> list[dict[str, Any]]:
    """The findings of `nimbusctl check` in a job with these workflow_args."""
    job = json.loads(json.dumps(JOB))
    job["pipeline"]["load"]["args"]["workflow_args"] = workflow_args
    (folder / "job.yaml").write_text(yaml.safe_dump(job, sort_keys=False))
    (folder / "tasks.yaml").write_text(yaml.safe_dump({"tasks": [TASK]}))
    result = CliRunner().invoke(check, [str(folder / "job.yaml"), "--json"], catch_exceptions=False)
    found: list[dict[str, Any]] = json.loads(result.stdout)[kind]
    return found


@pytest.mark.parametrize(
    ("workflow_args", "words"),
    [
        ({"renderer": "BlenderProcRendere"}, "no component is called 'BlenderProcRendere'"),
        ({"renderer": "BlenderProcRendere"}, "did you mean 'BlenderProcRenderer'?"),
        ({"renderer": "NavPlanner"}, "component 'NavPlanner' extends BasePlanner, but the stage 'render' needs"),
        ({"renderer": 5}, "renderer: must be the name of a component, but it is 5"),
        ({"renderer": "SCGSRenderer"}, "renderer: SCGSRenderer cannot show what arms move; MujocoRenderer does"),
        ({"renderer": "EnvRenderer"}, "renderer: EnvRenderer cannot show what arms move"),
        ({"renderer": "tests.support.toy:ToyRenderer"}, "renderer: ToyRenderer cannot show what arms move"),
        ({"renderer": "BlenderProcRenderer", "renderer_args": {"presett": "draft"}},
         "renderer_args.presett: unknown key 'presett'; did you mean 'preset'?"),
        ({"renderer_args": {"tolerance_m": -1}}, "renderer_args.tolerance_m: must be 0 or more, but it is -1"),
        ({"renderer_args": [1]}, "renderer_args: must be a mapping of keys"),
        ({"rendrer": "MujocoRenderer"}, "got an unexpected keyword argument 'rendrer'"),
        ({"restyle": {"seeds": 1}}, "unknown key 'seeds'; did you mean 'seed'?"),
    ],
)  # fmt: skip
def test_check_tells_what_is_wrong_with_the_renderer(tmp_path: Path, workflow_args: dict[str, Any], words: str) -> None:
    found = findings(tmp_path, workflow_args)
    assert any(words in error["text"] for error in found), found
    line = (tmp_path / "job.yaml").read_text().splitlines().index("      workflow_args:") + 1
    assert all(f"job.yaml:{line}" in error["where"] for error in found)


class AbsentRenderer(BlenderProcRenderer):
    """One whose package is not installed."""

    requires = ("no_such_module_anywhere",)


def test_a_renderer_that_moves_objects_passes_and_its_missing_modules_are_told(tmp_path: Path) -> None:
    args = {
        "renderer": "tests.stages.workflow.test_workflow_renderer:AbsentRenderer",
        "renderer_args": {"preset": "draft"},
    }
    assert findings(tmp_path, args) == []
    told = [warning["text"] for warning in findings(tmp_path, args, "warnings")]
    assert any("needs the Python module 'no_such_module_anywhere'" in text for text in told), told
    assert "no_such_module_anywhere" not in ManipWorkflow.needs({})


class NotingRenderer(BaseRenderer[ComponentArgs]):
    """Shows nothing, and keeps what it was to show."""

    motion = "poses"
    shown: ClassVar[list[tuple[Scene, Sequence]]] = []

    def load(self, scene: Scene) -> None:
        self.scene = scene

    def gen_obs(self, seq: Sequence) -> Observation:
        self.shown.append((self.scene, seq))
        return Observation({})


def test_a_renderer_of_scenes_gets_every_links_pose_in_every_frame(tmp_path: Path) -> None:
    path = tmp_path / "tasks.yaml"
    path.write_text(yaml.safe_dump({"tasks": [TASK]}))
    args = {"renderer": "tests.stages.workflow.test_workflow_renderer:NotingRenderer"}
    loader = EnvLoader(EnvLoaderArgs(workflow_type="ManipWorkflow", workflow_args=args))
    bare = loader.load_asset(EnvSceneConfig(name="cube", cfg_path=path))
    scene = EnvRandomizer(EnvRandomizerArgs()).randomize(bare, stream(1, "cube", 0, "randomize"))
    planned = EnvPlanner(EnvPlannerArgs(keep_failures=True)).gen_sequence(scene, stream(1, "cube", 0, "plan"))
    renderer = EnvRenderer(EnvRendererArgs(keep_files=True))
    renderer.load(scene)
    renderer.gen_obs(planned)
    shown, seq = importlib.import_module("tests.stages.workflow.test_workflow_renderer").NotingRenderer.shown.pop()
    assert len(seq) == len(planned)
    assert [obj.name for obj in shown.objects] == [obj.name for obj in scene.objects]
    moved = moved_objects(seq, shown)
    assert {"robot/arm/link1", "robot/arm/link7", "robot/arm/gripper/leftfinger"} <= set(moved)
    # A renderer in the pipeline's own `render` stage gets the planned sequence, which says the same.
    for name in moved:
        assert np.array_equal(seq.T_world_object[name], planned.T_world_object[name]), name
    loader.close()


def still_and_moving() -> tuple[Scene, Sequence, Sequence]:
    """A scene, a sequence that names an object where it stands, and one that moves it."""
    scene = make_scene()
    rest = scene.objects[-1].T_world_object
    away = rest.copy()
    away[0, 3] += 0.5
    name = scene.objects[-1].name
    still = shot(Camera("c", 8, 6, 8, 8, 4, 3), np.eye(4), np.eye(4), T_world_object={name: np.stack([rest, rest])})
    return (
        scene,
        still,
        shot(Camera("c", 8, 6, 8, 8, 4, 3), np.eye(4), np.eye(4), T_world_object={name: np.stack([rest, away])}),
    )


def test_renderers_of_still_scenes_refuse_what_moves_by_name_and_take_what_stands() -> None:
    scene, still, moving = still_and_moving()
    for name in ("SCGSRenderer", "tests.support.toy:ToyRenderer"):
        renderer = create(name, "render", {})
        check_motion(renderer, still, scene)
        with pytest.raises(
            RenderError, match=f"{name.split(':')[-1]} shows scenes that stand still, but .* moves 'chair_0'"
        ):
            check_motion(renderer, moving, scene)
    for name in ("BlenderProcRenderer", "SapienRenderer", "IsaacSimRenderer", "MujocoRenderer"):
        check_motion(create(name, "render", {}), moving, scene)
