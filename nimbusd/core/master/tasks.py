"""Jobs, their episodes and the leases on them, as a pure state machine. (The paper's TaskManager.)

A lease is a task: some episodes of one scene, held by one node under one fencing number. Memory is bounded by
what is open: settled episodes are counters here and rows in the ledger, untried ones are spans.

An episode may be in two leases at once (a straggler that is run again elsewhere); the first commit wins, and the
other copy is revoked.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from nimbusd.core.ids import Attempt, EpisodeKey, JobId, LeaseId, NodeId, Span, indexes_of
from nimbusd.core.master.alike import FirstFailures
from nimbusd.core.master.facts import CheckSettled, JobAdded, Order, OutputUnseen, PieceRefused, ReviewBegan
from nimbusd.core.master.open_jobs import FIRST_PAUSE_S, Doubt, JobTasks, OpenLease
from nimbusd.core.master.scenes import Pending, SceneEpisodes
from nimbusd.core.records import JobRecorded, JobState, LeaseClosed, LeaseOpened, LostPiece, Record, State, Tried
from nimbusd.core.words import counted
from nimbusd.transport.messages.failures import Failure, FailureKind
from nimbusd.transport.messages.node import Ack, Commit, Fail, GiveBack, Lease, Revoke, Stored

NODE_LOSSES_PER_ATTEMPT = 3
"""A lost node may be the network's doing: an episode may be at so many of them for each worker that it may cost."""
MOST_LIES = 3
"""Pieces that are not as their node said, after which it gets nothing more of that job."""
MOST_BLAMES = 5
"""A node that has blamed a job's storage so often, while others stored as many pieces there, gets no more of it."""
PAUSE_S = 30.0
"""A job whose storage takes nothing waits twice as long each time it waits in vain, up to this."""


