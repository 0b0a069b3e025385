"""Types of what task files hold: every number has a least and a most, every name is one that all its users can bear.

Bounds are wide: they refuse what cannot be meant (a negative mass, millimetres for metres), not what is unusual.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

MOST_NAME_CHARACTERS = 64
_NAME = re.compile(r"[^\W\d][\w-]*")

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Coordinate: TypeAlias = Annotated[float, Field(ge=-10, le=10)]
"""A place along an axis, metres."""

Edge: TypeAlias = Annotated[float, Field(ge=0.002, le=3)]
"""An edge of a thing, metres. MuJoCo has no bodies that are much smaller."""

Distance: TypeAlias = Annotated[float, Field(ge=0, le=1)]
"""Room, a gap, or a way, metres."""

Angle: TypeAlias = Annotated[float, Field(ge=-6.2832, le=6.2832)]
Factor: TypeAlias = Annotated[float, Field(ge=0.01, le=100)]
Brightness: TypeAlias = Annotated[float, Field(gt=0, le=10)]
Positive: TypeAlias = Annotated[float, Field(gt=0, le=1e5)]
"""Gains, forces, speeds: what drives a joint."""

Position: TypeAlias = tuple[Coordinate, Coordinate, Coordinate]
Size: TypeAlias = tuple[Edge, Edge, Edge]
Color: TypeAlias = tuple[Share, Share, Share]
"""sRGB, 0…1."""


def rising(value: tuple[float, float]) -> tuple[float, float]:
    """`value`, a range. Raises ValueError where it falls."""
    if value[0] > value[1]:
        raise ValueError(f"a range goes from its least to its most, not from {value[0]:g} to {value[1]:g}")
    return value


def turning(value: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """`value`, a quaternion of any length. Raises ValueError where it is zero, and so no direction."""
    if math.hypot(*value) < 1e-3:
        raise ValueError("a quaternion (w, x, y, z) of length 0 turns nothing anywhere; no turn is [1, 0, 0, 0]")
    return value


def naming(value: str) -> str:
    """`value`, a name. Raises ValueError for one that placeholders, bodies, columns or files could not be called."""
    if not _NAME.fullmatch(value) or len(value) > MOST_NAME_CHARACTERS:
        raise ValueError(
            f"a name begins with a letter and goes on with letters, digits, '_' or '-', "
            f"{MOST_NAME_CHARACTERS} at most, unlike {value!r:.80}"
        )
    return value


def saying(value: str) -> str:
    """`value`, words that people read. Raises ValueError where there are none."""
    if not value.strip() or not value.isprintable():
        raise ValueError(f"must be words in one line, unlike {value!r:.80}")
    return value


CoordinateRange: TypeAlias = Annotated[tuple[Coordinate, Coordinate], AfterValidator(rising)]
AngleRange: TypeAlias = Annotated[tuple[Angle, Angle], AfterValidator(rising)]
FactorRange: TypeAlias = Annotated[tuple[Factor, Factor], AfterValidator(rising)]
BrightnessRange: TypeAlias = Annotated[tuple[Brightness, Brightness], AfterValidator(rising)]
_Component: TypeAlias = Annotated[float, Field(ge=-2, le=2)]
Turn: TypeAlias = Annotated[tuple[_Component, _Component, _Component, _Component], AfterValidator(turning)]
"""A quaternion w, x, y, z; its length does not matter."""

Name: TypeAlias = Annotated[str, AfterValidator(naming)]
Words: TypeAlias = Annotated[str, AfterValidator(saying)]
