"""The schema of jobs, as files and as they travel, with every default and bound in one place.

`docs/job-file.md` explains it to people. Both forms are checked alike, so that a master takes every job that
`nimbusctl check` lets through, and no other. Components are not looked at here: a master never imports them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from nimbusd.core.node.split import Mode
from nimbusd.stages.plain import is_printable

MOST_SCENES = 1_000_000
MOST_EPISODES = (1 << 31) - 1
"""Of a scene, reserve for failed plans included: indexes stay below."""
MOST_SEED = (1 << 64) - 1
_MOST_S = 10_000_000.0
_MOST_PATH_BYTES = 3000
"""Longer ones leave no room for what lies in a piece's folder."""
_MOST_NAME_BYTES = 200
_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def unfit_scene(name: str) -> str | None:
    """The reason why a scene's name cannot be part of episode ids and folder names; None if it can."""
    if not name or not (name[0].isalnum() or name[0] == "_") or any(not (c.isalnum() or c in "._-") for c in name):
        return (
            f"scene name {name!r:.80} may only have letters, digits, '.', '_' and '-', and begins with a letter, "
            "a digit or '_' (it becomes a folder's name)"
        )
    if (size := len(name.encode())) > _MOST_NAME_BYTES:
        return f"scene name '{name[:40]}…' has {size} bytes; a name has at most {_MOST_NAME_BYTES}"
    return None


def _job_name(name: str) -> str:
    if not _JOB_NAME.fullmatch(name):
        raise ValueError(
            f"name {name!r:.80} may only have letters from A to Z, digits, '.', '_' and '-', and begins with a letter "
            "or a digit (it is part of every episode's id)"
        )
    return name


def _scene_name(name: str) -> str:
    if (unfit := unfit_scene(name)) is not None:
        raise ValueError(unfit)
    return name


def _path(path: Path) -> Path:
    text = str(path)
    if not is_printable(text):
        raise ValueError(f"the path {text!r:.80} has control characters, or bytes that are not UTF-8")
    longest = max(len(part.encode()) for part in (*path.parts, ""))
    if len(text.encode()) > _MOST_PATH_BYTES or longest > 255:
        raise ValueError(f"the path {text[:40]}… is too long for a file system")
    return path


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"the path {str(path)!r:.80} must be absolute, and the same for all nodes")
    return path


def _printable(text: str) -> str:
    if not is_printable(text):
        raise ValueError(f"{text!r:.80} has control characters")
    return text


JobName = Annotated[str, Field(max_length=100), AfterValidator(_job_name)]
SceneName = Annotated[str, AfterValidator(_scene_name)]
FilePath = Annotated[Path, AfterValidator(_path)]
AbsolutePath = Annotated[FilePath, AfterValidator(_absolute)]
Word = Annotated[str, Field(max_length=255), AfterValidator(_printable)]
Timeout = Annotated[float, Field(gt=0, le=_MOST_S, allow_inf_nan=False)]


