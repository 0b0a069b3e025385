"""Checks of what a workflow's methods return, made where they are called: a forgotten `return` becomes a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np

from nimbusd.stages.errors import ComponentError


def verdict(method: str, value: object) -> bool:
    """True or False, as `method` returned it. method: with the workflow's name, such as `MyWorkflow.randomization`."""
    if not isinstance(value, (bool, np.bool_)):
        raise ComponentError(f"{method}() returned {_shown(value)}, but must return True or False")
    return bool(value)


def frame_count(method: str, value: object) -> int:
    """The number of frames that `method` returned."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise ComponentError(f"{method}() returned {_shown(value)}, but must return a number of frames")
    return int(value)


def states(method: str, value: object) -> list[Any]:
    """The states that `method` returned, in order."""
    if not isinstance(value, (list, tuple)):
        raise ComponentError(f"{method}() returned {_shown(value)}, but must return a list of states")
    return list(value)


def _shown(value: object) -> str:
    if value is None:
        return "None"
    return repr(value) if isinstance(value, (bool, int, float)) else f"a {type(value).__name__}"
