"""The five base classes that components extend, with the Nimbus paper's method names (table 1).

A component is made from a validated pydantic model: it declares `args_model` (and a loader also `scene_model`,
for one entry of the job's `scenes`), and gets the instance in `__init__`. Anything heavy is imported
inside methods, so that a job file can be checked on a machine without the backend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from nimbusd.stages.types import Episode, Observation, Piece, Scene, Sequence


class ComponentArgs(BaseModel):
    """Base of every component's arguments: unknown keys are errors, values cannot change later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SceneConfig(ComponentArgs):
    """One entry of the job's `scenes`. name: unique in the job; part of every episode id and seed."""

    name: str


A = TypeVar("A", bound=ComponentArgs)
S = TypeVar("S", bound=SceneConfig)


def no_beat() -> None:
    """The beat of a component that nobody watches."""


class Component(ABC, Generic[A]):
    """The base of all five.

    version: semver of the component's results; change it when the same seed gives other episodes.
    requires: modules that its methods import; `nimbusctl check` warns where one is not installed.
    may_use: modules that they import in some cases only (for a packed file, on a GPU). The packages that have these
    modules and those of `requires` belong to a job's environment: nodes with other versions get nothing of the job.
    beat: call it at least once per frame or per second of work; a worker that does not beat is killed.
    """

    args_model: ClassVar[type[ComponentArgs]] = ComponentArgs
    version: ClassVar[str] = "1.0.0"
    requires: ClassVar[tuple[str, ...]] = ()
    may_use: ClassVar[tuple[str, ...]] = ()

    def __init__(self, args: A) -> None:
        self.args = args
        self.beat: Callable[[], None] = no_beat

    def needs(self) -> tuple[str, ...]:
        """Modules that this component, made of these arguments, will import."""
        return self.requires

    def modules(self) -> tuple[str, ...]:
        """Modules whose versions decide what this component, made of these arguments, makes: its own among them."""
        return (type(self).__module__, *self.needs(), *self.may_use)

    def unfit(self, stages: Mapping[str, Component[Any]]) -> list[str]:
        """A sentence for each thing on this machine, or in its environment, that keeps the component from working.

        stages: all components of the job, by stage. Asked where a job is checked, and before it runs here, of
        components whose modules are installed. Cheap; must not raise.
        """
        return []

    def close(self) -> None:
        """Free what the component holds (processes, files, device memory). Called once, at the end."""


class BaseLoader(Component[A], Generic[A, S]):
    """Makes a `Scene` from one entry of the job's scenes."""

    scene_model: ClassVar[type[SceneConfig]] = SceneConfig

    def asset_paths(self, config: S) -> list[Path]:
        """The files that `load_asset` will need; `nimbusctl check` names those that are missing."""
        return []

    def asset_warnings(self, config: S) -> list[str]:
        """A sentence for each thing in those files that the scene will lack; `nimbusctl check` prints them.

        Cheap: headers, not contents; a file that is missing is asset_paths' matter. Raises AssetError where a header
        alone tells that `load_asset` will fail.
        """
        return []

    def image_sizes(self, config: S) -> dict[str, tuple[int, int]]:
        """Camera → width and height in pixels, where the scene itself says what will be rendered."""
        return {}

    def scene_modules(self, configs: Iterable[S]) -> Iterable[str]:
        """Modules that making episodes of these scenes imports beside `needs`. A file that is missing is passed over.

        Here: none, without a look at the scenes.
        """
        return ()

    @abstractmethod
    def load_asset(self, config: S) -> Scene:
        """Load and check one scene. Raises AssetError that names the file. Deterministic."""


class BaseRandomizer(Component[A]):
    """Changes a scene (lights, materials, poses), using no other randomness than `rng`."""

    @abstractmethod
    def randomize(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """A new scene; the given one stays as it is."""


class BasePlanner(Component[A]):
    """Plans one trajectory in a scene, using no other randomness than `rng`."""

    @abstractmethod
    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        """A sequence of at least one frame. Raises PlanningFailed(reason) where there is none.

        The planner may keep what it derived from `scene` (an occupancy map) keyed by its content_hash.
        """

    def image_sizes(self) -> dict[str, tuple[int, int]]:
        """Camera → width and height in pixels of what will be rendered. Here: of the argument `cameras`."""
        cameras = getattr(self.args, "cameras", ())
        return {camera.name: (camera.width, camera.height) for camera in cameras}


class BaseRenderer(Component[A]):
    """Renders sequences. It lives for many: open(device), then load(scene) and gen_obs(seq) at will, close().

    motion: what it shows of things that move. `none`: a scene that stands still; `poses`: objects where
    `Sequence.T_world_object` has them; `states`: the simulator's states that the sequence carries. Sequences that move
    something else are refused before the first frame (see `stages.motion`), so that they do not come out as stills.
    """

    motion: ClassVar[Literal["none", "poses", "states"]] = "none"

    @property
    def device_name(self) -> str:
        """The device that it renders on, for people: `cuda:0 RTX 6000`. Empty where `open` was told its name."""
        return ""

    def open(self, device: str) -> None:
        """Start the backend on a device: `auto`, `cpu`, `cuda:0` … Raises BackendUnavailable."""

    @abstractmethod
    def load(self, scene: Scene) -> None:
        """Make `scene` the one that gen_obs shows. Cheap when its content_hash is already loaded."""

    @abstractmethod
    def gen_obs(self, seq: Sequence) -> Observation:
        """Render every frame of `seq` in the loaded scene, calling `beat` at each. Raises RenderError."""


class BaseWriter(Component[A]):
    """Stores episodes as pieces, and publishes committed pieces as a dataset."""

    @abstractmethod
    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        """Write, fsync and rename the episode's piece into `<episode.output>/.pieces/`.

        When it returns, the piece is durable. Raises StoreError, or OSError with errno and path.
        Called from a writer thread, or from several at once where the job has `writers` above 1: it must not touch
        the renderer.
        """

    @abstractmethod
    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        """Make `<output>/dataset` hold exactly `pieces`, in this order, swapped in atomically.

        A pure function of its arguments and the pieces' files: the same call gives the same dataset.
        job: facts for the metadata (name, seed, task …). final: compact to the format's file sizes.
        Called in a process of its own, which is killed if it does not call `beat` for `limits.publish_timeout_s`.
        Returns the dataset's path. Raises StoreError for a missing or torn piece.
        """

    def refused_sizes(self, sizes: dict[str, tuple[int, int]]) -> list[str]:
        """Of images (camera → width and height in pixels), those that `save_data` could not store: a sentence each."""
        return []
