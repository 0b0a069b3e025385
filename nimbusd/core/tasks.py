"""Episodes and their leases, as a pure state machine: facts in, orders out, no input or output.

An episode is `pending → leased(attempt) → committed | failed(reason) | quarantined`. The caller makes the
`Record` orders durable before it carries out the other orders of the same batch, so that nothing is ever
acknowledged, or leased, that a crash could forget.

Memory is bounded by open episodes: settled ones are counters here and rows in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NewType, TypeAlias

WorkerId = NewType("WorkerId", str)


class State(Enum):
    """Where an episode stands. PENDING and LEASED are open, the others settled."""

    PENDING = "pending"
    LEASED = "leased"
    COMMITTED = "committed"
    FAILED = "failed"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class EpisodeKey:
    """An episode of the job: a scene and an index in it."""

    scene: str
    index: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """A lease's identity: an episode and the fencing number of the attempt."""

    key: EpisodeKey
    number: int


# --- facts ---


@dataclass(frozen=True, slots=True)
class CreditOffered:
    """A worker can take `credit` more leases."""

    worker: WorkerId
    credit: int


@dataclass(frozen=True, slots=True)
class WorkStarted:
    """A worker has begun an attempt; losing the worker now counts against the episode.

    A worker says so before it does anything that could hang or crash.
    """

    worker: WorkerId
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class PieceStored:
    """A worker made a piece durable. folder, frames, size_bytes, digest: what the ledger keeps of it."""

    worker: WorkerId
    attempt: Attempt
    folder: str
    frames: int
    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """An attempt came to nothing without killing its worker.

    planned: a planning result, final. final: pointless to try again (a broken asset).
    blameless: not the episode's doing (a full disk), so it stays pending and is not counted.
    """

    worker: WorkerId
    attempt: Attempt
    stage: str
    reason: str
    detail: str
    evidence: str = ""
    planned: bool = False
    final: bool = False
    blameless: bool = False


@dataclass(frozen=True, slots=True)
class LeasesReturned:
    """A worker gives back attempts that it has not started."""

    worker: WorkerId
    attempts: tuple[Attempt, ...]


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker died, was killed or left. evidence: stderr or a stack."""

    worker: WorkerId
    reason: str
    detail: str
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class DrainAsked:
    """Lease nothing more."""


Fact: TypeAlias = CreditOffered | WorkStarted | PieceStored | AttemptFailed | LeasesReturned | WorkerLost | DrainAsked

# --- orders ---


@dataclass(frozen=True, slots=True)
class Record:
    """Make this the ledger's row of the episode, before carrying out any other order of the batch."""

    key: EpisodeKey
    state: State
    attempt: int
    losses: int
    worker: str = ""
    stage: str = ""
    reason: str = ""
    detail: str = ""
    evidence: str = ""
    folder: str = ""
    frames: int = 0
    size_bytes: int = 0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class GrantLease:
    """Send the lease to the worker."""

    worker: WorkerId
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class CheckSettled:
    """A piece of an attempt that holds no lease: garbage, unless the ledger says it is the committed one."""

    attempt: Attempt
    folder: str


@dataclass(frozen=True, slots=True)
class FinishJob:
    """Nothing is open and nothing will be."""


Order: TypeAlias = Record | GrantLease | CheckSettled | FinishJob


@dataclass(frozen=True, slots=True)
class ScenePlan:
    """What a job wants of a scene.

    wanted: episodes. exact: refill failed plans from the next indexes, up to `most_tried` indexes in all.
    """

    name: str
    wanted: int
    exact: bool
    most_tried: int


@dataclass(slots=True)
class SceneCount:
    """Settled episodes of a scene. The counters never depend on the order of events."""

    committed: int = 0
    failed: int = 0
    quarantined: int = 0


@dataclass(frozen=True, slots=True)
class OpenEpisode:
    """An open episode as the ledger knows it, for a restart."""

    attempt: int
    losses: int


@dataclass(frozen=True, slots=True)
class SceneHistory:
    """What the ledger knows of a scene: settled counts, open episodes, and the first index never recorded."""

    count: SceneCount = field(default_factory=SceneCount)
    open: Mapping[int, OpenEpisode] = field(default_factory=dict)
    next_index: int = 0


@dataclass(slots=True)
class _Episode:
    attempt: int = 0
    losses: int = 0
    worker: WorkerId | None = None
    started: bool = False


