"""Reasons for which plans fail: what statistics count by, and which of them another try may avoid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

Reason: TypeAlias = Literal[
    "impossible",
    "no_layout",
    "not_seen",
    "no_grasp",
    "ik_failed",
    "no_path",
    "collision_in_recheck",
    "grasp_slipped",
    "dropped",
    "forbidden_contact",
    "precondition",
    "skill_failed",
    "unstable",
    "goal_not_reached",
]

REASONS: Mapping[Reason, str] = {
    "impossible": "no layout of the task can be worked in: home, reach, sizes, weights, room",
    "no_layout": "no placement without overlap and within reach",
    "not_seen": "no still camera sees enough of a thing that the task is about",
    "no_grasp": "no grasp fits the object and its surroundings",
    "ik_failed": "the arm reaches none of the candidates, or cannot follow the line",
    "no_path": "reachable, but no way there is free of collisions",
    "collision_in_recheck": "the timed trajectory touches something",
    "grasp_slipped": "the object is not in the hand after closing or lifting",
    "dropped": "lost on the way",
    "forbidden_contact": "robot or carried object touched what it must not",
    "precondition": "a skill was asked for in a state that it does not fit",
    "skill_failed": "a skill's own success condition does not hold: drawer not open, button not pressed",
    "unstable": "the simulation diverged",
    "goal_not_reached": "all skills are done, but a goal does not hold",
}
"""Reason → what happened."""

RETRIED: frozenset[Reason] = frozenset(
    {"grasp_slipped", "dropped", "forbidden_contact", "skill_failed", "collision_in_recheck", "no_path", "ik_failed"}
)
"""A skill is tried again from the same state: another grasp, place or way may avoid these."""

POSTPONED: frozenset[Reason] = frozenset(
    {"no_grasp", "ik_failed", "no_path", "collision_in_recheck", "forbidden_contact"}
)
"""An item of several waits until others are done: something may be in its way."""
