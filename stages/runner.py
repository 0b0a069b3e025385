"""The stage runner: lazy iterators that chain load → randomize → plan → render → store.

Each iterator pulls one `Episode` from the one before it, lets its component fill the episode's field, and
hands the episode on. A failure is written into the episode, which then passes the later stages untouched,
so that every request that goes in comes out exactly once, made or with a reason. Nothing runs ahead: an
episode's memory is bounded by the stage that holds it, plus those that are with the writer threads.

The chain may be cut in two after planning. In the process that renders, `plan_stages` takes the sequences from files
(`nimbusd.stages.planned`), and everything else follows from the same seeds again.
"""

from __future__ import annotations

import errno
import logging
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nimbusd.stages.base import BaseLoader, BasePlanner, BaseRandomizer, BaseRenderer, BaseWriter, SceneConfig
from nimbusd.stages.errors import AssetError, BackendUnavailable, ComponentError, NimbusError, PlanningFailed
from nimbusd.stages.load.asset_hashes import AssetHashes
from nimbusd.stages.load.mend import warnings_of
from nimbusd.stages.load.mend.recentre import check_near_origin
from nimbusd.stages.modules import what_is_missing
from nimbusd.stages.motion import check_motion
from nimbusd.stages.planned import read_planned
from nimbusd.stages.seeds import stream
from nimbusd.stages.sight import check_cameras_inside, check_sight
from nimbusd.stages.types import Episode, EpisodeRequest, Observation, Piece, Scene, Sequence, StageFailure

log = logging.getLogger(__name__)

T = TypeVar("T")
StageSeen = Callable[[str, Episode], None]
PlanOf = Callable[[Episode], Path | None]
"""The file of an episode's planned sequence; None: it is to be planned here."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_BROKEN = frozenset(
    {errno.EROFS, errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOTCONN, errno.ETIMEDOUT}
    | {errno.EACCES, errno.EPERM}
)
"""Errors of a storage that takes nothing from anybody: no episode's own doing."""


def _nothing(stage: str, episode: Episode) -> None:
    """The default observer of stages."""


def _no_plan(_: Episode) -> Path | None:
    """Every episode is planned where it is rendered."""
    return None


def _no_matter() -> None:
    """The default observer of waits."""


@dataclass(frozen=True, slots=True)
class Components:
    """The components of a job, made and ready.

    `randomizer` is None where the job names none; `planner` in a process that only renders, `renderer` and `writer` in
    one that only plans.
    """

    loader: BaseLoader[Any, Any]
    randomizer: BaseRandomizer[Any] | None
    planner: BasePlanner[Any] | None
    renderer: BaseRenderer[Any] | None
    writer: BaseWriter[Any] | None

    def by_stage(self) -> dict[str, Any]:
        """Stage name → component, in the order of the stages."""
        named = {
            "load": self.loader,
            "randomize": self.randomizer,
            "plan": self.planner,
            "render": self.renderer,
            "store": self.writer,
        }
        return {stage: component for stage, component in named.items() if component is not None}

    def close(self) -> None:
        """Close every component, last stage first."""
        for component in reversed(self.by_stage().values()):
            component.close()


class _StageIterator(Iterator[Episode]):
    """Pulls from `source`, applies one stage, and turns its errors into the episode's failure."""

    stage = ""

    def __init__(self, source: Iterator[Episode], seen: StageSeen = _nothing) -> None:
        self._source = source
        self._seen = seen

    def __next__(self) -> Episode:
        episode = next(self._source)
        if episode.failure is None:
            self._attempt(episode)
        return episode

    def _attempt(self, episode: Episode) -> None:
        self._seen(self.stage, episode)
        started = time.perf_counter()
        try:
            self._apply(episode)
        except BackendUnavailable:
            raise  # no episode can succeed here: the worker must stop and say so
        except ModuleNotFoundError as error:
            raise BackendUnavailable(f"{self.stage}: {what_is_missing(error)}") from error
        except Exception as error:  # noqa: BLE001 - a component may raise anything; it becomes the episode's failure
            episode.failure = failure_of(self.stage, error)
        finally:
            episode.timings_s[self.stage] = time.perf_counter() - started

    def _apply(self, episode: Episode) -> None:
        raise NotImplementedError


def failure_of(stage: str, error: Exception) -> StageFailure:
    """The failure of the episode that an exception from a component means."""
    if isinstance(error, PlanningFailed):
        return StageFailure(stage, error.reason, error.detail, planned=True)
    evidence = "".join(traceback.format_exception(error))
    if isinstance(error, AssetError):
        return StageFailure(stage, "asset_error", str(error), evidence=evidence)
    if isinstance(error, ComponentError):
        return StageFailure(stage, "component_error", str(error), evidence=evidence)
    if isinstance(error, OSError) and error.errno in _FULL:
        return StageFailure(stage, "disk_full", str(error), evidence=evidence)
    if isinstance(error, OSError) and stage == "store" and error.errno in _BROKEN:
        return StageFailure(stage, "storage_error", str(error), evidence=evidence)
    return StageFailure(stage, _snake(type(error).__name__), str(error), evidence=evidence)


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(name))


