"""The life of a slot as a table: which state follows on which event.

A slot has one compute worker after the other. What its worker says can come out of turn, since a worker runs other
people's code: such an event has no row, and nothing follows. What the node does is always in turn; an event of its own
that has no row is a mistake of ours, and asserts. `docs/slot-states.md` shows the table as a diagram.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum


class SlotState(Enum):
    """The state of a slot, by what its worker is at."""

    VACANT = "vacant"
    """It has no worker: the node has not started yet, or it leaves."""
    STARTING = "starting"
    """Its process starts, after a pause where starts have failed. It owes a hello."""
    WAITING = "waiting"
    """It has said hello and waits for a job. It owes nothing."""
    OPENING = "opening"
    """It makes the components of its job and opens its backend. It owes to be ready."""
    IDLE = "idle"
    """It is ready and has no episode. It owes nothing."""
    BUSY = "busy"
    """It has an episode. It owes a beat, and the end of the episode where the job limits that."""
    DISMISSED = "dismissed"
    """It was asked to leave before it was ready. It owes what it owed then."""
    LEAVING = "leaving"
    """It was asked to leave, and first finishes what it has begun. It owes what a busy worker owes, or nothing."""
    DYING = "dying"
    """It was killed; its exit is still to come."""


class SlotEvent(Enum):
    """An event in the life of a slot or of its worker."""

    FILL = "fill"
    """The node starts a worker in it, or a warm spare takes the place."""
    HELLO = "hello"
    """The worker says hello."""
    ASSIGN = "assign"
    """The node answers with a job."""
    READY = "ready"
    """The worker says that it is ready."""
    LEASE = "lease"
    """The node answers a pull with an episode."""
    BEAT = "beat"
    """The worker shows progress, and has more to do."""
    DONE = "done"
    """The worker has told the end of its last episode."""
    RECALL = "recall"
    """The node asks the worker to leave, or the worker gives up its job."""
    KILL = "kill"
    """The node or its watchdog kills the worker."""
    EXIT = "exit"
    """The worker's process is gone."""


S, E = SlotState, SlotEvent

MOVES: Mapping[SlotState, Mapping[SlotEvent, SlotState]] = {
    S.VACANT: {E.FILL: S.STARTING},
    S.STARTING: {E.HELLO: S.WAITING, E.RECALL: S.DISMISSED, E.KILL: S.DYING, E.EXIT: S.VACANT},
    S.WAITING: {E.ASSIGN: S.OPENING, E.RECALL: S.DISMISSED, E.KILL: S.DYING, E.EXIT: S.VACANT},
    S.OPENING: {E.READY: S.IDLE, E.RECALL: S.DISMISSED, E.KILL: S.DYING, E.EXIT: S.VACANT},
    S.IDLE: {E.LEASE: S.BUSY, E.BEAT: S.BUSY, E.RECALL: S.LEAVING, E.KILL: S.DYING, E.EXIT: S.VACANT},
    S.BUSY: {
        E.LEASE: S.BUSY,
        E.BEAT: S.BUSY,
        E.DONE: S.IDLE,
        E.RECALL: S.LEAVING,
        E.KILL: S.DYING,
        E.EXIT: S.VACANT,
    },
    S.DISMISSED: {E.READY: S.LEAVING, E.RECALL: S.DISMISSED, E.KILL: S.DYING, E.EXIT: S.VACANT},
    S.LEAVING: {
        E.LEASE: S.LEAVING,
        E.BEAT: S.LEAVING,
        E.DONE: S.LEAVING,
        E.RECALL: S.LEAVING,
        E.KILL: S.DYING,
        E.EXIT: S.VACANT,
    },
    S.DYING: {E.RECALL: S.DYING, E.KILL: S.DYING, E.EXIT: S.VACANT},
}
"""State → event → the state that follows."""

ALWAYS_IN_TURN = frozenset({E.FILL, E.RECALL, E.KILL, E.EXIT})
"""The events that the node makes or sees by itself. All others are said by a worker, or answer what one has said."""
AT_WORK = frozenset({S.WAITING, S.IDLE, S.BUSY, S.LEAVING})
"""The worker works, or waits for work: its slot needs no help."""
OPEN = frozenset({S.IDLE, S.BUSY, S.LEAVING})
"""The worker has been ready: its job can be opened here."""
ASKED_TO_LEAVE = frozenset({S.DISMISSED, S.LEAVING})
"""The worker's exit is no failure."""


def next_state(state: SlotState, event: SlotEvent) -> SlotState | None:
    """The state that follows, or None for what came out of turn.

    Raises AssertionError for an event that is always in turn and yet has no row here.
    """
    following = MOVES[state].get(event)
    assert following is not None or event not in ALWAYS_IN_TURN, f"a {state.value} slot cannot meet `{event.value}`"
    return following
