"""Frames of two pieces compared pixel by pixel: from which frame on they differ, and by how many levels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nimbusd.replay.difference import Difference, Tolerance
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.conventions import DEPTH_COUNTS_PER_M
from nimbusd.stages.store.encode import decode_image, decode_video
from nimbusd.stages.store.formats.lerobot.content import INSTANCE_PREFIX, SEMANTIC_PREFIX

Pair: TypeAlias = tuple[int, npt.NDArray[Any], npt.NDArray[Any]]
"""A frame's number, and its pixels in the committed piece and in the one that was made."""
_BLOCK = 32
"""The number of frames of a video that are in memory at once."""


def image_difference(
    place: str, ours: Iterable[bytes], theirs: Iterable[bytes], tolerance: Tolerance
) -> Difference | None:
    """Compare encoded frames, as many of one as of the other. place: of a column, whose name says what the pixels are.

    Raises StoreError for a frame that is no image.
    """

    def pairs() -> Iterator[Pair]:
        for frame, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if one != other:
                yield frame, _decoded(one, place, frame), _decoded(other, place, frame)

    return _difference(place, pairs(), tolerance)


def video_difference(
    place: str, ours: Path, theirs: Path, length: int, fps: float, tolerance: Tolerance
) -> Difference | None:
    """Compare two videos of `length` frames. Raises StoreError for one that cannot be decoded."""

    def pairs() -> Iterator[Pair]:
        for first in range(0, length, _BLOCK):
            count = min(_BLOCK, length - first)
            blocks = decode_video(ours, first, count, fps), decode_video(theirs, first, count, fps)
            for at, (one, other) in enumerate(zip(*blocks, strict=True)):
                yield first + at, one, other

    found = _difference(place, pairs(), tolerance)
    return found or Difference(place, "is encoded otherwise; its frames are equal", True, None, 0.0, tolerated=True)


def _difference(place: str, pairs: Iterable[Pair], tolerance: Tolerance) -> Difference | None:
    """The difference between frames: ids in none or all, colours by levels, 16-bit depth by metres."""
    first: int | None = None  # that is beyond the tolerance
    any_first: int | None = None
    at_first = worst = 0.0
    is_ids = any(prefix in place for prefix in (INSTANCE_PREFIX, SEMANTIC_PREFIX))
    unit, limit = " of 255 levels", tolerance.levels
    pixels = 0
    for frame, one, other in pairs:
        if one.shape != other.shape:
            what = f"has {_size(other)} pixels instead of {_size(one)} from frame {frame} on"
            return Difference(place, what, True, frame if first is None else first)
        apart = np.abs(one.astype(np.int32) - other.astype(np.int32))
        if one.dtype == np.uint16 and not is_ids:
            apart, unit, limit = apart / DEPTH_COUNTS_PER_M, " m", tolerance.numbers
        amount = float(apart.max(initial=0))
        if amount == 0:
            continue
        any_first = frame if any_first is None else any_first
        worst = max(worst, amount)
        if first is None and (is_ids or amount > limit):
            first, at_first, pixels = frame, amount, int(np.count_nonzero(apart))
    if any_first is None:
        return None
    if is_ids:
        return Difference(place, f"differs from frame {first} on: {pixels} pixels have other ids there", True, first)
    frame, amount = (any_first, worst) if first is None else (first, at_first)
    what = f"differs from frame {frame} on, by at most {worst:.3g}{unit}"
    if first is not None and worst > at_first:
        what = f"differs from frame {frame} on: {amount:.3g}{unit} there, at most {worst:.3g}"
    return Difference(place, what, True, frame, worst, first is None)


def _decoded(content: bytes, place: str, frame: int) -> npt.NDArray[Any]:
    try:
        return decode_image(content)
    except (OSError, ValueError, SyntaxError) as error:
        raise StoreError(f"{place}: frame {frame} is no image ({error})") from error


def _size(pixels: npt.NDArray[Any]) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
