"""Episodes and their leases, as a pure state machine: facts in, orders out, no input or output.

An episode is `pending → leased(attempt) → committed | failed(reason) | quarantined`. The caller makes the
`Record` orders durable before it carries out the other orders of the same batch, so that nothing is ever
acknowledged, or leased, that a crash could forget.

Memory is bounded by open episodes: settled ones are counters here and rows in the ledger.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nimbusd.core.episodes import (
    Attempt,
    AttemptFailed,
    CheckSettled,
    CreditOffered,
    DrainAsked,
    EpisodeKey,
    Fact,
    FinishJob,
    GrantLease,
    LeasesReturned,
    Order,
    PieceStored,
    Record,
    SceneCount,
    SceneHistory,
    ScenePlan,
    State,
    WorkerId,
    WorkerLost,
    WorkStarted,
)


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
    pending: list[int] = field(default_factory=list)
    """A heap of the indexes that nobody holds."""

    def refill(self) -> None:
        """Open as many indexes as the plan asks for.

        Every failed plan adds the next index, so the set of indexes tried ends as the shortest run 0…M-1
        that holds `wanted` successes, whatever the order in which episodes settle.
        """
        goal = self.plan.wanted + (self.count.failed if self.plan.exact else 0)
        goal = min(goal, max(self.plan.most_tried, self.plan.wanted))
        while self.next_index < goal:
            self.episodes[self.next_index] = _Episode()
            heapq.heappush(self.pending, self.next_index)
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
            scene = _Scene(plan, count, episodes, past.next_index, list(episodes))
            scene.refill()
            self._scenes[plan.name] = scene
        self._leases: dict[WorkerId, dict[EpisodeKey, _Episode]] = {}
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
        """What a worker holds, oldest lease first."""
        return [Attempt(key, episode.attempt) for key, episode in self._leases.get(worker, {}).items()]

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
        episode = self._leases.get(worker, {}).get(attempt.key)
        return episode if episode is not None and episode.attempt == attempt.number else None

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
            episode = self._leases[fact.worker][attempt.key]
            if episode.started:
                blame = AttemptFailed(fact.worker, attempt, "worker", fact.reason, fact.detail, fact.evidence)
                orders.append(self._count_loss(attempt.key, episode, blame))
            else:
                orders.append(self._reopen(attempt.key, episode))
        self._leases.pop(fact.worker, None)
        return orders

    def _count_loss(self, key: EpisodeKey, episode: _Episode, blame: AttemptFailed, final: bool = False) -> Record:
        episode.losses += 1
        state = State.QUARANTINED if final or episode.losses >= self._attempts else State.PENDING
        if state is State.QUARANTINED:
            self._settle(key, state)
        else:
            self._release(key, episode)
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
        self._release(key, episode)
        return Record(key, State.PENDING, episode.attempt, episode.losses)

    def _release(self, key: EpisodeKey, episode: _Episode) -> None:
        """Take an episode from its worker and make it pending."""
        assert episode.worker is not None
        del self._leases[episode.worker][key]
        episode.worker, episode.started = None, False
        heapq.heappush(self._scenes[key.scene].pending, key.index)

    def _settle(self, key: EpisodeKey, state: State) -> None:
        scene = self._scenes[key.scene]
        episode = scene.episodes.pop(key.index)
        assert episode.worker is not None
        del self._leases[episode.worker][key]
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
        pending = sum(len(scene.pending) for scene in self._scenes.values())
        while not self._draining and (worker := self._next_worker(pending)) is not None:
            name = self._choose_scene(worker)
            scene = self._scenes[name]
            key = EpisodeKey(name, heapq.heappop(scene.pending))
            pending -= 1
            episode = scene.episodes[key.index]
            episode.attempt += 1
            episode.worker = worker
            self._leases.setdefault(worker, {})[key] = episode
            self._credit[worker] -= 1
            self._last_scene[worker] = name
            orders.append(Record(key, State.LEASED, episode.attempt, episode.losses, worker=worker))
            orders.append(GrantLease(worker, Attempt(key, episode.attempt)))
        return orders

    def _next_worker(self, pending: int) -> WorkerId | None:
        """Who gets the next lease: who holds least. Leases ahead of need only while plenty is pending."""
        held = {w: len(self._leases.get(w, {})) for w, credit in self._credit.items() if credit > 0}
        if not held or not pending:
            return None
        worker = min(held, key=lambda w: (held[w], w))
        if held[worker] and pending <= len(self._credit):
            return None  # the last episodes go to whoever is free first, not into a queue behind another
        return worker

    def _choose_scene(self, worker: WorkerId) -> str:
        """The scene the worker has loaded, else one nobody works on, else the one with most to do."""
        last = self._last_scene.get(worker)
        if last is not None and self._scenes[last].pending:
            return last
        taken = set(self._last_scene.values())
        waiting = [name for name, scene in self._scenes.items() if scene.pending]
        return min(waiting, key=lambda name: (name in taken, -len(self._scenes[name].pending)))

    def _finish_if_done(self) -> list[Order]:
        if self._finished or any(scene.episodes for scene in self._scenes.values()):
            return []
        self._finished = True
        return [FinishJob()]
