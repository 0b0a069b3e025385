"""Events that a run tells those who watch it: for progress displays, logs and programs."""

from __future__ import annotations

import dataclasses
import time
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from nimbusd.transport.messages.failures import Failure


@dataclass(frozen=True, slots=True)
class JobStarted:
    """The job's numbers when the run began: `committed` of `wanted` were there already."""

    job: str
    output: str
    wanted: int
    committed: int
    failed: int
    quarantined: int
    slots: int


@dataclass(frozen=True, slots=True)
class WorkerUp:
    """A compute worker is ready. device: what renders, in words."""

    worker: str
    pid: int
    device: str


@dataclass(frozen=True, slots=True)
class WorkerDown:
    """A compute worker is gone, and should not be. The failure's evidence: its last output."""

    worker: str
    failure: Failure


@dataclass(frozen=True, slots=True)
class StageBegan:
    """An episode entered a stage."""

    worker: str
    scene: str
    index: int
    attempt: int
    stage: str


@dataclass(frozen=True, slots=True)
class EpisodeCommitted:
    """An episode is durable and in the ledger. timings_s: stage → seconds."""

    scene: str
    index: int
    attempt: int
    node: str
    frames: int
    timings_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class EpisodeFailed:
    """Planning found that the episode cannot be: a result."""

    scene: str
    index: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class AttemptLost:
    """An attempt came to nothing and will be made again, or the episode is quarantined."""

    scene: str
    index: int
    attempt: int
    failure: Failure
    quarantined: bool


@dataclass(frozen=True, slots=True)
class Published:
    """The dataset on disk now holds `episodes` episodes."""

    dataset: str
    episodes: int
    final: bool


@dataclass(frozen=True, slots=True)
class PublishFailed:
    """The dataset could not be published; what was published before stays. why: in words.

    evidence: what the writer wrote at last, and where its threads were. again_s: in how many seconds it is tried again.
    """

    why: str
    evidence: str
    final: bool
    again_s: float


@dataclass(frozen=True, slots=True)
class Draining:
    """No new episode will be started. why: in words."""

    why: str


@dataclass(frozen=True, slots=True)
class JobPaused:
    """The job waits, and tries again by itself. why: in words."""

    why: str


@dataclass(frozen=True, slots=True)
class JobWaiting:
    """Nothing of the job moves, or the reason has changed. cause: a word (`nimbusd.core.master.facts.Cause`)."""

    cause: str
    why: str


@dataclass(frozen=True, slots=True)
class JobResumed:
    """The job goes on, after a pause or a wait."""


@dataclass(frozen=True, slots=True)
class EnvironmentChanged:
    """The job goes on with other packages. before, now: of those that differ, version by name."""

    before: Mapping[str, str]
    now: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class JobEnded:
    """The job is over: complete, incomplete or cancelled; or this run of it is: interrupted or stopped.

    failures: episodes that were not made, by reason.
    """

    job: str
    status: str
    committed: int
    failed: int
    quarantined: int
    wanted: int
    dataset: str | None
    elapsed_s: float
    why: str = ""
    failures: Mapping[str, int] = field(default_factory=dict)


Event: TypeAlias = (
    JobStarted
    | WorkerUp
    | WorkerDown
    | StageBegan
    | EpisodeCommitted
    | EpisodeFailed
    | AttemptLost
    | Published
    | PublishFailed
    | Draining
    | JobPaused
    | JobWaiting
    | JobResumed
    | EnvironmentChanged
    | JobEnded
)
Watcher: TypeAlias = Callable[[Event], None]


_Paths: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""JSON keys and where their values are in an event."""

_OLDER_KEYS: Mapping[type[Any], Mapping[str, str]] = {
    JobStarted: {"slots": "workers"},
    EpisodeCommitted: {"node": "worker"},
}
"""Fields whose JSON key is an older name, which programs read."""
_OF_FAILURE: Mapping[type[Any], tuple[str, ...]] = {
    EpisodeFailed: ("reason", "detail"),
    AttemptLost: ("reason", "detail"),
    WorkerDown: ("reason", "detail", "evidence"),
}
"""Parts of a failure that an event says: evidence is long, and of episodes it can be asked for."""


def to_json(event: Event) -> dict[str, Any]:
    """An event as JSON values: its fields, its type in snake_case as `event`, and the time in Unix seconds.

    Seconds are rounded to microseconds.
    """
    name, paths = _SHAPES[type(event)]
    told: dict[str, Any] = {"event": name, "time": _rounded(time.time())}
    for key, path in paths:
        value: Any = event
        for field_name in path:
            value = getattr(value, field_name)
        told[key] = _rounded(value)
    return told


def _shape(kind: type[Any]) -> tuple[str, _Paths]:
    """The name of a type of event in snake_case, and its JSON keys."""
    name = "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(kind.__name__))
    paths: list[tuple[str, tuple[str, ...]]] = []
    for f in dataclasses.fields(kind):
        if f.name == "failure":
            paths += [(key, (f.name, key)) for key in _OF_FAILURE[kind]]
        else:
            paths.append((_OLDER_KEYS.get(kind, {}).get(f.name, f.name), (f.name,)))
    return name, tuple(paths)


_SHAPES = {kind: _shape(kind) for kind in typing.get_args(Event)}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, str | int):
        return value
    if isinstance(value, Mapping):
        return {key: _rounded(inner) for key, inner in value.items()}
    return value