class TaskManager:
    """All open jobs. `epoch` grows with every start of the master, so that lease ids never repeat."""

    def __init__(self, epoch: int = 1) -> None:
        self.jobs: dict[JobId, JobTasks] = {}
        self.leases: dict[LeaseId, OpenLease] = {}
        self._by_node: defaultdict[NodeId, dict[LeaseId, OpenLease]] = defaultdict(dict)
        self._next_lease = epoch << 40
        self._submitted = 0

    def held_by(self, node: NodeId) -> dict[LeaseId, OpenLease]:
        """The leases of a node."""
        return self._by_node.get(node, {})

    def open_episodes(self, node: NodeId) -> int:
        """Episodes that a node holds, or that are on their way to it."""
        return sum(len(lease.open) for lease in self.held_by(node).values())

    # --- jobs ---

    def add(self, fact: JobAdded, now: float) -> list[Order]:
        """Take a job on. One that is open already stays as it is."""
        plan = fact.plan
        if plan.job in self.jobs:
            return []
        pending = Pending()
        scenes = {scene.name: SceneEpisodes(scene, pending, fact.history.get(scene.name)) for scene in plan.scenes}
        self._submitted += 1
        job = JobTasks(
            plan,
            scenes,
            pending,
            fact.state,
            plan.environment,
            bool(plan.environment),
            self._submitted,
            FirstFailures(any(scene.count.committed for scene in scenes.values())),
            resume_at=now,
            packages=plan.packages,
        )
        self.jobs[plan.job] = job
        held: dict[tuple[str, int], OpenLease] = {}
        orders: list[Order] = []
        for opened in sorted(fact.open_leases, key=lambda lease: lease.lease):
            orders += self._restore(job, opened, held, now)
        return [*orders, *self.finish_if_done(job)]

    def forget_unfit(self, node: NodeId) -> None:
        """A node has been started anew: it may have got what it lacked."""
        for job in self.jobs.values():
            job.unfit.pop(node, None)

    def _restore(
        self, job: JobTasks, opened: LeaseOpened, held: dict[tuple[str, int], OpenLease], now: float
    ) -> list[Order]:
        """A lease that the ledger remembers: its node may still be at work on it. held: by leases before it."""
        lease = OpenLease(opened.lease, opened.job, opened.scene, opened.node, opened.attempt, set(), now)
        scene = job.scenes.get(opened.scene)
        for index in indexes_of(opened.spans):
            if scene is None or (index in scene.tried and scene.tried[index].attempt >= opened.attempt):
                continue  # it was given up since
            place = opened.scene, index
            scene.open_up_to(index)
            if place in held:
                job.copies[place] = [held[place], lease]
            elif scene.take_one(index):
                held[place] = lease
            else:
                continue  # it is settled
            lease.open.add(index)
        if not lease.open:
            return [LeaseClosed(lease.id)]
        self._open(job, lease)
        return []

    def cancel(self, name: JobId) -> list[Order]:
        """End a job at once; nodes are told to stop what they do for it."""
        job = self.jobs.get(name)
        return self._end(job, JobState.CANCELLED) if job is not None else []

    def set_down(self, name: JobId) -> list[Order]:
        """Let go of a job: its episodes are pending again, and nodes are told to stop what they do for it."""
        job = self.jobs.get(name)
        if job is None:
            return []
        orders: list[Order] = []
        for lease in list(job.leases.values()):
            orders.append(Revoke(lease.node, lease.id, tuple(sorted(lease.open)), kill=True))
            orders += [self._reopen(job, lease, index) for index in sorted(lease.open)]
            orders += self._close_if_empty(job, lease)
        del self.jobs[name]
        return orders

    def _end(self, job: JobTasks, state: JobState, why: str = "") -> list[Order]:
        """End a job whatever is open: that stays pending in the ledger."""
        return [*self.set_down(job.plan.job), JobRecorded(job.plan.job, state, why)]

    def release(self, name: JobId, scene: str, index: int, tried: Tried) -> None:
        """A quarantined episode of an open job gets another chance."""
        job = self.jobs.get(name)
        if job is None or scene not in job.scenes:
            return
        episodes = job.scenes[scene]
        episodes.count.quarantined -= 1
        episodes.tried[index] = tried
        episodes.put_back(index)

    def lose_piece(self, name: JobId, scene: str, index: int, lost: LostPiece) -> None:
        """A committed episode of an open job is to be made again."""
        job = self.jobs.get(name)
        if job is not None and scene in job.scenes:
            job.scenes[scene].unsettle(index, lost)

    def finish_if_done(self, job: JobTasks) -> list[Order]:
        """End the job if nothing is open any more."""
        if job.leases or job.pending.episodes or job.pending.held:
            return []
        counts = [scene.count for scene in job.scenes.values()]
        short = 0
        for scene in job.scenes.values():
            wanted = scene.plan.wanted if scene.plan.exact else scene.plan.wanted - scene.count.failed
            short += max(0, wanted - scene.count.committed)
        del self.jobs[job.plan.job]
        if not short:
            return [JobRecorded(job.plan.job, JobState.COMPLETE)]
        failed, quarantined = sum(c.failed for c in counts), sum(c.quarantined for c in counts)
        why = f"{counted(short, 'episode')} missing: {failed} could not be planned, {quarantined} quarantined"
        return [JobRecorded(job.plan.job, JobState.INCOMPLETE, why)]

    # --- leases ---

    def grant(self, job: JobTasks, scene: str, node: NodeId, spans: tuple[Span, ...], now: float) -> list[Order]:
        """Lease episodes that `SceneEpisodes.take` took to a node."""
        attempt = max(job.plan.first_attempt, 1 + job.scenes[scene].attempts_of(spans))
        indexes = set(indexes_of(spans))
        return self._lease(job, OpenLease(self._new_id(), job.plan.job, scene, node, attempt, indexes, now), spans)

    def copy(self, lease: OpenLease, index: int, node: NodeId, now: float) -> list[Order]:
        """Lease an episode of a lease to a second node as well."""
        job = self.jobs[lease.job]
        span = Span(index, index + 1)
        attempt = 1 + max(lease.attempt, job.scenes[lease.scene].attempts_of([span]))
        copy = OpenLease(self._new_id(), lease.job, lease.scene, node, attempt, {index}, now)
        job.copies[lease.scene, index] = [lease, copy]
        return self._lease(job, copy, (span,))

    def _new_id(self) -> LeaseId:
        self._next_lease += 1
        return LeaseId(self._next_lease)

    def _lease(self, job: JobTasks, lease: OpenLease, spans: tuple[Span, ...]) -> list[Order]:
        self._open(job, lease)
        scene = job.scenes[lease.scene]
        careful = scene.any_lost(spans)
        return [
            LeaseOpened(lease.id, lease.job, lease.scene, lease.attempt, lease.node, spans),
            Lease(lease.node, lease.id, lease.job, lease.scene, lease.attempt, spans, scene.plan.entry, careful),
        ]

    def _open(self, job: JobTasks, lease: OpenLease) -> None:
        self.leases[lease.id] = job.leases[lease.id] = self._by_node[lease.node][lease.id] = lease
        job.nodes.change(lease.node, 1)
        job.holders.change(lease.scene, 1)

    def _close_if_empty(self, job: JobTasks, lease: OpenLease) -> list[Order]:
        if lease.open:
            return []
        del self.leases[lease.id], job.leases[lease.id], self._by_node[lease.node][lease.id]
        if not self._by_node[lease.node]:
            del self._by_node[lease.node]
        job.nodes.change(lease.node, -1)
        job.holders.change(lease.scene, -1)
        return [LeaseClosed(lease.id)]

    # --- what becomes of episodes ---

    def stored(self, fact: Commit) -> list[Order]:
        """Commit pieces: those of a live attempt, and late ones that nobody else has been leased since."""
        lease = self._live(fact.lease, fact.node, fact.job, fact.scene, fact.attempt)
        job = self.jobs.get(fact.job)
        orders: list[Order] = []
        settled: list[int] = []
        for piece in fact.stored:
            if lease is not None and job is not None and piece.index in lease.open:
                lease.drop(piece.index)
            elif (
                job is None
                or fact.scene not in job.scenes
                or self.distrusts(job, fact.node)
                or not job.scenes[fact.scene].reclaim(piece.index, fact.attempt, fact.node)
            ):
                orders += self.late(dataclasses.replace(fact, stored=(piece,)))
                continue
            orders += self._commit(job, fact, piece, lease)
            settled.append(piece.index)
        if settled:
            orders.append(Ack(fact.node, fact.lease, tuple(settled)))
        if job is not None and settled and not job.is_bound:
            job.is_bound = True
            orders.append(JobRecorded(job.plan.job, job.state, job.why, job.environment, job.packages))
        if job is not None and settled:
            job.pause_s = FIRST_PAUSE_S
            orders += self._close_if_empty(job, lease) if lease is not None else []
            orders += self.finish_if_done(job)
        return orders

    @staticmethod
    def late(fact: Commit) -> list[Order]:
        """Have it looked up what became of the episodes of pieces that nothing waits for."""
        return [
            CheckSettled(
                fact.node,
                Attempt(EpisodeKey(fact.job, fact.scene, piece.index), fact.attempt, fact.lease),
                piece.folder,
            )
            for piece in fact.stored
        ]

    def committable(self, fact: Commit) -> frozenset[int]:
        """Indexes of the pieces that `stored` would commit now."""
        job = self.jobs.get(fact.job)
        if job is None or fact.scene not in job.scenes:
            return frozenset()
        lease = self._live(fact.lease, fact.node, fact.job, fact.scene, fact.attempt)
        scene, distrusted = job.scenes[fact.scene], self.distrusts(job, fact.node)
        return frozenset(
            piece.index
            for piece in fact.stored
            if (lease is not None and piece.index in lease.open)
            or (not distrusted and scene.may_reclaim(piece.index, fact.attempt, fact.node))
        )

    def hold(self, fact: ReviewBegan) -> None:
        """Lease to nobody what was given up, and of which a piece has come all the same, until that was looked at."""
        lease = self._live(fact.lease, fact.node, fact.job, fact.scene, fact.attempt)
        if lease is not None:
            lease.in_review.update(fact.indexes)
        job = self.jobs.get(fact.job)
        if job is not None and fact.scene in job.scenes:
            for index in fact.indexes:
                job.scenes[fact.scene].hold(index, fact.attempt, fact.node)

    def let_go(self, key: EpisodeKey) -> None:
        """An episode that was held is pending again."""
        job = self.jobs.get(key.job)
        for lease in job.leases.values() if job is not None else ():
            if lease.scene == key.scene:
                lease.in_review.discard(key.index)
        if job is not None and key.scene in job.scenes:
            job.scenes[key.scene].let_go(key.index)

    @staticmethod
    def distrusts(job: JobTasks, node: NodeId) -> bool:
        """True where a node has told of so many false pieces that nothing is taken from it any more."""
        return node in job.doubts and job.doubts[node].lies >= MOST_LIES

    def refuse(self, fact: PieceRefused) -> list[Order]:
        """A piece is not as its node said. It is made again, and not charged: who lied is to blame, not the episode."""
        key = fact.attempt.key
        job, index = self.jobs.get(key.job), key.index
        orders: list[Order] = [Ack(fact.node, fact.attempt.lease, (), (index,))]
        lease = self._live_attempt(fact.attempt, fact.node)
        if job is None or key.scene not in job.scenes:
            return orders
        job.doubts.setdefault(fact.node, Doubt()).lies += 1
        if lease is not None and index in lease.open:
            failure = Failure("store", "bad_piece", fact.why)
            record = dataclasses.replace(self._reopen(job, lease, index), node=fact.node, failure=failure)
            orders = [record, *orders, *self._close_if_empty(job, lease)]
            job.left.add(lease.scene)
        job.scenes[key.scene].let_go(index)
        job.scenes[key.scene].given_up.pop(index, None)
        return orders

    def unseen(self, fact: OutputUnseen, now: float) -> list[Order]:
        """A job whose output cannot be seen takes nothing: it waits, as one whose storage is full."""
        job = self.jobs.get(fact.job)
        return self._pause(job, fact.why, now) if job is not None else []

    def _live(self, lease_id: LeaseId, node: NodeId, job: JobId, scene: str, attempt: int) -> OpenLease | None:
        lease = self.leases.get(lease_id)
        told = node, job, scene, attempt
        return lease if lease and (lease.node, lease.job, lease.scene, lease.attempt) == told else None

    def _live_attempt(self, attempt: Attempt, node: NodeId) -> OpenLease | None:
        key = attempt.key
        return self._live(attempt.lease, node, key.job, key.scene, attempt.number)

    def _commit(self, job: JobTasks, fact: Commit, piece: Stored, lease: OpenLease | None) -> list[Order]:
        scene = job.scenes[fact.scene]
        losses = scene.tried[piece.index].losses if piece.index in scene.tried else 0
        scene.settle(piece.index, State.COMMITTED, piece.frames, piece.size_bytes)
        for node, doubt in job.doubts.items():
            if node == fact.node:
                doubt.blamed = doubt.stored_elsewhere = 0
            else:
                doubt.stored_elsewhere += 1
        job.first_failures.succeeded()
        key = EpisodeKey(fact.job, fact.scene, piece.index)
        record = Record(key, State.COMMITTED, fact.attempt, losses, fact.node, piece)
        return [record, *self._drop_copies(job, fact.scene, piece.index, lease)]

    def _drop_copies(self, job: JobTasks, scene: str, index: int, winner: OpenLease | None) -> list[Order]:
        """An episode is settled: whoever else is at it may stop."""
        orders: list[Order] = []
        for lease in job.copies.pop((scene, index), ()):
            if lease is not winner and index in lease.open:
                lease.drop(index)
                orders.append(Revoke(lease.node, lease.id, (index,), kill=True))
                orders += self._close_if_empty(job, lease)
        job.node_losses.pop((scene, index), None)
        return orders

    def failed(self, fact: Fail, now: float) -> list[Order]:
        """An attempt came to nothing; stale ones are acknowledged and forgotten."""
        index, failure = fact.attempt.key.index, fact.failure
        acknowledge = Ack(fact.node, fact.attempt.lease, (index,))
        lease = self._live_attempt(fact.attempt, fact.node)
        if lease is None or index not in lease.open:
            return [acknowledge]
        job = self.jobs[lease.job]
        orders: list[Order] = []
        why: str | None = None
        if failure.kind is not FailureKind.BLAMELESS:
            why = job.first_failures.failed(fact.attempt.key, failure, job.pending.scenes, job.holders)
        if failure.kind is FailureKind.BLAMELESS:
            orders.append(self._reopen(job, lease, index))
            job.doubts.setdefault(fact.node, Doubt()).blamed += 1
            if not self.blames_alone(job, fact.node):
                orders += self._pause(job, failure.detail, now)
        elif failure.kind is FailureKind.PLANNING:
            lease.drop(index)
            losses = self._losses(job, lease.scene, index)
            attempt = self._highest_attempt(job, lease, index)
            job.scenes[lease.scene].settle(index, State.FAILED)
            orders.append(_record(fact, State.FAILED, attempt, losses))
            orders += self._drop_copies(job, lease.scene, index, lease)
            job.scenes[lease.scene].refill()
        else:
            orders += self._count_loss(job, lease, fact, last=why is not None)
        orders += [acknowledge, *self._close_if_empty(job, lease), *self.finish_if_done(job)]
        if why is not None and job.plan.job in self.jobs:
            orders += self._end(job, JobState.INCOMPLETE, why)
        return orders

    @staticmethod
    def blames_alone(job: JobTasks, node: NodeId) -> bool:
        """True where a node blames the storage again and again while others store there."""
        doubt = job.doubts.get(node)
        return doubt is not None and min(doubt.blamed, doubt.stored_elsewhere) >= MOST_BLAMES

    def _count_loss(self, job: JobTasks, lease: OpenLease, fact: Fail, last: bool) -> list[Order]:
        """An episode has cost a worker or an attempt. last: it is not tried again, for its evidence to be seen."""
        scene, index = job.scenes[lease.scene], fact.attempt.key.index
        losses = self._losses(job, lease.scene, index) + 1
        attempt = self._highest_attempt(job, lease, index)
        if fact.failure.kind is FailureKind.FINAL or last or losses >= job.plan.attempts:
            lease.drop(index)
            scene.settle(index, State.QUARANTINED)
            record = _record(fact, State.QUARANTINED, attempt, losses)
            return [record, *self._drop_copies(job, lease.scene, index, lease)]
        self._reopen(job, lease, index)
        attempt = scene.tried[index].attempt
        scene.tried[index] = Tried(attempt, losses)
        return [_record(fact, State.PENDING, attempt, losses)]

    @staticmethod
    def _highest_attempt(job: JobTasks, lease: OpenLease, index: int) -> int:
        """The highest number that an episode of this lease was ever leased under."""
        tried = job.scenes[lease.scene].tried.get(index)
        copies = job.copies.get((lease.scene, index), ())
        return max(lease.attempt, tried.attempt if tried else 0, *(copy.attempt for copy in copies))

    @staticmethod
    def _losses(job: JobTasks, scene: str, index: int) -> int:
        tried = job.scenes[scene].tried.get(index)
        return tried.losses if tried is not None else 0

    def _reopen(self, job: JobTasks, lease: OpenLease, index: int) -> Record:
        """Take an episode from a lease; it is pending again unless another lease has it, too."""
        scene = job.scenes[lease.scene]
        lease.drop(index)
        before = scene.tried.get(index, Tried(0, 0))
        tried = scene.tried[index] = Tried(max(before.attempt, lease.attempt), before.losses)
        others = [copy for copy in job.copies.pop((lease.scene, index), ()) if copy is not lease and index in copy.open]
        if not others:
            scene.put_back(index, given_up=(lease.attempt, lease.node))
        return Record(EpisodeKey(lease.job, lease.scene, index), State.PENDING, tried.attempt, tried.losses)

    def returned(self, fact: GiveBack) -> list[Order]:
        """Episodes that a node has not begun, and gives back."""
        lease = self.leases.get(fact.lease)
        orders: list[Order] = [Ack(fact.node, fact.lease, fact.indexes)]
        if lease is None or lease.node != fact.node:
            return orders
        job = self.jobs[lease.job]
        orders += [self._reopen(job, lease, index) for index in fact.indexes if index in lease.open]
        orders += self._close_if_empty(job, lease)
        job.left.add(lease.scene)
        return orders

    def lost(self, node: NodeId, running: Iterable[tuple[LeaseId, int]], why: str) -> tuple[list[Order], int]:
        """A node is gone: all that it holds is pending again. Returns the orders, and how many episodes."""
        orders: list[Order] = []
        at_work = set(running)
        returned = 0
        for lease in list(self.held_by(node).values()):
            returned += len(lease.open)
            orders += self.give_up(lease, at_work, why)
        return orders, returned

    def give_up(self, lease: OpenLease, at_work: set[tuple[LeaseId, int]], why: str) -> list[Order]:
        """Reopen a lease's episodes. One that was begun on many nodes that were lost is set aside."""
        job = self.jobs[lease.job]
        orders: list[Order] = []
        for index in sorted(lease.open):
            place = (lease.scene, index)
            job.node_losses[place] += (lease.id, index) in at_work
            if job.node_losses[place] >= NODE_LOSSES_PER_ATTEMPT * job.plan.attempts:
                lease.drop(index)
                losses = self._losses(job, *place)
                attempt = self._highest_attempt(job, lease, index)
                job.scenes[lease.scene].settle(index, State.QUARANTINED)
                key = EpisodeKey(lease.job, *place)
                detail = f"{counted(job.node_losses[place], 'node')} lost while at it; the last one {why}"
                failure = Failure("node", "node_lost", detail)
                orders.append(Record(key, State.QUARANTINED, attempt, losses, lease.node, failure=failure))
                orders += self._drop_copies(job, lease.scene, index, lease)
            else:
                orders.append(self._reopen(job, lease, index))
        job.node_losses += Counter()  # drops the zeros
        orders += self._close_if_empty(job, lease)
        job.left.add(lease.scene)
        return [*orders, *self.finish_if_done(job)]

    # --- pauses ---

    def _pause(self, job: JobTasks, why: str, now: float) -> list[Order]:
        if job.state is JobState.PAUSED:
            job.resume_at = max(job.resume_at, now + FIRST_PAUSE_S)  # its other slots find out, one by one
            return []
        job.resume_at = now + job.pause_s
        job.pause_s = min(2 * job.pause_s, PAUSE_S)
        job.state, job.why = JobState.PAUSED, why
        return [JobRecorded(job.plan.job, JobState.PAUSED, why)]

    def output_lost(self, name: JobId, why: str) -> list[Order]:
        """A job's output is gone: it waits until `output_back`."""
        job = self.jobs.get(name)
        if job is None:
            return []
        job.resume_at = math.inf
        job.state, job.why = JobState.PAUSED, why
        return [JobRecorded(name, JobState.PAUSED, why)]

    def output_back(self, name: JobId, now: float) -> None:
        """A job's output is as it was: it goes on."""
        if (job := self.jobs.get(name)) is not None:
            job.resume_at = now

    def resume_paused(self, now: float) -> list[Order]:
        """Let paused jobs try again when their pause is over."""
        orders: list[Order] = []
        for job in self.jobs.values():
            if job.state is JobState.PAUSED and now >= job.resume_at:
                job.state, job.why = JobState.RUNNING, ""
                orders.append(JobRecorded(job.plan.job, JobState.RUNNING))
        return orders

    def __iter__(self) -> Iterator[JobTasks]:
        return iter(self.jobs.values())

    def sizes(self) -> dict[str, int]:
        """Numbers of things that are remembered, by kind."""
        return {"jobs": len(self.jobs), "leases": len(self.leases), "holders": len(self._by_node)}


def _record(fact: Fail, state: State, attempt: int, losses: int) -> Record:
    return Record(fact.attempt.key, state, attempt, losses, fact.node, failure=fact.failure)