def _require(component: object, method: str, value: object, kind: type[T]) -> T:
    """`value` if it is a `kind`; ComponentError with the component's name otherwise."""
    if not isinstance(value, kind):
        raise ComponentError(
            f"{type(component).__module__}.{type(component).__name__}.{method} returned "
            f"{type(value).__name__}, but must return {kind.__name__}"
        )
    return value


class LoadIterator(_StageIterator):
    """Makes an Episode of each request and gives it its scene; a scene stays loaded while requests name it."""

    stage = "load"

    def __init__(
        self,
        requests: Iterable[EpisodeRequest],
        loader: BaseLoader[Any, Any],
        scene_config: Callable[[str], SceneConfig],
        output: Path,
        context: Mapping[str, Any],
        seen: StageSeen = _nothing,
    ) -> None:
        super().__init__((Episode(request, output, context=dict(context)) for request in requests), seen)
        self._loader = loader
        self._scene_config = scene_config
        self._loaded: tuple[str, Scene, dict[str, str]] | None = None
        self._hashes = AssetHashes()

    def _apply(self, episode: Episode) -> None:
        name = episode.request.scene
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = None  # free the old scene before the new one takes memory
            config = self._scene_config(name)
            scene = _require(self._loader, "load_asset", self._loader.load_asset(config), Scene)
            check_near_origin(scene)
            for sentence in warnings_of(scene):
                log.warning("scene %r: %s", name, sentence)
            self._loaded = (name, scene, self._hashes.of(self._loader.asset_paths(config), self._loader.beat))
        _, episode.scene, files = self._loaded
        episode.context = {**episode.context, "scene_files": files}


class RandomizeIterator(_StageIterator):
    """Gives each episode the scene's variant that its request names; the same variant is made once in a row."""

    stage = "randomize"

    def __init__(
        self,
        source: Iterator[Episode],
        randomizer: BaseRandomizer[Any] | None,
        job_seed: int,
        seen: StageSeen = _nothing,
    ) -> None:
        super().__init__(source, seen)
        self._randomizer = randomizer
        self._job_seed = job_seed
        self._made: tuple[tuple[str, int], Scene, Scene] | None = None  # key, made of, made

    def _apply(self, episode: Episode) -> None:
        if self._randomizer is None:
            return
        assert episode.scene is not None
        key = (episode.request.scene, episode.request.variant)
        if self._made is None or self._made[0] != key or self._made[1] is not episode.scene:
            self._made = None
            rng = stream(self._job_seed, *key, "randomize")
            scene = self._randomizer.randomize(episode.scene, rng)
            self._made = (key, episode.scene, _require(self._randomizer, "randomize", scene, Scene))
        episode.scene = self._made[2]


class PlanIterator(_StageIterator):
    """Plans each episode from its own random stream, or takes the sequence that another process planned.

    planner: None where every episode has been planned elsewhere. plan_of: where an episode's sequence lies, if it was.
    """

    stage = "plan"

    def __init__(
        self,
        source: Iterator[Episode],
        planner: BasePlanner[Any] | None,
        job_seed: int,
        seen: StageSeen = _nothing,
        plan_of: PlanOf = _no_plan,
    ) -> None:
        super().__init__(source, seen)
        self._planner = planner
        self._job_seed = job_seed
        self._plan_of = plan_of

    def _attempt(self, episode: Episode) -> None:
        path = self._plan_of(episode)
        if path is None:
            super()._attempt(episode)
            return
        try:
            planned = read_planned(path)
        except (NimbusError, OSError) as error:
            episode.failure = failure_of(self.stage, error)
            return
        episode.sequence = planned.sequence
        episode.context = {**episode.context, "started_unix_s": planned.began_unix_s}
        for stage, spent_s in planned.timings_s.items():
            episode.timings_s[stage] = episode.timings_s.get(stage, 0.0) + spent_s

    def _apply(self, episode: Episode) -> None:
        assert episode.scene is not None
        assert self._planner is not None, "an episode without a plan came to a process that does not plan"
        rng = stream(self._job_seed, episode.request.scene, episode.request.index, "plan")
        sequence = _require(self._planner, "gen_sequence", self._planner.gen_sequence(episode.scene, rng), Sequence)
        if len(sequence) == 0:
            raise ComponentError(f"{type(self._planner).__name__}.gen_sequence returned a sequence without frames")
        episode.sequence = sequence


