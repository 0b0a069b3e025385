"""A component under test and all that its stage needs of others: `Stand.ready` prepares a call, `Stand.call` makes it.

What the other stages would give comes from `fixtures`, or from components that the user names: those of a job whose
stages only fit each other.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nimbusd.replay.compare import record_of
from nimbusd.stages.arguments import validate
from nimbusd.stages.base import (
    BaseLoader,
    BasePlanner,
    BaseRandomizer,
    BaseRenderer,
    BaseWriter,
    Component,
    ComponentArgs,
    SceneConfig,
)
from nimbusd.stages.errors import ComponentError
from nimbusd.stages.modules import how_to_install, missing_modules
from nimbusd.stages.packing import pack_sequence, unpack_sequence
from nimbusd.stages.registry import create, resolve
from nimbusd.stages.seeds import stream
from nimbusd.stages.stage_names import STAGES, Stage
from nimbusd.stages.store.piece import MANIFEST
from nimbusd.stages.store.record import RECORD
from nimbusd.stages.types import Episode, Observation, Piece, Scene, Sequence
from nimbusd.stages.workflow.base import Workflow
from nimbusd.stages.workflow.registry import workflow_class
from nimbusd.testing import fixtures
from nimbusd.testing.shapes import observation_faults, scene_faults, sequence_faults, stored_faults

WORKFLOW = "workflow"
METHODS: Mapping[str, tuple[str, ...]] = {
    "load": ("load_asset",),
    "randomize": ("randomize",),
    "plan": ("gen_sequence",),
    "render": ("load", "gen_obs"),
    "store": ("save_data", "publish"),
}
"""The methods of each component that the stage runner and the publisher call."""
_ENV: Mapping[Stage, str] = {
    "load": "EnvLoader",
    "randomize": "EnvRandomizer",
    "plan": "EnvPlanner",
    "render": "EnvRenderer",
}
_SEMVER = re.compile(r"\d+\.\d+\.\d+([-+][0-9A-Za-z.+-]+)?")


@dataclass(frozen=True, slots=True)
class StandRequest:
    """A component to test, with its fixtures.

    args: of the component; of a workflow, its `workflow_args`. scene: its entry, without the name.

    beside: stage → {component, args} of components that take the place of fixtures. output: a folder for pieces.
    """

    component: str
    args: Mapping[str, Any]
    scene: Mapping[str, Any]
    beside: Mapping[str, Mapping[str, Any]]
    device: str
    output: Path


def find(name: str) -> tuple[str, type[Component[Any]] | type[Workflow]]:
    """Stage and class of the component or workflow called `name`.

    Raises ComponentError for a name that nothing answers to, a class that extends none of the base classes, or one
    that lacks methods.
    """
    wrong: list[str] = []
    for kind in STAGES:
        try:
            return kind, resolve(name, kind)
        except ComponentError as error:
            wrong.append(str(error))
    try:
        return WORKFLOW, workflow_class(name)
    except ComponentError as error:
        wrong.append(str(error))
    lacking = [text for text in wrong if "does not implement" in text]
    if not lacking and all("not a class that extends" in text for text in wrong):
        raise ComponentError(f"'{name}' extends none of the five base classes of nimbusd.stages, nor Workflow")
    raise ComponentError((lacking or wrong)[0])


@dataclass
class PreparedCall:
    """All that one call needs. inputs: what the component is given and may not change."""

    index: int
    inputs: tuple[Any, ...]
    make: Callable[[], Any]
    faults: Callable[[Any], list[str]]


@dataclass
class Stand:
    """The component, made, with its fixtures. beat: what it calls to say that it works."""

    request: StandRequest
    stage: str
    beat: Callable[[], None]
    _others: dict[str, Any] = field(default_factory=dict)
    _thread: ThreadPoolExecutor | None = None
    _loaded: Scene | None = None

    @cached_property
    def component(self) -> Any:
        """The component itself; of a workflow, the EnvLoader that keeps it."""
        if self.stage == WORKFLOW:
            args = {"workflow_type": self.request.component, "workflow_args": dict(self.request.args)}
            return self._made("load", {"component": _ENV["load"], "args": args})
        kind: Any = self.stage
        made = create(self.request.component, kind, self.request.args)
        made.beat = self.beat
        return made

    def declared_faults(self) -> list[str]:
        """Faults of what the class declares, and of what the component says of itself."""
        if self.stage == WORKFLOW:
            workflow: Any = workflow_class(self.request.component)
            return [*_version_faults(workflow), *_requires_faults(workflow.needs(self.request.args))]
        component = self.component
        faults = [*_model_faults(type(component)), *_version_faults(type(component))]
        faults += _requires_faults(component.needs())
        faults += [text for name in METHODS[self.stage] if (text := _signature_fault(type(component), name))]
        written = component.args.model_dump(mode="json")
        if validate(type(component.args), written, "its arguments as JSON") != component.args:
            faults.append("its arguments are others after a way through JSON, by which jobs travel")
        if not isinstance(component.unfit({self.stage: component}), list):
            faults.append("unfit() must return a list of sentences")
        return faults

    def missing(self) -> list[str]:
        """Reasons why the component cannot work on this machine, a sentence each."""
        stages = {"load": self.component} if self.stage == WORKFLOW else {self.stage: self.component}
        needs = self.component.needs()
        absent = [
            f"the Python module '{module}' is not installed: {how_to_install(module)}"
            for module in missing_modules(needs)
        ]
        return absent or list(self.component.unfit({**stages, **self._others}))

    def open(self) -> None:
        """Make the components that stand beside, and open the backends."""
        kinds = [kind for kind in STAGES if kind in self.request.beside]
        for kind in kinds:
            self._others[kind] = self._made(kind, self.request.beside[kind])
        if self.stage == WORKFLOW:
            for kind in ("randomize", "plan", "render"):
                self._others.setdefault(kind, self._made(kind, {"component": _ENV[kind]}))
        for component in (self.component, *self._others.values()):
            if isinstance(component, BaseRenderer):
                component.open(self.request.device)
        if self.stage == "store":
            self._thread = ThreadPoolExecutor(1, "writer")  # as the stage runner calls it

    def close(self) -> None:
        """Close all of them, in the reverse order."""
        if self._thread is not None:
            self._thread.shutdown()
        for component in (*reversed(self._others.values()), self.component):
            component.close()

    def ready(self, index: int) -> PreparedCall:
        """Prepare the call of episode `index`."""
        match self.stage:
            case "load":
                return self._loading(index)
            case "randomize":
                return self._randomizing(index)
            case "plan":
                return self._planning(index)
            case "render":
                return self._rendering(index)
            case "store":
                return self._storing(index)
            case _:
                return self._whole(index)

    def episode(self, index: int, attempt: int = 1) -> tuple[Episode, Observation]:
        """An episode and its pictures, for a writer to store."""
        scene = self._variant(index)
        seq = self._sequence(scene, index)
        return fixtures.episode(self.request.output, index, scene, seq, attempt=attempt), self._observation(
            scene, seq, index
        )

    def save(self, episode: Episode, obs: Observation) -> Piece:
        """Have the writer store it, in a writer's thread."""
        assert self._thread is not None
        assert episode.sequence is not None
        piece: Piece = self._thread.submit(self.component.save_data, episode.sequence, obs, episode).result()
        return piece

    # --- a call of each stage ---

    def _loading(self, index: int) -> PreparedCall:
        loader: BaseLoader[Any, Any] = self.component
        config = self._scene_config(loader)
        return PreparedCall(
            index,
            (),
            lambda: loader.load_asset(config),
            lambda made: [*scene_faults(made, config.name), *_loader_faults(loader, config)],
        )

    def _randomizing(self, index: int) -> PreparedCall:
        randomizer: BaseRandomizer[Any] = self.component
        scene = self._scene(0)
        rng = stream(fixtures.SEED, scene.name, index, "randomize")
        return PreparedCall(
            index, (scene,), lambda: randomizer.randomize(scene, rng), lambda made: scene_faults(made, scene.name)
        )

    def _planning(self, index: int) -> PreparedCall:
        planner: BasePlanner[Any] = self.component
        scene = self._variant(index)
        rng = stream(fixtures.SEED, scene.name, index, "plan")
        return PreparedCall(index, (scene,), lambda: planner.gen_sequence(scene, rng), sequence_faults)

    def _rendering(self, index: int) -> PreparedCall:
        renderer: BaseRenderer[Any] = self.component
        scene = self._variant(index)
        seq = self._sequence(scene, index)

        def make() -> Observation:
            renderer.load(scene)
            return renderer.gen_obs(seq)

        return PreparedCall(index, (scene, seq), make, lambda made: observation_faults(made, seq))

    def _storing(self, index: int) -> PreparedCall:
        episode, obs = self.episode(index)
        given = (episode.scene, episode.sequence, obs)
        return PreparedCall(index, given, lambda: self.save(episode, obs), lambda made: stored_faults(made, episode))

    def _whole(self, index: int) -> PreparedCall:
        """A workflow: randomize, plan, hand over, show."""
        loaded = self._scene(index)
        plan, show = self._others["plan"], self._others["render"]

        def make() -> tuple[Scene, Sequence, Observation]:
            rng = stream(fixtures.SEED, loaded.name, index, "randomize")
            scene = self._others["randomize"].randomize(loaded, rng)
            seq = plan.gen_sequence(scene, stream(fixtures.SEED, loaded.name, index, "plan"))
            handed = unpack_sequence(pack_sequence(seq))
            show.load(scene)
            return scene, seq, show.gen_obs(handed)

        def faults(made: tuple[Scene, Sequence, Observation]) -> list[str]:
            scene, seq, obs = made
            return [*scene_faults(scene, loaded.name), *sequence_faults(seq), *observation_faults(obs, seq)]

        return PreparedCall(index, (), make, faults)

    # --- what the other stages would give ---

    def _scene(self, variant: int) -> Scene:
        loader = self.component if self.stage == WORKFLOW else self._others.get("load")
        if loader is None:
            return fixtures.scene(variant)
        if self._loaded is None:
            self._loaded = loader.load_asset(self._scene_config(loader))
        return self._loaded

    def _variant(self, index: int) -> Scene:
        """Two scenes take turns, so that what one leaves behind in the component shows in the other."""
        variant = index % 2
        scene = self._scene(variant)
        if (randomizer := self._others.get("randomize")) is not None:
            scene = randomizer.randomize(scene, stream(fixtures.SEED, scene.name, variant, "randomize"))
        return scene

    def _sequence(self, scene: Scene, index: int) -> Sequence:
        if (planner := self._others.get("plan")) is None:
            return fixtures.sequence(index)
        seq: Sequence = planner.gen_sequence(scene, stream(fixtures.SEED, scene.name, index, "plan"))
        return seq

    def _observation(self, scene: Scene, seq: Sequence, index: int) -> Observation:
        if (renderer := self._others.get("render")) is None:
            return fixtures.observation(seq, index)
        renderer.load(scene)
        obs: Observation = renderer.gen_obs(seq)
        return obs

    def _scene_config(self, loader: BaseLoader[Any, Any]) -> SceneConfig:
        entry = {"name": fixtures.SCENE, **self.request.scene}
        return validate(loader.scene_model, entry, f"the scene's entry for {type(loader).__name__}")

    def _made(self, kind: Stage, spec: Mapping[str, Any]) -> Component[Any]:
        made = create(spec["component"], kind, spec.get("args") or {})
        if self.stage == WORKFLOW:
            made.beat = self.beat
        return made


