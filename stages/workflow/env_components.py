"""`EnvLoader`, `EnvRandomizer`, `EnvPlanner`, `EnvRenderer`: any workflow as stages of a pipeline.

In a fused compute worker they share one workflow. In decoupled mode the planning process runs the first three, the
rendering one loads and randomizes the scene again from the same seeds and runs the last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from nimbusd.stages.base import (
    BaseLoader,
    BasePlanner,
    BaseRandomizer,
    BaseRenderer,
    Component,
    ComponentArgs,
    SceneConfig,
)
from nimbusd.stages.errors import AssetError, BackendUnavailable, ComponentError, NimbusError, PlanningFailed
from nimbusd.stages.modules import how_to_install, missing_modules
from nimbusd.stages.notes import Notes
from nimbusd.stages.types import Observation, Scene, Sequence
from nimbusd.stages.workflow.base import PLAN_FILE
from nimbusd.stages.workflow.env import SEQUENCE_FILE, EnvScene, EnvSession, ScenePlace
from nimbusd.stages.workflow.registry import check_workflow_args, create_workflow, workflow_class

LAYOUT_FILE = "layout.json"
"""The file that a workflow's `save_seq` may write beside the plan, for `randomization(layout_path)` to read."""
_SEEDS = 1 << 63


class EnvSceneConfig(SceneConfig):
    """A task of a task file."""

    cfg_path: Path = Field(description="The task file, which the workflow itself parses.")
    task: int = Field(default=0, ge=0, description="Position of the task in that file.")
    layout_path: Path | None = Field(default=None, description="A layout to hand to randomization().")
    seq_path: Path | None = Field(default=None, description="A plan to recover with recover_seq() instead of planning.")
    plans: Path | None = Field(
        default=None, description="A dataset of plans (EnvRenderer with `render: false`) to take both of these from."
    )
    seed: int = Field(default=0, ge=0, description="Episode of `plans`; `count` counts it up.")

    @model_validator(mode="after")
    def _one_source(self) -> EnvSceneConfig:
        if self.plans is not None and (self.layout_path is not None or self.seq_path is not None):
            raise ValueError("give either `plans`, or `layout_path` and `seq_path`")
        return self