@dataclass(slots=True)
class _Scene:
    plan: ScenePlan
    count: SceneCount
    episodes: dict[int, _Episode]
    next_index: int

    def pending(self) -> list[int]:
        return [index for index, episode in self.episodes.items() if episode.worker is None]

    def refill(self) -> None:
        """Open as many indexes as the plan asks for.

        Every failed plan adds the next index, so the set of indexes tried ends as the shortest run 0…M-1
        that holds `wanted` successes, whatever the order in which episodes settle.
        """
        goal = self.plan.wanted + (self.count.failed if self.plan.exact else 0)
        goal = min(goal, max(self.plan.most_tried, self.plan.wanted))
        while self.next_index < goal:
            self.episodes[self.next_index] = _Episode()
            self.next_index += 1


class TaskTable:
    """All episodes of a job. `attempts`: worker losses or errors after which an episode is quarantined."""

    def __init__(
        self, plans: Iterable[ScenePlan], attempts: int = 3, history: Mapping[str, SceneHistory] | None = None
    ) -> None:
        self._attempts = attempts
        self._scenes: dict[str, _Scene] = {}
        for plan in plans:
            past = (history or {}).get(plan.name, SceneHistory())
            episodes = {index: _Episode(e.attempt, e.losses) for index, e in sorted(past.open.items())}
            count = SceneCount(past.count.committed, past.count.failed, past.count.quarantined)
            scene = _Scene(plan, count, episodes, past.next_index)
            scene.refill()
            self._scenes[plan.name] = scene
        self._credit: dict[WorkerId, int] = {}
        self._last_scene: dict[WorkerId, str] = {}
        self._draining = False
        self._finished = False

    # --- what the caller may ask ---

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def finished(self) -> bool:
        return self._finished

    @property
    def counts(self) -> Mapping[str, SceneCount]:
        """Settled episodes by scene."""
        return {name: scene.count for name, scene in self._scenes.items()}

    def open_episodes(self) -> int:
        return sum(len(scene.episodes) for scene in self._scenes.values())

    def leased_to(self, worker: WorkerId) -> list[Attempt]:
        """What a worker holds, oldest index first."""
        return [
            Attempt(EpisodeKey(name, index), episode.attempt)
            for name, scene in self._scenes.items()
            for index, episode in scene.episodes.items()
            if episode.worker == worker
        ]

    def start(self) -> list[Order]:
        """Call once before the first fact: a job that a restart finds complete finishes at once."""
        return self._finish_if_done()

    # --- facts ---

    def handle(self, fact: Fact) -> list[Order]:
        """Take in a fact; returns the orders it leads to. Stale and repeated facts are harmless."""
        orders: list[Order] = []
        match fact:
            case CreditOffered(worker, credit):
                self._credit[worker] = self._credit.get(worker, 0) + credit
            case WorkStarted(worker, attempt):
                if (episode := self._held(worker, attempt)) is not None:
                    episode.started = True
            case PieceStored():
                orders += self._piece_stored(fact)
            case AttemptFailed():
                orders += self._attempt_failed(fact)
            case LeasesReturned(worker, attempts):
                for attempt in attempts:
                    if (episode := self._held(worker, attempt)) is not None:
                        orders.append(self._reopen(attempt.key, episode))
            case WorkerLost():
                orders += self._worker_lost(fact)
            case DrainAsked():
                self._draining = True
        return orders + self._grant() + self._finish_if_done()

    def _held(self, worker: WorkerId, attempt: Attempt) -> _Episode | None:
        """The episode if `worker` holds exactly this attempt at it; None for anything stale."""
        scene = self._scenes.get(attempt.key.scene)
        episode = scene.episodes.get(attempt.key.index) if scene else None
        if episode is None or episode.worker != worker or episode.attempt != attempt.number:
            return None
        return episode

    def _piece_stored(self, fact: PieceStored) -> list[Order]:
        episode = self._held(fact.worker, fact.attempt)
        if episode is None:
            return [CheckSettled(fact.attempt, fact.folder)]
        key = fact.attempt.key
        self._settle(key, State.COMMITTED)
        return [
            Record(
                key,
                State.COMMITTED,
                episode.attempt,
                episode.losses,
                worker=fact.worker,
                folder=fact.folder,
                frames=fact.frames,
                size_bytes=fact.size_bytes,
                digest=fact.digest,
            )
        ]

    def _attempt_failed(self, fact: AttemptFailed) -> list[Order]:
        episode = self._held(fact.worker, fact.attempt)
        if episode is None:
            return []
        key = fact.attempt.key
        if fact.blameless:
            return [self._reopen(key, episode)]
        if not fact.planned:
            return [self._count_loss(key, episode, fact, final=fact.final)]
        self._settle(key, State.FAILED)
        return [
            Record(
                key,
                State.FAILED,
                episode.attempt,
                episode.losses,
                worker=fact.worker,
                stage=fact.stage,
                reason=fact.reason,
                detail=fact.detail,
            )
        ]

    def _worker_lost(self, fact: WorkerLost) -> list[Order]:
        self._credit.pop(fact.worker, None)
        self._last_scene.pop(fact.worker, None)
        orders: list[Order] = []
        for attempt in self.leased_to(fact.worker):
            episode = self._scenes[attempt.key.scene].episodes[attempt.key.index]
            if episode.started:
                blame = AttemptFailed(fact.worker, attempt, "worker", fact.reason, fact.detail, fact.evidence)
                orders.append(self._count_loss(attempt.key, episode, blame))
            else:
                orders.append(self._reopen(attempt.key, episode))
        return orders

    def _count_loss(self, key: EpisodeKey, episode: _Episode, blame: AttemptFailed, final: bool = False) -> Record:
        episode.losses += 1
        state = State.QUARANTINED if final or episode.losses >= self._attempts else State.PENDING
        if state is State.QUARANTINED:
            self._settle(key, state)
        else:
            episode.worker, episode.started = None, False
        return Record(
            key,
            state,
            episode.attempt,
            episode.losses,
            worker=blame.worker,
            stage=blame.stage,
            reason=blame.reason,
            detail=blame.detail,
            evidence=blame.evidence,
        )

    def _reopen(self, key: EpisodeKey, episode: _Episode) -> Record:
        episode.worker, episode.started = None, False
        return Record(key, State.PENDING, episode.attempt, episode.losses)

    def _settle(self, key: EpisodeKey, state: State) -> None:
        scene = self._scenes[key.scene]
        del scene.episodes[key.index]
        if state is State.COMMITTED:
            scene.count.committed += 1
        elif state is State.FAILED:
            scene.count.failed += 1
        else:
            scene.count.quarantined += 1
        scene.refill()

    # --- leasing ---

    def _grant(self) -> list[Order]:
        """Lease pending episodes to workers with credit, one round at a time so that all get a first one."""
        orders: list[Order] = []
        while not self._draining:
            pending = {name: scene.pending() for name, scene in self._scenes.items()}
            pending = {name: indexes for name, indexes in pending.items() if indexes}
            worker = self._next_worker(sum(len(indexes) for indexes in pending.values()))
            if worker is None:
                break
            name = self._choose_scene(worker, pending)
            scene = self._scenes[name]
            index = pending[name][0]
            episode = scene.episodes[index]
            episode.attempt += 1
            episode.worker = worker
            self._credit[worker] -= 1
            self._last_scene[worker] = name
            key = EpisodeKey(name, index)
            orders.append(Record(key, State.LEASED, episode.attempt, episode.losses, worker=worker))
            orders.append(GrantLease(worker, Attempt(key, episode.attempt)))
        return orders

    def _next_worker(self, pending: int) -> WorkerId | None:
        """Who gets the next lease: who holds least. Leases ahead of need only while plenty is pending."""
        held = {worker: len(self.leased_to(worker)) for worker, credit in self._credit.items() if credit > 0}
        if not held or not pending:
            return None
        worker = min(held, key=lambda w: (held[w], w))
        if held[worker] and pending <= len(self._credit):
            return None  # the last episodes go to whoever is free first, not into a queue behind another
        return worker

    def _choose_scene(self, worker: WorkerId, pending: Mapping[str, list[int]]) -> str:
        """The scene the worker has loaded, else one nobody works on, else the one with most to do."""
        last = self._last_scene.get(worker)
        if last is not None and last in pending:
            return last
        taken = set(self._last_scene.values())
        return min(pending, key=lambda name: (name in taken, -len(pending[name])))

    def _finish_if_done(self) -> list[Order]:
        if self._finished or any(scene.episodes for scene in self._scenes.values()):
            return []
        self._finished = True
        return [FinishJob()]
