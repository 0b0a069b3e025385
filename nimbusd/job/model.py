"""The job file's schema, with every default in one place. `docs/job-file.md` explains it to people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from nimbusd.core.split import Mode


class _Section(BaseModel):
    """Unknown keys are errors; values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Stage(_Section):
    """A component by name, and the arguments it is made from."""

    component: str = Field(min_length=1)
    args: dict[str, Any] = Field(default_factory=dict)


class Pipeline(_Section):
    """The five stages. Without `randomize` scenes stay as they were loaded."""

    load: Stage
    randomize: Stage | None = None
    plan: Stage
    render: Stage
    store: Stage


class StageTimeouts(_Section):
    """How long a compute worker may be silent in a stage; None: as long as in any."""

    load: float | None = Field(default=None, gt=0)
    randomize: float | None = Field(default=None, gt=0)
    plan: float | None = Field(default=None, gt=0)
    render: float | None = Field(default=None, gt=0)
    store: float | None = Field(default=None, gt=0)


class Limits(_Section):
    """When to give up.

    beat_timeout_s: a compute worker that gives no sign of progress for so long is killed.
    stage_timeout_s: the same for single stages, longer or shorter.
    open_timeout_s: a compute worker that takes longer to make its components and open its backend is killed.
    episode_timeout_s: an episode that takes longer is killed; None: as long as it beats.
    attempts: so many deaths of workers on one episode set it aside (quarantine); the job goes on.
    recycle_growth_mb: a compute worker whose memory has grown by more, between episodes, makes room for a new one;
    None: half of what it took in its first episodes, and at least 512.
    """

    beat_timeout_s: float = Field(default=120.0, gt=0)
    stage_timeout_s: StageTimeouts = Field(default_factory=StageTimeouts)
    open_timeout_s: float = Field(default=300.0, gt=0)
    episode_timeout_s: float | None = Field(default=None, gt=0)
    attempts: int = Field(default=3, ge=1)
    recycle_growth_mb: float | None = Field(default=None, gt=0)

    def stage_limits_s(self) -> dict[str, float]:
        """The timeouts of the stages that have their own."""
        return self.stage_timeout_s.model_dump(exclude_none=True)

    def longest_silence_s(self) -> float:
        """No stage may be silent for longer."""
        return max(self.beat_timeout_s, *self.stage_limits_s().values(), 0.0)


class JobFile(_Section):
    """A job as written. Relative file paths inside `scenes` and `args` start at `scenes_root`.

    output: relative to the current directory; default `out/<name>`. scenes_root: relative to the job
    file's folder, which is also the default. scenes: entries of the loader's scene_model, each may have
    `count`. workers: compute processes; None lets the node decide. mode: whether one process
    plans and renders an episode (fused) or two do (decoupled); auto: what is measured to be faster.
    planners: of a node's compute workers so many plan in decoupled mode; None: as is measured to be best.
    writers: threads of each renderer that store. exact: plans
    that fail are replaced by the next episode indexes until `episodes_per_scene` succeed, at most
    `max_tries_per_episode` times as many. randomize_every: 0 randomizes each scene once; N makes a new variant every
    N indexes.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    seed: int = Field(default=0, ge=0)
    output: Path | None = None
    scenes_root: Path | None = None
    scenes: list[dict[str, Any]] = Field(min_length=1)
    episodes_per_scene: int = Field(default=1, ge=1)
    exact: bool = True
    max_tries_per_episode: int = Field(default=5, ge=1)
    randomize_every: int = Field(default=0, ge=0)
    workers: int | None = Field(default=None, ge=1)
    mode: Mode = Mode.AUTO
    planners: int | None = Field(default=None, ge=1)
    writers: int = Field(default=1, ge=1, le=16)
    pipeline: Pipeline
    limits: Limits = Field(default_factory=Limits)
