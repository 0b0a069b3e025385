"""The difference between two values of an episode: its place, its first frame, and its size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """The allowed distance between what was made again and what was committed.

    numbers: of state columns, in their own units; relative for numbers above 1. levels: of pixels, of 255.
    """

    numbers: float = 1e-6
    levels: float = 0.0


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs."""

    place: str
    """File, and column or key."""
    what: str
    """In words, after the place."""
    media: bool = False
    """The difference is one of pixels."""
    frame: int | None = None
    """The first beyond the tolerance, or the first at all where all is tolerated; None where no frame is meant."""
    amount: float | None = None
    """The greatest, in the unit of the place (levels of 255 for colours, metres for depth), if it has a size."""
    tolerated: bool = False
    """All of it is within the tolerance."""

    def __str__(self) -> str:
        return f"{self.place} {self.what}"


def rows_difference(
    place: str, ours: Numbers, theirs: Numbers, tolerance: float, names: Sequence[str] | None = None
) -> Difference | None:
    """Compare a column, row k = frame k; None where they are equal.

    ours, theirs: (T, …) numbers or booleans, the committed ones first; only T may differ. tolerance: see Tolerance.
    names: of the values of a row.
    """
    length = min(len(ours), len(theirs))
    one = ours[:length].reshape(length, -1).astype(np.float64)
    other = theirs[:length].reshape(length, -1).astype(np.float64)
    apart = _apart(one, other)
    beyond = apart > _allowed(one, tolerance)
    if not apart.any() and len(ours) == len(theirs):
        return None
    is_beyond = bool(beyond.any())
    frame, worst, words = length, float(apart.max(initial=0.0)), []
    if apart.any():
        chosen = beyond if is_beyond else apart > 0
        first = int(np.argmax(chosen.any(axis=1)))
        value = int(np.argmax(np.where(chosen[first], apart[first], -1)))
        words.append(
            f"differs from frame {first} on: {apart[first, value]:.3g} there" + _at(names, value, one.shape[1])
        )
        if worst > apart[first, value]:
            words.append(f"at most {worst:.3g}, at frame {int(np.argmax(apart.max(axis=1)))}")
        if is_beyond or len(ours) == len(theirs):
            frame = first
    if len(ours) != len(theirs):
        words.append(f"has {len(theirs)} frames instead of {len(ours)}")
    return Difference(place, ", ".join(words), False, frame, worst, not is_beyond and len(ours) == len(theirs))


def _at(names: Sequence[str] | None, value: int, size: int) -> str:
    """Name one of a row's numbers."""
    if names and len(names) == size:
        return f" in {names[value]}"
    return f" in number {value}" if size > 1 else ""


def _allowed(committed: Numbers, tolerance: float) -> Numbers:
    """The allowed distance of each number from the committed one: `tolerance`, times its size where that is above 1."""
    size = np.abs(np.where(np.isfinite(committed), committed, 0.0))
    return np.asarray(tolerance * np.maximum(1.0, size))


def _apart(one: Numbers, other: Numbers) -> Numbers:
    """Absolute differences; 0 for two NaN and for equal infinities, infinite for a NaN and a number."""
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    return np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))


def json_differences(
    one: Any, other: Any, name: str, tolerance: float, depth: int = 2, *, frame: int | None = None
) -> Iterator[Difference]:
    """The keys, `depth` levels below `name`, at which two JSON values differ. frame: the one that they are of."""
    if one == other:
        return
    if depth and isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from json_differences(
                one.get(key), other.get(key), f"{name}.{key}", tolerance, depth - 1, frame=frame
            )
        return
    pairs = _leaves(one, other)
    if pairs is None:
        yield Difference(name, "differs", frame=frame)
    elif pairs:
        ours, theirs = np.array(pairs, np.float64).T
        apart = _apart(ours, theirs)
        within = bool((apart <= _allowed(ours, tolerance)).all())
        worst = float(apart.max())
        yield Difference(name, f"differs by {worst:.3g}", frame=frame, amount=worst, tolerated=within)


def _leaves(one: Any, other: Any) -> list[tuple[float, float]] | None:
    """The pairs of numbers in two JSON values of the same shape; None if they differ in anything else."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        parts = [_leaves(one[key], other[key]) for key in one]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        parts = [_leaves(*pair) for pair in zip(one, other, strict=True)]
    elif _is_number(one) and _is_number(other):
        return [(float(one), float(other))]
    else:
        return [] if type(one) is type(other) and one == other else None
    found: list[tuple[float, float]] = []
    for part in parts:
        if part is None:
            return None
        found += part
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
