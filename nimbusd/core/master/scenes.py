"""The episodes of one scene: which are pending, what was tried, what is settled. No leases in here."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from nimbusd.core.ids import NodeId, Span, indexes_of
from nimbusd.core.master.facts import ScenePlan
from nimbusd.core.records import LostPiece, SceneCount, SceneHistory, State, Tried

_start = attrgetter("start")


@dataclass(slots=True)
class Pending:
    """The pending episodes of a job: their number, and the scenes that have some.

    held: episodes that are neither pending nor leased, since a late piece of them is being looked at.
    """

    episodes: int = 0
    held: int = 0
    scenes: dict[str, SceneEpisodes] = field(default_factory=dict)


class SceneEpisodes:
    """Pending episodes as spans, so that a scene of a million untried episodes costs as much as one of ten.

    `tried` knows unsettled episodes that were leased before, whether they are pending now or leased again.
    `given_up` knows whose attempt a pending one was, if it was given up under this master: only such an attempt may
    still be committed late, by its node, since what an earlier master refused is gone.
    `total` is kept true for the whole job.
    """

    def __init__(self, plan: ScenePlan, total: Pending, history: SceneHistory | None = None) -> None:
        past = history or SceneHistory()
        count = past.count
        self.plan = plan
        self._total = total
        self.count = SceneCount(count.committed, count.failed, count.quarantined, count.frames, count.size_bytes)
        self.tried: dict[int, Tried] = dict(past.tried)
        self.given_up: dict[int, tuple[int, NodeId]] = {}
        self.next_index = max([*(span.stop for span in past.settled), *(index + 1 for index in past.tried), 0])
        self._pending: list[Span] = []
        self._held: set[int] = set()
        self.pending_count = 0
        gap = 0
        for span in past.settled:
            self._add(Span(gap, span.start))
            gap = span.stop
        self._add(Span(gap, self.next_index))
        self.refill()

    def refill(self) -> None:
        """Open as many indexes as the plan asks for.

        Every failed plan adds the next index, so the set of indexes tried ends as the shortest run 0…M-1
        that holds `wanted` successes, whatever the order in which episodes settle.
        """
        goal = self.plan.wanted + (self.count.failed if self.plan.exact else 0)
        goal = min(goal, max(self.plan.most_tried, self.plan.wanted))
        self._add(Span(self.next_index, goal))
        self.next_index = max(self.next_index, goal)

    def take(self, most: int, most_spans: int = 64) -> tuple[Span, ...]:
        """Remove up to `most` pending episodes, lowest first, in at most `most_spans` spans."""
        taken: list[Span] = []
        while most and self._pending and len(taken) < most_spans:
            first = self._pending[0]
            span = Span(first.start, min(first.stop, first.start + most))
            if span == first:
                self._pending.pop(0)
            else:
                self._pending[0] = Span(span.stop, first.stop)
            taken.append(span)
            most -= span.size
            self._count(-span.size)
        return tuple(taken)

    def take_one(self, index: int) -> bool:
        """Remove one episode if it is pending."""
        if not self.is_pending(index):
            return False
        span = self._pending.pop(bisect_left(self._pending, index + 1, key=_start) - 1)
        self._count(-span.size)
        self._add(Span(span.start, index))
        self._add(Span(index + 1, span.stop))
        return True

    def put_back(self, index: int, given_up: tuple[int, NodeId] | None = None) -> None:
        """Make an episode pending that was taken. given_up: the attempt that it was taken for, and by whom."""
        assert 0 <= index < self.next_index
        if given_up is not None:
            self.given_up[index] = given_up
        self._add(Span(index, index + 1))

    def may_reclaim(self, index: int, attempt: int, node: NodeId) -> bool:
        """True where an episode is pending, or set aside, since this very attempt of that node was given up."""
        return self.given_up.get(index) == (attempt, node) and (index in self._held or self.is_pending(index))

    def reclaim(self, index: int, attempt: int, node: NodeId) -> bool:
        """Remove an episode that is pending, or held, since this very attempt of that node was given up."""
        if not self.may_reclaim(index, attempt, node):
            return False
        if index in self._held:
            self._held.discard(index)
            self._total.held -= 1
            return True
        return self.take_one(index)

    def hold(self, index: int, attempt: int, node: NodeId) -> None:
        """Lease an episode to nobody while the piece of an attempt that was given up is looked at."""
        if index not in self._held and self.may_reclaim(index, attempt, node) and self.take_one(index):
            self._held.add(index)
            self._total.held += 1

    def let_go(self, index: int) -> None:
        """Make an episode pending again that is held, if it is."""
        if index in self._held:
            self._held.discard(index)
            self._total.held -= 1
            self._add(Span(index, index + 1))

    def is_pending(self, index: int) -> bool:
        """True where an episode is open, and nobody has it."""
        at = bisect_left(self._pending, index + 1, key=_start) - 1
        return at >= 0 and self._pending[at].start <= index < self._pending[at].stop

    def open_up_to(self, index: int) -> None:
        """Open indexes that a recorded lease holds, if they are not open yet."""
        self._add(Span(self.next_index, index + 1))
        self.next_index = max(self.next_index, index + 1)

    def attempts_of(self, spans: Iterable[Span]) -> int:
        """The highest attempt known of any of these episodes."""
        if not self.tried:
            return 0
        return max(
            (self.tried[i].attempt for i in indexes_of(spans) if i in self.tried),
            default=0,
        )

    def any_lost(self, spans: Iterable[Span]) -> bool:
        """True where any of these episodes has cost an attempt before."""
        if not self.tried:
            return False
        return any(self.tried[i].losses for i in indexes_of(spans) if i in self.tried)

    def settle(self, index: int, state: State, frames: int = 0, size_bytes: int = 0) -> None:
        """Count an episode that is neither pending nor leased any more."""
        self.tried.pop(index, None)
        self.given_up.pop(index, None)
        if state is State.COMMITTED:
            self.count.committed += 1
            self.count.frames += frames
            self.count.size_bytes += size_bytes
        elif state is State.FAILED:
            self.count.failed += 1
        else:
            assert state is State.QUARANTINED
            self.count.quarantined += 1

    def unsettle(self, index: int, lost: LostPiece) -> None:
        """Make a committed episode pending again, and take it out of the count."""
        self.count.committed -= 1
        self.count.frames -= lost.frames
        self.count.size_bytes -= lost.size_bytes
        self.tried[index] = lost.tried
        self.put_back(index)

    def _add(self, span: Span) -> None:
        """Insert a span of taken episodes, merging it with its neighbours."""
        if span.stop <= span.start:
            return
        self._count(span.size)
        at = bisect_left(self._pending, span.start, key=_start)
        start, stop = span.start, span.stop
        if at < len(self._pending) and self._pending[at].start <= stop:
            assert self._pending[at].start == stop, "an episode was made pending twice"
            stop = self._pending.pop(at).stop
        if at and self._pending[at - 1].stop >= start:
            assert self._pending[at - 1].stop == start, "an episode was made pending twice"
            start = self._pending.pop(at - 1).start
        insort(self._pending, Span(start, stop), key=_start)

    def _count(self, change: int) -> None:
        self.pending_count += change
        self._total.episodes += change
        if self.pending_count:
            self._total.scenes[self.plan.name] = self
        else:
            self._total.scenes.pop(self.plan.name, None)