class EnvLoaderArgs(ComponentArgs):
    """The workflow, and the arguments that it is made with."""

    workflow_type: str = Field(min_length=1, description="Registered name, or package.module:Class.")
    simulator: dict[str, Any] = Field(default_factory=dict, description="Settings for the workflow's create_world().")
    workflow_args: dict[str, Any] = Field(default_factory=dict, description="Further arguments of the workflow.")
    seed_globals: bool = Field(
        default=True, description="Seed `random` and `numpy.random` as well as the workflow's rng."
    )
    workflow_version: str = Field(default="", description="Filled in: of the workflow's class when the job was read.")

    @field_validator("workflow_args")
    @classmethod
    def _that_it_takes(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if "workflow_type" in info.data:
            try:
                check_workflow_args(info.data["workflow_type"], value)
            except ComponentError as error:
                raise ValueError(str(error)) from error
        return value

    @model_validator(mode="before")
    @classmethod
    def _of_installed_version(cls, values: Any) -> Any:
        """Outputs of another version of the workflow are other outputs, also on a node that has another one."""
        if not isinstance(values, dict) or not isinstance(values.get("workflow_type"), str):
            return values  # the fields' own checks report it
        try:
            version = workflow_class(values["workflow_type"]).version
        except ComponentError as error:
            raise ValueError(str(error)) from error
        if (wanted := values.get("workflow_version") or version) != version:
            raise ValueError(f"workflow '{values['workflow_type']}' is version {version} here, the job wants {wanted}")
        return {**values, "workflow_version": version}


class EnvLoader(BaseLoader[EnvLoaderArgs, EnvSceneConfig]):
    """Makes the workflow and puts it into the scene's task: create_world, init_task → reset, get_task_name."""

    args_model = EnvLoaderArgs
    scene_model = EnvSceneConfig

    def __init__(self, args: EnvLoaderArgs) -> None:
        super().__init__(args)
        self._session: tuple[Path, EnvSession] | None = None

    def asset_paths(self, config: EnvSceneConfig) -> list[Path]:
        paths = [config.cfg_path]
        if config.cfg_path.is_file():
            workflow = workflow_class(self.args.workflow_type)
            workflow.check_task(str(config.cfg_path), config.task)
            paths += workflow.task_files(str(config.cfg_path), config.task)
        recorded = [config.layout_path, config.seq_path, _recorded_in(config)]
        return list(dict.fromkeys([*paths, *(path for path in recorded if path is not None)]))

    def asset_warnings(self, config: EnvSceneConfig) -> list[str]:
        modules = workflow_class(self.args.workflow_type).task_modules(str(config.cfg_path), config.task)
        return [
            f"task {config.task} of {config.cfg_path} needs the Python module '{module}', which is not installed here: "
            f"{how_to_install(module)}"
            for module in missing_modules(modules)
        ]

    def image_sizes(self, config: EnvSceneConfig) -> dict[str, tuple[int, int]]:
        if not config.cfg_path.is_file():
            return {}
        return workflow_class(self.args.workflow_type).task_images(str(config.cfg_path), config.task)

    def needs(self) -> tuple[str, ...]:
        return workflow_class(self.args.workflow_type).needs(self.args.workflow_args)

    def modules(self) -> tuple[str, ...]:
        return (*super().modules(), *workflow_class(self.args.workflow_type).modules(self.args.workflow_args))

    def scene_modules(self, configs: Iterable[EnvSceneConfig]) -> Iterable[str]:
        workflow = workflow_class(self.args.workflow_type)
        found: dict[str, None] = {}
        for path, task in {(config.cfg_path, config.task): None for config in configs}:
            if path.is_file():
                with contextlib.suppress(NimbusError, IndexError):  # what is wrong with a task is told by the check
                    found |= dict.fromkeys(workflow.task_modules(str(path), task))
        return tuple(found)

    def load_asset(self, config: EnvSceneConfig) -> Scene:
        session = self._open(config.cfg_path)
        session.workflow._beat = self.beat
        try:
            return session.scene(config.name, _place(config))
        except IndexError as error:
            raise AssetError(f"scene '{config.name}': {error}") from error

    def close(self) -> None:
        if self._session is not None:
            self._session[1].workflow.close()
            self._session = None

    def _open(self, cfg_path: Path) -> EnvSession:
        """The session of a task file; the one before is closed, as worlds are large."""
        if self._session is not None and self._session[0] == cfg_path:
            return self._session[1]
        args = self.args
        if not cfg_path.is_file():
            raise AssetError(f"task file {cfg_path} is missing; check the scene's cfg_path and the job's scenes_root")
        self.close()
        for module in missing_modules(workflow_class(args.workflow_type).requires):
            raise BackendUnavailable(
                f"workflow '{args.workflow_type}' needs the Python module '{module}', which is not installed here: "
                f"{how_to_install(module)}"
            )
        world = workflow_class(args.workflow_type).create_world(args.simulator)
        workflow = create_workflow(args.workflow_type, world, str(cfg_path), args.workflow_args)
        session = EnvSession(workflow, args.workflow_type, seed_globals=args.seed_globals)
        self._session = (cfg_path, session)
        return session


def _place(config: EnvSceneConfig) -> ScenePlace:
    layout, plan = config.layout_path, config.seq_path
    if (folder := _recorded_in(config)) is not None:
        plan, layout = folder, _layout_in(folder)
    layout_path, seq_path = (None if path is None else str(path) for path in (layout, plan))
    return ScenePlace(config.task, None, layout_path, seq_path)


def _layout_in(folder: Path) -> Path | None:
    """The path for `randomization(layout_path)` of a recorded plan: its layout, else what `save_seq` wrote.

    The latter is a file, or the folder of several. None where the base class wrote the plan, without a layout.
    """
    if (folder / LAYOUT_FILE).is_file():
        return folder / LAYOUT_FILE
    ours = (folder / SEQUENCE_FILE, folder / PLAN_FILE)
    written = sorted(path for path in folder.rglob("*") if path.is_file() and path not in ours)
    return written[0] if len(written) == 1 else folder if written else None


def _recorded_in(config: EnvSceneConfig) -> Path | None:
    """The folder of an episode of `plans`: `plans` is a dataset, or the output folder of the job that made it."""
    if config.plans is None:
        return None
    dataset = config.plans / "dataset" if (config.plans / "dataset").is_dir() else config.plans
    return dataset / f"files/episode_{config.seed:06d}"


class EnvRandomizerArgs(ComponentArgs):
    """Arguments of EnvRandomizer."""

    tries: int = Field(default=10, ge=1, description="Seeds to try until randomization() finds a valid layout.")


class EnvRandomizer(BaseRandomizer[EnvRandomizerArgs]):
    """Runs randomization(), from seeds of the scene's own stream."""

    args_model = EnvRandomizerArgs

    def randomize(self, scene: Scene, rng: np.random.Generator) -> Scene:
        session, place = _of(scene, self)
        session.workflow._beat = self.beat
        seeds = [int(seed) for seed in rng.integers(_SEEDS, size=self.args.tries)]
        for seed in seeds[:-1]:
            try:
                return session.scene(scene.name, ScenePlace(place.task, seed, place.layout_path, place.seq_path))
            except PlanningFailed:
                self.beat()
        return session.scene(scene.name, ScenePlace(place.task, seeds[-1], place.layout_path, place.seq_path))


class EnvPlannerArgs(ComponentArgs):
    """Arguments of EnvPlanner."""

    with_render: bool = Field(default=False, description="Plan and look in one pass, by generate_seq_with_obs().")
    keep_failures: bool = Field(
        default=False,
        description="Hand on attempts that the workflow itself calls failed, so that a writer keeps them apart.",
    )


class EnvPlanner(BasePlanner[EnvPlannerArgs]):
    """Runs generate_seq() and dump_plan_info()."""

    args_model = EnvPlannerArgs

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        session, place = _of(scene, self)
        seed = int(rng.integers(_SEEDS))
        seq = session.plan(place, seed, with_render=self.args.with_render, beat=self.beat)
        result = Notes(seq.notes).result
        if not result.success and not self.args.keep_failures:
            raise PlanningFailed(result.reason or "failed", result.detail)
        return seq


class EnvRendererArgs(ComponentArgs):
    """Arguments of EnvRenderer."""

    render: bool = Field(default=True, description="False keeps the plan alone, as save_seq() writes it.")
    keep_files: bool = Field(
        default=False, description="Keep what save() writes, also where the workflow hands over its frames."
    )


class EnvRenderer(BaseRenderer[EnvRendererArgs]):
    """Replays recorded states: dedump_plan_info, randomization_from_mem, recover_seq_from_mem, seq_replay, save."""

    args_model = EnvRendererArgs
    motion = "states"

    def __init__(self, args: EnvRendererArgs) -> None:
        super().__init__(args)
        self._device = "auto"
        self._at: tuple[EnvSession, ScenePlace] | None = None

    def open(self, device: str) -> None:
        self._device = device

    def load(self, scene: Scene) -> None:
        self._at = _of(scene, self)

    def unfit(self, stages: Mapping[str, Component[Any]]) -> list[str]:
        loader = stages.get("load")
        if not isinstance(loader, EnvLoader):
            return []
        workflow = workflow_class(loader.args.workflow_type)
        return workflow.unfit(loader.args.workflow_args, self.args.render)

    def gen_obs(self, seq: Sequence) -> Observation:
        if self._at is None:
            raise ComponentError("EnvRenderer.gen_obs was called before load")
        session, place = self._at
        if not self.args.render:
            return session.plan_files(place, seq)
        return session.render(place, seq, beat=self.beat, device=self._device, keep_files=self.args.keep_files)


def _of(scene: Scene, component: Component[Any]) -> tuple[EnvSession, ScenePlace]:
    if not isinstance(scene, EnvScene) or scene.session is None:
        raise ComponentError(f"{type(component).__name__} works on scenes of EnvLoader, not on scene '{scene.name}'")
    return scene.session, scene.place