class _Section(BaseModel):
    """Unknown keys are errors; values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Section):
    """A component by name, and the arguments it is made from."""

    component: Word = Field(min_length=1)
    args: dict[str, Any] = Field(default_factory=dict)


class VersionedStage(Stage):
    """A stage whose component was looked at. version: of its results, when the job was read."""

    version: Word


class Pipeline(_Section):
    """The five stages. Without `randomize` scenes stay as they were loaded."""

    load: Stage
    randomize: Stage | None = None
    plan: Stage
    render: Stage
    store: Stage


class StageTimeouts(_Section):
    """The longest silence of a compute worker in a stage; None: as in any."""

    load: Timeout | None = None
    randomize: Timeout | None = None
    plan: Timeout | None = None
    render: Timeout | None = None
    store: Timeout | None = None


class Limits(_Section):
    """The limits of patience, and of memory."""

    beat_timeout_s: Timeout = 120.0
    """A compute worker that gives no sign of progress for this time is killed."""
    stage_timeout_s: StageTimeouts = Field(default_factory=StageTimeouts)
    """The same for single stages, longer or shorter."""
    open_timeout_s: Timeout = 300.0
    """A compute worker that takes longer to make its components and open its backend is killed."""
    publish_timeout_s: Timeout = 300.0
    """A process that publishes and gives no sign of progress for this time is killed."""
    episode_timeout_s: Timeout | None = None
    """An episode that takes longer is killed; None: as long as it beats, it goes on."""
    attempts: int = Field(default=3, ge=1, le=1000)
    """This number of deaths of workers on one episode sets it aside (quarantine); the job goes on."""
    recycle_growth_mb: float | None = Field(default=None, gt=0, le=1e9, allow_inf_nan=False)
    """Growth of a compute worker, between episodes, after which a new one takes its place; None: half of its memory
    in its first episodes, and at least 512."""

    def stage_limits_s(self) -> dict[str, float]:
        """The timeouts of the stages that have their own."""
        return self.stage_timeout_s.model_dump(exclude_none=True)

    def longest_silence_s(self) -> float:
        """No stage may be silent for longer."""
        return max(self.beat_timeout_s, *self.stage_limits_s().values(), 0.0)


class _Wanted(_Section):
    """The part of a job that its file and what travels have in common."""

    name: JobName
    seed: int = Field(default=0, ge=0, le=MOST_SEED)
    episodes_per_scene: int = Field(default=1, ge=1, le=MOST_EPISODES)
    exact: bool = True
    """Replace plans that fail by the next episode indexes, until `episodes_per_scene` succeed."""
    max_tries_per_episode: int = Field(default=5, ge=1, le=MOST_EPISODES)
    """With `exact`: the most tries, as a multiple of `episodes_per_scene`."""
    randomize_every: int = Field(default=0, ge=0, le=MOST_EPISODES)
    """0: randomize each scene once; N: make a new variant every N indexes."""
    workers: int | None = Field(default=None, ge=1, le=4096)
    """Compute processes; None lets the node decide."""
    mode: Mode = Mode.AUTO
    """One process plans and renders an episode (fused), or two do (decoupled); auto: what is measured to be faster."""
    planners: int | None = Field(default=None, ge=1, le=4096)
    """Of a node's compute workers, those that plan in decoupled mode; None: the number that is measured to be best."""
    writers: int = Field(default=1, ge=1, le=16)
    """Threads of each renderer that store."""
    limits: Limits = Field(default_factory=Limits)

    @model_validator(mode="after")
    def _indexes_fit(self) -> _Wanted:
        if self.exact and self.episodes_per_scene * self.max_tries_per_episode > MOST_EPISODES:
            raise ValueError(
                f"episodes_per_scene times max_tries_per_episode must be {MOST_EPISODES:,} or less, but it is "
                f"{self.episodes_per_scene * self.max_tries_per_episode:,}"
            )
        return self


class JobFile(_Wanted):
    """A job as written. Relative file paths inside `scenes` and `args` start at `scenes_root`."""

    output: FilePath | None = None
    """Relative to the current directory; default `out/<name>`."""
    scenes_root: FilePath | None = None
    """Relative to the job file's folder, which is also the default."""
    scenes: list[dict[str, Any]] = Field(min_length=1)
    """Entries of the loader's scene_model; each may have `count`."""
    pipeline: Pipeline


class Stages(_Section):
    """The stages of a job that travels."""

    load: VersionedStage
    randomize: VersionedStage | None = None
    plan: VersionedStage
    render: VersionedStage
    store: VersionedStage


class JobDescription(_Wanted):
    """A job as it travels: `Job.to_dict()`."""

    output: AbsolutePath
    scenes_root: AbsolutePath
    scenes: list[tuple[SceneName, dict[str, Any]]] = Field(max_length=MOST_SCENES)
    """Name and entry of each, `count` expanded."""
    stages: Stages
    requires: list[Word] | None = Field(default=None, max_length=1000)
    """See `Job.requires`."""
    fingerprint: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    """Of the job with its scenes, where it has none."""

    @model_validator(mode="after")
    def _scenes_fit(self) -> JobDescription:
        if twice := _twice(name for name, _ in self.scenes):
            raise ValueError(f"scene '{twice}' is there twice; give each its own name")
        for name, entry in self.scenes:
            if entry.get("name") != name:
                raise ValueError(f"the entry of scene '{name}' is called {entry.get('name')!r:.80}")
        if self.scenes and self.fingerprint:
            raise ValueError("a job with scenes has no fingerprint beside them")
        return self


def _twice(names: Iterable[str]) -> str | None:
    """The first name that was there before."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
