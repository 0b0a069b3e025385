"""The page on the life of a slot: its diagram is the table of moves, and it explains every state and event."""

from __future__ import annotations

import re
from pathlib import Path

from nimbusd.core.node.slot_states import MOVES, SlotEvent, SlotState

PAGE = Path(__file__).parents[2] / "docs/slot-states.md"
ALIVE = [state for state in SlotState if state not in (SlotState.VACANT, SlotState.DYING)]


def diagram() -> str:
    """The table as a Mermaid diagram. What leads out of every living worker's state is drawn once, from their frame;
    what does not change the state is left out.
    """
    shared = {
        event: target
        for event, target in MOVES[ALIVE[0]].items()
        if target not in ALIVE and all(MOVES[state].get(event) is target for state in ALIVE)
    }
    lines = ["stateDiagram-v2", f"    [*] --> {SlotState.VACANT.value}", "    state alive {"]
    lines += [f"    {line}" for state in ALIVE for line in _moves(state, set(SlotEvent) - shared.keys())]
    lines += ["    }"]
    lines += [f"    alive --> {target.value} : {event.value}" for event, target in shared.items()]
    lines += [line for state in SlotState if state not in ALIVE for line in _moves(state, set(SlotEvent))]
    return "\n".join(lines)


def _moves(state: SlotState, events: set[SlotEvent]) -> list[str]:
    by_target: dict[SlotState, list[str]] = {}
    for event, target in MOVES[state].items():
        if event in events and target is not state:
            by_target.setdefault(target, []).append(event.value)
    return [f"    {state.value} --> {target.value} : {', '.join(names)}" for target, names in by_target.items()]


def test_the_diagram_is_drawn_from_the_table() -> None:
    (drawn,) = re.findall(r"```mermaid\n(.*?)\n?```", PAGE.read_text(), re.DOTALL)
    assert drawn == diagram(), f"the diagram of {PAGE.name} should read:\n{diagram()}"


def test_the_page_explains_every_state_and_every_event_once() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    assert rows == [member.value for member in (*SlotState, *SlotEvent)]


def test_every_move_is_in_the_diagram() -> None:
    drawn = diagram()
    for state, row in MOVES.items():
        for event, target in row.items():
            origin = "alive" if f"alive --> {target.value} : {event.value}" in drawn and state in ALIVE else state.value
            labels = re.findall(rf"{origin} --> {target.value} : (.*)", drawn)
            assert target is state or any(event.value in label.split(", ") for label in labels)
