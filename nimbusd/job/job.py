"""`Job`: a checked job as plain values, the same in every process that works on it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import orjson

from nimbusd.core.node.split import Mode
from nimbusd.job.model import JobDescription, Limits
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
from nimbusd.stages.registry import resolve
from nimbusd.stages.runner import Components
from nimbusd.stages.stage_names import STAGES, Stage

M = TypeVar("M", bound=ComponentArgs)

_NOT_WHAT = (
    *("output", "scenes_root", "workers", "mode", "planners", "writers"),
    *("limits", "max_tries_per_episode", "requires"),
)
"""Keys that say where, how, how long and with what is installed episodes are made, not which."""


@dataclass(frozen=True, slots=True)
class StageSpec:
    """A stage's component. version: of its results, when the job was read. args: JSON values, defaults filled in."""

    component: str
    version: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class Job:
    """A job that passed `read_job`. Plain values only, so that it travels as JSON or msgpack. See also JobFile."""

    name: str
    seed: int
    output: Path
    """Absolute folder."""
    scenes_root: Path
    """Absolute folder that relative paths in scenes and args start at."""
    scene_entries: Mapping[str, Mapping[str, Any]]
    """Scene name → its entry as JSON values, `count` already expanded, in the file's order."""
    episodes_per_scene: int
    exact: bool
    max_tries_per_episode: int
    randomize_every: int
    workers: int | None
    stages: Mapping[Stage, StageSpec]
    """The pipeline by kind; without `randomize` that key is absent."""
    mode: Mode = Mode.AUTO
    planners: int | None = None
    writers: int = 1
    limits: Limits = field(default_factory=Limits)
    requires: tuple[str, ...] | None = None
    """Installed packages whose versions are part of its environment; None where an older nimbusd read the job."""
    whole: str = ""
    """Fingerprint of the job with its scenes, where this one travels without them; else empty."""

    @cached_property
    def scenes(self) -> tuple[str, ...]:
        """The scenes' names, in order."""
        return tuple(self.scene_entries)

    @property
    def total_episodes(self) -> int:
        """Episodes asked for, over all scenes."""
        return len(self.scene_entries) * self.episodes_per_scene

    def variant(self, index: int) -> int:
        """The number of the randomization of its scene that the episode with this index uses."""
        return index // self.randomize_every if self.randomize_every else 0

    def scene_config(self, name: str, entry: Mapping[str, Any] | None = None) -> SceneConfig:
        """The loader's argument for one scene, with file paths absolute.

        entry: of the scene, for a job that travels without its scenes. Raises KeyError for an unknown name.
        """
        model = resolve(self.stages["load"].component, "load").scene_model
        chosen = self.scene_entries[name] if entry is None else entry
        return with_root(validate(model, chosen, f"scene {name!r}"), self.scenes_root)

    @overload
    def make(self, kind: Literal["load"]) -> BaseLoader[Any, Any]: ...
    @overload
    def make(self, kind: Literal["randomize"]) -> BaseRandomizer[Any]: ...
    @overload
    def make(self, kind: Literal["plan"]) -> BasePlanner[Any]: ...
    @overload
    def make(self, kind: Literal["render"]) -> BaseRenderer[Any]: ...
    @overload
    def make(self, kind: Literal["store"]) -> BaseWriter[Any]: ...
    @overload
    def make(self, kind: Stage) -> Component[Any]: ...
    def make(self, kind: Stage) -> Component[Any]:
        """A new component of a stage. Raises KeyError for `randomize` in a job without it, or ComponentError."""
        component, args = self._resolved(kind)
        return component(args)

    def describe(self) -> dict[str, dict[str, Any]]:
        """Stage → name, version and arguments of its component, in the order of the stages: for episodes' metadata."""
        described: dict[str, dict[str, Any]] = {}
        for kind in (kind for kind in STAGES if kind in self.stages):
            component, args = self._resolved(kind)
            described[kind] = {
                "name": component.__name__,
                "version": component.version,
                "args": args.model_dump(mode="json"),
            }
        return described

    def _resolved(self, kind: Stage) -> tuple[type[Component[Any]], ComponentArgs]:
        """The component of a stage and its arguments. Raises ComponentError where they are not what it takes here."""
        spec = self.stages[kind]
        component = resolve(spec.component, kind)
        args: ComponentArgs = validate(component.args_model, spec.args, f"{kind}: {spec.component}")
        return component, with_root(args, self.scenes_root)

    def make_components(self, *, plans: bool = True, renders: bool = True) -> Components:
        """New components of all stages, or of those that a process which only plans, or only renders, needs.

        Raises ComponentError.
        """
        return Components(
            loader=self.make("load"),
            randomizer=self.make("randomize") if "randomize" in self.stages else None,
            planner=self.make("plan") if plans else None,
            renderer=self.make("render") if renders else None,
            writer=self.make("store") if renders else None,
        )

    def without_scenes(self) -> Job:
        """The job as it travels to nodes, which get each scene's entry with a lease. Its fingerprint is the same."""
        return replace(self, scene_entries={}, whole=self.fingerprint())

    def to_dict(self) -> dict[str, Any]:
        """JSON values that `from_dict` makes an equal job of."""
        return self._values() | ({"fingerprint": self.whole} if self.whole else {})

    def _values(self) -> dict[str, Any]:
        """The job as plain values."""
        return {
            "name": self.name,
            "seed": self.seed,
            "output": str(self.output),
            "scenes_root": str(self.scenes_root),
            # A list of pairs: the order of scenes is part of the job, and JSON objects promise none.
            "scenes": [[name, dict(entry)] for name, entry in self.scene_entries.items()],
            "episodes_per_scene": self.episodes_per_scene,
            "exact": self.exact,
            "max_tries_per_episode": self.max_tries_per_episode,
            "randomize_every": self.randomize_every,
            "workers": self.workers,
            "mode": self.mode.value,
            "planners": self.planners,
            "writers": self.writers,
            "stages": {kind: asdict(spec) for kind, spec in self.stages.items()},
            "limits": self.limits.model_dump(mode="json"),
            "requires": None if self.requires is None else list(self.requires),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Job:
        """Make a job from `to_dict`, on whatever way it came. Components and their arguments are not checked.

        Raises ArgumentsError, which names everything that no job file can say.
        """
        spec = validate(JobDescription, values, "job")
        stages = {kind: stage for kind in STAGES if (stage := getattr(spec.stages, kind)) is not None}
        return cls(
            name=spec.name,
            seed=spec.seed,
            output=spec.output,
            scenes_root=spec.scenes_root,
            scene_entries=dict(spec.scenes),
            episodes_per_scene=spec.episodes_per_scene,
            exact=spec.exact,
            max_tries_per_episode=spec.max_tries_per_episode,
            randomize_every=spec.randomize_every,
            workers=spec.workers,
            mode=spec.mode,
            planners=spec.planners,
            writers=spec.writers,
            stages={kind: StageSpec(stage.component, stage.version, stage.args) for kind, stage in stages.items()},
            limits=spec.limits,
            requires=None if spec.requires is None else tuple(spec.requires),
            whole=spec.fingerprint,
        )

    def fingerprint(self) -> str:
        """SHA-256 (hex) of what determines the episodes; an output is only resumed by a job with the same one.

        The places of files (output, scenes_root), the number of workers and the limits are not part of it.
        """
        if self.whole:
            return self.whole
        values = self._values()
        for key in _NOT_WHAT:
            del values[key]
        return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()


def with_root(args: M, root: Path) -> M:
    """`args` with every relative Path in its fields joined to `root`."""
    changed = {name: _rooted(value, root) for name, value in args if value is not _rooted(value, root)}
    return args.model_copy(update=changed) if changed else args


def _rooted(value: Any, root: Path) -> Any:
    if isinstance(value, Path):
        return value if value.is_absolute() else root / value
    if isinstance(value, (list, tuple)) and any(isinstance(item, Path) for item in value):
        return type(value)(_rooted(item, root) for item in value)
    if isinstance(value, dict) and any(isinstance(item, Path) for item in value.values()):
        return {key: _rooted(item, root) for key, item in value.items()}
    return value