def content_of(made: Any, output: Path) -> Any:
    """The part of a result that must be equal in two processes: all of it; of a piece its files.

    Our own writers' record also says when and where the piece was made: that is left out.
    """
    if not isinstance(made, Piece):
        return made
    record = record_of(output, made.folder)
    if record is None:
        return made.folder, made.length, [file for file in made.files if file.path != MANIFEST]
    record.pop("run")
    return made.folder, record, [file for file in made.files if file.path not in (MANIFEST, RECORD)]


def _model_faults(kind: type[Component[Any]]) -> list[str]:
    models: list[tuple[str, Any, type[ComponentArgs]]] = [("args_model", kind.args_model, ComponentArgs)]
    if issubclass(kind, BaseLoader):
        models.append(("scene_model", kind.scene_model, SceneConfig))
    faults = []
    for name, model, base in models:
        if not (isinstance(model, type) and issubclass(model, base)):
            faults.append(f"{name} is {model!r}, but must extend {base.__name__}")
        elif model.model_config.get("extra") != "forbid" or not model.model_config.get("frozen"):
            faults.append(f"{name} lets unknown keys pass, or values change: keep the model_config of {base.__name__}")
    return faults


def _version_faults(kind: Any) -> list[str]:
    version = kind.version
    if isinstance(version, str) and _SEMVER.fullmatch(version):
        return []
    return [f"version is {version!r}, but must be three numbers such as '1.0.0'"]


