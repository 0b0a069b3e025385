"""The stages of an episode, by name and in their order."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Stage: TypeAlias = Literal["load", "randomize", "plan", "render", "store"]
STAGES: tuple[Stage, ...] = get_args(Stage)
PLANNING_STAGES = STAGES[: STAGES.index("plan") + 1]
"""Stages up to the planned sequence; the others need a renderer."""
