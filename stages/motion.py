"""Refusing sequences whose motion a renderer cannot show: equal frames would be stored as a success."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nimbusd.stages.base import BaseRenderer
from nimbusd.stages.errors import RenderError
from nimbusd.stages.types import Feature, Scene, Sequence, is_for_replay

_STILL = 1e-3
"""States that change by less (metres, radians) are of a simulation at rest."""


def moved_objects(seq: Sequence, scene: Scene) -> list[str]:
    """Names of objects whose pose changes along the sequence, or is not the one that the scene has; sorted.

    What the scene does not have (a region without paint) may be named as long as it stands still.
    """
    rest = {obj.name: obj.T_world_object for obj in scene.objects}
    return sorted(
        name
        for name, poses in seq.T_world_object.items()
        if len(poses) and (np.asarray(poses) != rest.get(name, poses[0])).any()
    )


def moved_states(states: Mapping[str, Feature]) -> list[str]:
    """Keys of the simulators' states that change, sorted."""
    return sorted(key for key, state in states.items() if is_for_replay(key) and _changes(state))


def without_parts(seq: Sequence, scene: Scene | None) -> Sequence:
    """The sequence with the poses of whole instances alone: no links, no doors. Those follow from the states."""
    parts = {obj.name for obj in (scene.objects if scene else ()) if obj.part_of}
    return replace(seq, T_world_object={name: T for name, T in seq.T_world_object.items() if name not in parts})


def check_motion(renderer: BaseRenderer[Any], seq: Sequence, scene: Scene) -> None:
    """Raises RenderError where something moves that the renderer would show standing still (see `BaseRenderer.motion`).

    To be called before anything is rendered.
    """
    name, kind = type(renderer).__name__, renderer.motion
    if kind == "states":
        return
    if kind == "none" and (moved := moved_objects(seq, scene)):
        raise RenderError(
            f"{name} shows scenes that stand still, but the sequence moves {moved[0]!r}: take a renderer that moves "
            'objects, such as BlenderProcRenderer (one of your own that does says so by `motion = "poses"`)'
        )
    if not seq.T_world_object and (changing := moved_states(seq.states)):
        raise RenderError(
            f"{name} cannot show what moves: the state {changing[0]!r} changes, but the sequence does not say where "
            "objects are then (its T_world_object is empty)"
        )


def _changes(state: Feature) -> bool:
    values = np.asarray(state.values, np.float64)
    return bool(len(values)) and bool((np.abs(values - values[:1]) > _STILL).any())