class RenderIterator(_StageIterator):
    """Renders each planned episode."""

    stage = "render"

    def __init__(self, source: Iterator[Episode], renderer: BaseRenderer[Any], seen: StageSeen = _nothing) -> None:
        super().__init__(source, seen)
        self._renderer = renderer

    def _apply(self, episode: Episode) -> None:
        assert episode.scene is not None
        assert episode.sequence is not None
        check_cameras_inside(episode.scene, episode.sequence)
        check_motion(self._renderer, episode.sequence, episode.scene)
        self._renderer.load(episode.scene)
        observation = _require(self._renderer, "gen_obs", self._renderer.gen_obs(episode.sequence), Observation)
        check_sight(episode.scene, observation)
        episode.observation = observation


class StoreIterator(_StageIterator):
    """Stores episodes in writer threads while the stages before it make the next ones.

    writers: how many threads; so many episodes may be with them or wait for them beside the one that is being made.
    0 stores in the caller's thread, in lockstep. stored: called with each episode as soon as its piece is durable or
    its storing failed (from a writer thread), so that a commit does not wait for the next render. waits: called in
    the caller's thread before it waits for a writer thread, until which nothing can be expected of it.
    """

    stage = "store"

    def __init__(
        self,
        source: Iterator[Episode],
        writer: BaseWriter[Any],
        writers: int = 1,
        stored: Callable[[Episode], None] | None = None,
        seen: StageSeen = _nothing,
        waits: Callable[[], None] = _no_matter,
    ) -> None:
        super().__init__(source, seen)
        self._writer = writer
        self._waits = waits
        self._limit = writers
        self._stored = stored
        self._pool = ThreadPoolExecutor(writers, "writer") if writers else None
        self._waiting: deque[Future[Episode]] = deque()

    def __next__(self) -> Episode:
        while True:
            if self._waiting and (len(self._waiting) > self._limit or self._waiting[0].done()):
                return self._oldest()
            try:
                episode = next(self._source)
            except StopIteration:
                if self._waiting:
                    return self._oldest()
                self.close()
                raise
            if episode.failure is not None or self._pool is None:
                return self._finish(episode)
            self._waiting.append(self._pool.submit(self._finish, episode))

    def close(self) -> None:
        """Wait for what is being stored and end the writer threads."""
        if self._pool is not None:
            self._waits()
            self._pool.shutdown(wait=True)

    def _oldest(self) -> Episode:
        future = self._waiting.popleft()
        if not future.done():
            self._waits()
        return future.result()

    def _finish(self, episode: Episode) -> Episode:
        if episode.failure is None:
            self._attempt(episode)
        if self._stored is not None:
            self._stored(episode)
        return episode

    def _apply(self, episode: Episode) -> None:
        assert episode.sequence is not None
        assert episode.observation is not None
        piece = self._writer.save_data(episode.sequence, episode.observation, episode)
        episode.piece = _require(self._writer, "save_data", piece, Piece)
        episode.observation = None  # by far the largest part; nobody needs it once the piece is durable


def plan_stages(
    components: Components,
    requests: Iterable[EpisodeRequest],
    *,
    job_seed: int,
    scene_config: Callable[[str], SceneConfig],
    output: Path,
    context: Mapping[str, Any],
    seen: StageSeen = _nothing,
    plan_of: PlanOf = _no_plan,
) -> PlanIterator:
    """Chain the iterators up to planning. Every request comes out once; `seen(stage, episode)` is called at each start.

    plan_of: see PlanIterator.
    """
    loaded = LoadIterator(requests, components.loader, scene_config, output, context, seen)
    randomized = RandomizeIterator(loaded, components.randomizer, job_seed, seen)
    return PlanIterator(randomized, components.planner, job_seed, seen, plan_of)


def store_stages(
    components: Components,
    planned: Iterator[Episode],
    *,
    writers: int = 1,
    stored: Callable[[Episode], None] | None = None,
    seen: StageSeen = _nothing,
    waits: Callable[[], None] = _no_matter,
) -> StoreIterator:
    """Chain the iterators from planned episodes on. writers, stored, waits: see StoreIterator."""
    assert components.renderer is not None
    assert components.writer is not None
    rendered = RenderIterator(planned, components.renderer, seen)
    return StoreIterator(rendered, components.writer, writers, stored, seen, waits)


def run_stages(
    components: Components,
    requests: Iterable[EpisodeRequest],
    *,
    job_seed: int,
    scene_config: Callable[[str], SceneConfig],
    output: Path,
    context: Mapping[str, Any],
    writers: int = 1,
    stored: Callable[[Episode], None] | None = None,
    seen: StageSeen = _nothing,
) -> StoreIterator:
    """Chain all iterators, planning here. Every request comes out once; see `plan_stages` and `store_stages`."""
    planned = plan_stages(
        components, requests, job_seed=job_seed, scene_config=scene_config, output=output, context=context, seen=seen
    )
    return store_stages(components, planned, writers=writers, stored=stored, seen=seen)
