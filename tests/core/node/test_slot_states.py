"""The table of a slot's states: whatever facts come, no illegal move is made, and no row of the table is idle."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nimbusd.core.ids import JobId, WorkerId, slot_of, worker_of
from nimbusd.core.node import pool
from nimbusd.core.node import pool_facts as p
from nimbusd.core.node.facts import RecallWorker, StopWorker
from nimbusd.core.node.slot_states import ALWAYS_IN_TURN, AT_WORK, MOVES, OPEN, SlotEvent, SlotState, next_state
from nimbusd.core.node.spares import StartSpare
from nimbusd.transport.messages.worker import Fatal, Ready, Warm, WorkerHello

SLOTS = ("cpu:0", "gpu:0.1")
Row = tuple[SlotState, SlotEvent]

FACTS: tuple[Callable[[WorkerId], p.PoolFact], ...] = (
    lambda worker: WorkerHello(worker, 1, ""),
    lambda worker: p.JobAssigned(worker, JobId("a"), 50.0, 20.0, 60.0),
    lambda worker: p.JobAssigned(worker, JobId("b"), 50.0, 20.0, None),
    lambda worker: Ready(worker, "cpu"),
    p.LeaseSent,
    lambda worker: p.BeatSeen(worker, busy=True),
    lambda worker: p.BeatSeen(worker, busy=False),
    p.EpisodeBegan,
    Warm,
    p.SpareGone,
    lambda _: p.MemorySeen(10),
    lambda _: p.TimePassed(),
)
ENDS: tuple[Callable[[WorkerId], p.PoolFact], ...] = (
    RecallWorker,
    lambda worker: Fatal(worker, JobId("a"), "its mesh is missing"),
    lambda worker: StopWorker(worker, "nobody wants it"),
    lambda worker: p.WorkerKilled(worker, "it was silent", "in gen_obs", "render"),
    lambda worker: p.WorkerExited(worker, 0),
    lambda worker: p.WorkerExited(worker, -9),
)


class Babel:
    """A pool that is told anything of anybody, in any order; the moves of its slots are noted."""

    def __init__(self, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.random = random.Random(seed)
        self.rows: set[Row] = set()
        monkeypatch.setattr(pool, "next_state", self.noting)
        self.pool = pool.WorkerPool(SLOTS, 100.0, most_failed_starts=10, spares=1)
        self.now = 0.0
        self.workers = {slot: worker_of(slot, 0) for slot in SLOTS}
        self.spares: list[WorkerId] = []
        self.take_in(self.pool.start(0.0))

    def noting(self, state: SlotState, event: SlotEvent) -> SlotState | None:
        self.rows.add((state, event))
        return next_state(state, event)

    def take_in(self, orders: list[p.PoolOrder]) -> None:
        for order in orders:
            match order:
                case p.SpawnWorker(slot, worker) | p.TakeSpare(slot, worker):
                    assert slot_of(worker) == slot
                    assert self.pool.states()[slot] is SlotState.STARTING
                    self.workers[slot] = worker
                case p.KillWorker(worker):
                    assert self.pool.states()[slot_of(worker)] is SlotState.DYING
                case p.ReportLost(worker):
                    assert self.workers[slot_of(worker)] == worker, "the loss of a worker is told once"
                case StartSpare(spare):
                    assert set(self.pool.states().values()) <= AT_WORK
                    self.spares.append(spare)

    def step(self) -> None:
        self.now += self.random.choice((0.0, 0.0, 0.5, 3.0))
        about = self.random.choice([*self.workers.values(), *self.spares, worker_of("cpu:0", 0), WorkerId("nobody")])
        facts = ENDS if self.random.random() < 0.08 else FACTS
        self.take_in(self.pool.handle(self.random.choice(facts)(about), self.now))

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
        self.take_in(self.pool.handle(p.StopAsked(), self.now))
        for _ in range(steps // 4):
            self.step()
        for worker in self.workers.values():
            self.take_in(self.pool.handle(p.WorkerExited(worker, 0), self.now))
        assert set(self.pool.states().values()) == {SlotState.VACANT}


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_facts_come_in_whatever_order_no_illegal_move_is_made(seed: int) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        Babel(seed, monkeypatch).run(200)


def test_every_row_of_the_table_is_used_by_some_story() -> None:
    used: set[Row] = set()
    for seed in range(100):
        with pytest.MonkeyPatch.context() as monkeypatch:
            babel = Babel(seed, monkeypatch)
            babel.run(400)
            used |= babel.rows
    assert {(state, event) for state, row in MOVES.items() for event in row} - used == set()


@pytest.mark.parametrize("state", SlotState)
def test_what_the_node_does_by_itself_and_has_no_row_asserts(state: SlotState) -> None:
    for event in ALWAYS_IN_TURN - MOVES[state].keys():
        with pytest.raises(AssertionError, match=f"a {state.value} slot cannot meet `{event.value}`"):
            next_state(state, event)


@pytest.mark.parametrize("state", SlotState)
def test_what_a_worker_says_out_of_turn_changes_nothing(state: SlotState) -> None:
    for event in set(SlotEvent) - ALWAYS_IN_TURN - MOVES[state].keys():
        assert next_state(state, event) is None


def test_every_worker_can_be_killed_and_every_slot_comes_to_be_vacant() -> None:
    for state in set(SlotState) - {SlotState.VACANT}:
        assert next_state(state, SlotEvent.KILL) is SlotState.DYING
        assert next_state(state, SlotEvent.EXIT) is SlotState.VACANT
    assert SlotState.DYING not in AT_WORK | OPEN
