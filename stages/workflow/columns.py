"""Columns of a dataset from a sequence of states as workflows plan them: one mapping per frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nimbusd.stages.types import Feature

STATE_PREFIXES = ("states.", "observation.")
ACTION_PREFIXES = ("action.", "actions.", "master_actions.")
STEP = "states.step"
"""The column of a sequence that describes nothing: the number of the step, so that it has a length."""


def columns_of(sequence: list[Any]) -> tuple[dict[str, Feature], dict[str, Feature]]:
    """States and actions by column name, one row per element of `sequence`. Elements that are no mappings have none.

    Raises ValueError if a column is not in every element, or changes its shape.
    """
    states: dict[str, Feature] = {}
    actions: dict[str, Feature] = {}
    if sequence and all(isinstance(element, Mapping) for element in sequence):
        for key in sequence[0]:
            if not isinstance(key, str):
                continue
            if key.startswith(STATE_PREFIXES):
                states[key] = _column(key, sequence)
            elif key == "action" or key.startswith(ACTION_PREFIXES):
                actions[key] = _column(key, sequence)
    return states or {STEP: Feature(np.arange(len(sequence)))}, actions


def _column(key: str, sequence: list[Any]) -> Feature:
    rows = []
    for frame, element in enumerate(sequence):
        if key not in element:
            raise ValueError(f"column {key!r} is missing in element {frame} of the sequence")
        rows.append(np.asarray(element[key]))
        if rows[-1].shape != rows[0].shape:
            raise ValueError(
                f"column {key!r} has shape {rows[-1].shape} in element {frame}, {rows[0].shape} in the first"
            )
    return Feature(np.stack(rows))
