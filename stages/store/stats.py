"""The ten statistics that LeRobot keeps of every feature, per episode and of a whole dataset.

They are min, max, mean, std, count, q01, q10, q50, q90, q99. Quantiles of an episode are exact; those of a dataset
are the episodes' quantiles weighted by count, as LeRobot itself combines them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nimbusd.stages.types import U8

NEEDED = frozenset({"min", "max", "mean", "std", "count"})
"""Statistics that every feature has; those of an older writer may lack the quantiles."""
QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats: TypeAlias = dict[str, npt.NDArray[Any]]
"""Statistic → array of the feature's shape; `count` has shape (1,)."""

_FEWEST_FRAMES = 100
_MOST_FRAMES = 10_000
_SHORT_SIDE_PIXELS = 150
_SMALL_IMAGE_PIXELS = 300


def vector_stats(values: npt.NDArray[Any]) -> Stats:
    """Statistics over the first axis of (T, …) numbers or booleans, T >= 1, in float64."""
    numbers = values.astype(np.float64)
    low, high = numbers.min(axis=0), numbers.max(axis=0)
    result = {
        "min": low,
        "max": high,
        # A mean of equal numbers can differ from them in the last digit; readers compare it to min and max.
        "mean": np.clip(numbers.mean(axis=0), low, high),
        "std": numbers.std(axis=0),
        "count": np.array([len(numbers)], np.int64),
    }
    for name, row in zip(QUANTILES, np.quantile(numbers, list(QUANTILES.values()), axis=0), strict=True):
        result[name] = np.clip(row, low, high)
    return result


def image_stats(frames: U8) -> Stats:
    """Statistics per channel of (T, H, W, 3) uint8, as numbers in 0…1 of shape (3, 1, 1); count = frames sampled.

    Frames and pixels are sampled as LeRobot does: all of up to 100 frames, T^0.75 of more; images of 300 pixels
    or more at a stride that leaves about 150.
    """
    chosen = sample_frames(len(frames))
    height, width = frames.shape[1:3]
    stride = 1
    if max(height, width) >= _SMALL_IMAGE_PIXELS:
        stride = max(1, (width if width > height else height) // _SHORT_SIDE_PIXELS)
    counts = np.zeros((3, 256), np.int64)
    for index in chosen:
        sampled = frames[index, ::stride, ::stride]
        for channel in range(3):
            counts[channel] += np.bincount(sampled[..., channel].ravel(), minlength=256)
    rows = [_histogram_stats(row) for row in counts]
    result: Stats = {name: np.array([row[name] for row in rows]).reshape(3, 1, 1) / 255 for name in rows[0]}
    result["count"] = np.array([len(chosen)], np.int64)
    return result


def sample_frames(length: int) -> list[int]:
    """Indexes of the frames that image statistics look at, evenly spread, first and last included."""
    number = max(min(length, _FEWEST_FRAMES), min(int(length**0.75), _MOST_FRAMES))
    return [int(index) for index in np.round(np.linspace(0, length - 1, number))]


def _histogram_stats(counts: npt.NDArray[np.int64]) -> dict[str, float]:
    """Statistics, except count, of a multiset of 0…255 given by how often each occurs."""
    total = int(counts.sum())
    levels = np.arange(256, dtype=np.float64)
    present = np.flatnonzero(counts)
    mean = float(counts @ levels) / total
    result = {
        "min": float(present[0]),
        "max": float(present[-1]),
        "mean": mean,
        "std": float(np.sqrt(counts @ (levels - mean) ** 2 / total)),
    }
    cumulative = np.cumsum(counts)
    for name, q in QUANTILES.items():
        place = q * (total - 1)
        below, above = np.searchsorted(cumulative, [np.floor(place), np.ceil(place)], side="right")
        result[name] = float(below + (above - below) * (place - np.floor(place)))
    return result


def merge_stats(parts: Sequence[Stats]) -> Stats:
    """Statistics of all samples of `parts` together (quantiles: weighted means). parts: at least one."""
    weights = np.array([float(part["count"][0]) for part in parts])
    shares = weights / weights.sum()

    def weighted(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
        return np.asarray(np.tensordot(shares, np.stack(arrays), axes=1))

    low = np.min([part["min"] for part in parts], axis=0)
    high = np.max([part["max"] for part in parts], axis=0)
    mean = weighted([part["mean"] for part in parts])
    variance = weighted([part["std"] ** 2 + (part["mean"] - mean) ** 2 for part in parts])
    merged: Stats = {
        "min": low,
        "max": high,
        "mean": np.clip(mean, low, high),
        "std": np.sqrt(variance),
        "count": np.array([int(weights.sum())], np.int64),
    }
    for name in QUANTILES:
        if all(name in part for part in parts):
            merged[name] = np.clip(weighted([part[name] for part in parts]), low, high)
    return merged


def stats_from_json(stats: Mapping[str, Any]) -> Stats:
    """Inverse of writing a `Stats` as nested lists."""
    return {name: np.asarray(value, np.int64 if name == "count" else np.float64) for name, value in stats.items()}
