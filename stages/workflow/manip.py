"""`ManipWorkflow`: manipulation tasks simulated on MuJoCo or SAPIEN, shown by any renderer that moves objects or sets
states.

A task file holds `tasks`, each a task of `nimbusd.stages.workflow.sim`. Where a job has no EnvRandomizer there is no
layout, and so nothing to plan in. workflow_args:

    renderer, renderer_args   the component that shows what was recorded; MujocoRenderer by default
    restyle                   for scenes with recorded plans: how far their looks may differ (`sim.Style`); its seed is
                              drawn for each layout
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from nimbusd.stages.arguments import ArgumentsError, Mistake, validate
from nimbusd.stages.base import BaseRenderer
from nimbusd.stages.errors import AssetError, ComponentError
from nimbusd.stages.motion import check_motion
from nimbusd.stages.notes import RESULT, SUCCESS, Result
from nimbusd.stages.packing import PlanValue, pack
from nimbusd.stages.types import F64, SIMULATION_QPOS, Observation, Scene, Sequence
from nimbusd.stages.workflow.base import Workflow
from nimbusd.stages.workflow.env import SEQUENCE_FILE
from nimbusd.stages.workflow.env_components import LAYOUT_FILE
from nimbusd.stages.workflow.named_renderer import RENDERER, named_renderer
from nimbusd.stages.workflow.recorded import replay_sequence, seen_by, sequence_of
from nimbusd.stages.workflow.sim import (
    Demonstration,
    DemonstrationFailed,
    Layout,
    ManipTask,
    Style,
    camera_poses,
    file_of,
    impossibilities,
    mistakes_in_files,
    object_poses,
    parse_task,
    plan_episode,
    randomize_layout,
    scene_of,
    seen_at_start,
    styled,
)
from nimbusd.stages.workflow.sim.models.mjcf_files import files_with_parts
from nimbusd.stages.workflow.sim.mujoco_module import environment_fault
from nimbusd.stages.yaml_text import YamlError, YamlText, read_yaml_file


def _tasks_of(task_cfg_path: str) -> list[ManipTask]:
    """The tasks of a file. Raises AssetError for one that is none, ArgumentsError with all mistakes of all tasks."""
    path = Path(task_cfg_path)
    read = _read(path)
    entries = read.value.get("tasks") if isinstance(read.value, dict) else None
    if not isinstance(entries, list) or not entries:
        raise AssetError(f"task file {path} has no list called `tasks`")
    tasks, wrong = [], list[tuple[int, list[Mistake]]]()
    for index, entry in enumerate(entries):
        try:
            if not isinstance(entry, dict):
                raise ArgumentsError("", [Mistake((), f"a task is a mapping of keys, not {entry!r}")])
            tasks.append(parse_task(entry, path.absolute().parent))
        except ArgumentsError as error:
            wrong.append((index, list(error.mistakes)))
    if wrong:
        raise _of_file(task_cfg_path, read, wrong)
    return tasks


def _read(path: Path) -> YamlText:
    try:
        return read_yaml_file(path)
    except (OSError, YamlError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AssetError(f"task file {path} cannot be read: {reason}") from error


def _of_file(task_cfg_path: str, read: YamlText, wrong: list[tuple[int, list[Mistake]]]) -> ArgumentsError:
    """Mistakes of tasks, by their position in the file, with their lines."""
    mistakes = []
    for index, found in wrong:
        for mistake in found:
            place = ("tasks", index, *mistake.path)
            mistakes.append(Mistake(place, f"{mistake.text} (line {read.line(place)})"))
    return ArgumentsError(f"task file {task_cfg_path}", mistakes)


@dataclass(frozen=True)
class _Plan:
    """qpos: (T, nq). T_world_camera: camera → (T, 4, 4). demo, result: of a plan that was made here."""

    qpos: F64
    T_world_camera: Mapping[str, F64]
    demo: Demonstration | None = None
    result: Result = SUCCESS


@Workflow.register("ManipWorkflow")
class ManipWorkflow(Workflow):
    """Plans by simulating with contact, and shows what was simulated."""

    version = "1.3.0"
    requires = ("mujoco",)
    may_use = ("DracoPy", "fast_simplification", "mapbox_earcut", "meshopt", "ompl", "scipy", "toppra")

    def __init__(
        self,
        world: Any,
        task_cfg_path: str,
        renderer: str = RENDERER,
        renderer_args: Mapping[str, Any] | None = None,
        restyle: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(world, task_cfg_path)
        self._style = None if restyle is None else validate(Style, restyle, "restyle of ManipWorkflow")
        self._named = {"renderer": renderer, "renderer_args": renderer_args}
        self._renderer: BaseRenderer[Any] | None = None
        self._device = "auto"
        self._layout: Layout | None = None
        self._plan: _Plan | None = None
        self._seen: Observation | None = None
        self._scene: tuple[dict[str, Any], Scene] | None = None

    # --- before it is made ---

    @classmethod
    def check_args(cls, workflow_args: Mapping[str, Any]) -> None:
        if workflow_args.get("restyle") is not None:
            validate(Style, workflow_args["restyle"], "restyle of ManipWorkflow")
        named_renderer(workflow_args)

    @classmethod
    def needs(cls, workflow_args: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*cls.requires, *named_renderer(workflow_args).needs())))

    @classmethod
    def modules(cls, workflow_args: Mapping[str, Any]) -> tuple[str, ...]:
        return (*super().modules(workflow_args), *named_renderer(workflow_args).modules())

    # --- the task ---

    def parse_task_cfgs(self, task_cfg_path: str) -> list[Any]:
        return list(_tasks_of(task_cfg_path))

    @classmethod
    def check_task(cls, task_cfg_path: str, index: int) -> None:
        tasks = _tasks_of(task_cfg_path)
        if not 0 <= index < len(tasks):
            raise AssetError(f"task file {task_cfg_path} has tasks 0…{len(tasks) - 1}, not {index}")
        if mistakes := list(mistakes_in_files(tasks[index])):
            raise _of_file(task_cfg_path, _read(Path(task_cfg_path)), [(index, mistakes)])
        for reference in tasks[index].file_references():
            file_of(reference)  # what was not fetched
        if find_spec("mujoco") and (mistakes := list(impossibilities(tasks[index]))):
            raise _of_file(task_cfg_path, _read(Path(task_cfg_path)), [(index, mistakes)])

    @classmethod
    def task_files(cls, task_cfg_path: str, index: int) -> list[Path]:
        """The robot's and the objects' files, with those that MJCF files name in turn."""
        return files_with_parts(
            Path(file_of(reference)) for reference in _tasks_of(task_cfg_path)[index].file_references()
        )

    @classmethod
    def task_modules(cls, task_cfg_path: str, index: int) -> tuple[str, ...]:
        """Those of the task's simulator and planner."""
        return _tasks_of(task_cfg_path)[index].modules()

    @classmethod
    def task_images(cls, task_cfg_path: str, index: int) -> dict[str, tuple[int, int]]:
        task = _tasks_of(task_cfg_path)[index]
        arms = list(task.robot_model().arms)
        return {name: (spec.width, spec.height) for spec in task.cameras for name in spec.mounts(arms)}

    @classmethod
    def unfit(cls, workflow_args: Mapping[str, Any], render: bool) -> list[str]:
        if fault := environment_fault():
            return [fault]
        if not render:
            return []
        try:
            return named_renderer(workflow_args).unfit({})
        except ComponentError:
            return []  # no matter of the machine

    def get_task_name(self) -> str:
        return str(self.task_cfg.name)

    def reset(self, need_preload: bool) -> None:
        self._layout = self._plan = self._seen = None  # the scene stays: the same layout may come again

    def randomization(self, layout_path: str | None = None) -> bool:
        if layout_path is None:
            self._layout = randomize_layout(self.task_cfg, self.rng)
            return True
        try:
            layout = Layout.from_json(orjson.loads(Path(layout_path).read_bytes()))
        except (OSError, ValueError, TypeError, AttributeError, ArgumentsError) as error:
            raise AssetError(f"layout file {layout_path} cannot be read: {error}") from error
        if self._style is not None:
            layout = styled(layout, self._style.model_copy(update={"seed": int(self.rng.integers(1 << 31))}))
        self._layout = layout
        return True

    @property
    def layout(self) -> Layout:
        """The current layout. Raises ComponentError where there is none."""
        if self._layout is None:
            raise ComponentError("ManipWorkflow has no layout: add `randomize: {component: EnvRandomizer}` to the job")
        return self._layout

    # --- planning ---

    def generate_seq(self) -> list[Any]:
        """The simulator's states, (nq,) float64 each; of an attempt that failed, those until then."""
        result = SUCCESS
        try:
            demo = plan_episode(self.task_cfg, self.layout, self.rng, self.beat)
        except DemonstrationFailed as failure:
            demo = failure.demonstration
            result = Result(False, failure.reason, failure.detail)
        self._plan = _Plan(demo.qpos, demo.T_world_camera, demo, result)
        return list(demo.qpos)

    def describe_scene(self) -> Scene | None:
        return None if self._layout is None else self._scene_here()

    def describe_seq(self, sequence: list[Any]) -> Sequence:
        if self._plan is None or self._plan.demo is None:
            raise ComponentError(
                f"a recorded plan needs {SEQUENCE_FILE} beside it, which EnvRenderer with `render: false` writes"
            )
        seq = sequence_of(self._plan.demo, self.layout)
        moved = {**seq.T_world_object, **object_poses(self.layout, self._plan.demo.qpos)}
        return replace(seq, T_world_object=moved, notes={**seq.notes, RESULT: self._plan.result.described()})

    def describe_recovered(self, recorded: Sequence) -> Sequence:
        qpos = np.asarray(recorded.states[SIMULATION_QPOS].values)
        poses = camera_poses(self.layout, qpos)
        self._plan = _Plan(qpos, poses)
        seq = seen_by(recorded, tuple(entry.camera for entry in self.layout.cameras), poses)
        return replace(
            seq,
            T_world_object={**recorded.T_world_object, **object_poses(self.layout, qpos)},
            notes={**seq.notes, "seen_px": seen_at_start(self.layout, qpos, poses)},
        )

    def dump_plan_info(self) -> bytes:
        assert self._plan is not None, "dump_plan_info comes after planning or recovering"
        cameras = {name: np.asarray(T) for name, T in self._plan.T_world_camera.items()}
        return pack({"qpos": self._plan.qpos, "T_world_camera": cameras, "layout": self.layout.to_json()})

    # --- showing ---

    def randomization_from_mem(self, data: PlanValue) -> bool:
        self._layout = Layout.from_json(data["layout"])
        return True

    def recover_seq_from_mem(self, data: PlanValue) -> list[Any]:
        """The states, each with where the cameras were: {"qpos": (nq,), "T_world_camera": {camera: (4, 4)}}."""
        poses: Mapping[str, F64] = data["T_world_camera"]
        self._plan = _Plan(data["qpos"], poses)
        return [
            {"qpos": qpos, "T_world_camera": {name: T[row] for name, T in poses.items()}}
            for row, qpos in enumerate(data["qpos"])
        ]

    def use_device(self, device: str) -> None:
        self._device = device

    def seq_replay(self, sequence: list[Any]) -> int:
        seq = replay_sequence(
            self.layout,
            {name: np.stack([s["T_world_camera"][name] for s in sequence]) for name in sequence[0]["T_world_camera"]},
            np.stack([state["qpos"] for state in sequence]),
        )
        renderer, scene = self._opened(), self._scene_here()
        check_motion(renderer, seq, scene)
        renderer.beat = self.beat
        renderer.load(scene)
        self._seen = renderer.gen_obs(seq)
        return len(sequence)

    def observe(self) -> Observation | None:
        return self._seen

    # --- on disk ---

    def save(self, save_path: str) -> int:
        """Write what `save_seq` writes: images are stored by writers."""
        return self.save_seq(save_path)

    def save_seq(self, save_path: str) -> int:
        """The layout as JSON beside the plan."""
        stated = orjson.dumps(self.layout.to_json(), option=orjson.OPT_INDENT_2)
        Path(save_path, LAYOUT_FILE).write_bytes(stated)
        return super().save_seq(save_path)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _scene_here(self) -> Scene:
        """The scene of the current layout, which takes a while to build."""
        layout = self.layout
        stated = layout.to_json()
        if self._scene is None or self._scene[0] != stated:
            self._scene = (stated, scene_of(layout))
        return self._scene[1]

    def _opened(self) -> BaseRenderer[Any]:
        if self._renderer is None:
            renderer = named_renderer(self._named)
            renderer.open(self._device)
            self._renderer = renderer
        return self._renderer