def _requires_faults(needs: Any) -> list[str]:
    if isinstance(needs, (tuple, list)) and all(isinstance(name, str) for name in needs):
        return []
    return [f"requires (or needs()) is {needs!r}, but must be a tuple of module names, such as ('mujoco',)"]


def _signature_fault(kind: type[Any], method: str) -> str:
    """An override must take what the stage runner gives it."""
    base: Any = next(base for base in reversed(kind.__mro__) if method in vars(base))
    wanted = [name for name in inspect.signature(getattr(base, method)).parameters if name != "self"]
    try:
        inspect.signature(getattr(kind, method)).bind(None, *wanted)
    except TypeError as error:
        return f"{method}({', '.join(wanted)}) is called with these arguments, which it does not take: {error}"
    return ""


def _loader_faults(loader: BaseLoader[Any, Any], config: SceneConfig) -> list[str]:
    faults = []
    paths = loader.asset_paths(config)
    if not (isinstance(paths, list) and all(isinstance(path, Path) for path in paths)):
        faults.append("asset_paths() must return a list of pathlib.Path")
    else:
        faults += [
            f"asset_paths() names {path}, which does not exist, though the scene was loaded"
            for path in paths
            if not path.exists()
        ]
    sizes = loader.image_sizes(config)
    if not all(isinstance(size, tuple) and len(size) == 2 for size in sizes.values()):
        faults.append("image_sizes() must return camera → (width, height)")
    return faults


def publish_finally(writer: BaseWriter[Any], output: Path, pieces: list[Piece]) -> Path:
    """Publish them as a job would, for good."""
    job = {"name": fixtures.JOB, "seed": fixtures.SEED, "fingerprint": "0" * 64}
    return writer.publish(output, pieces, job, True)
