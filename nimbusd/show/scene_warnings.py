"""Warnings of loaders about the scenes of a dataset: things mended in them, left out of them, or doubtful."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nimbusd.stages.store.read import Dataset


def scene_warnings(dataset: Dataset) -> list[str]:
    """A sentence of each kind for each scene, in the order of the episodes. Raises StoreError."""
    return warning_lines(dataset.meta(index)["scene"] for index in range(dataset.episodes))


def warning_lines(scenes: Iterable[Mapping[str, Any]]) -> list[str]:
    """`scene 'house': sentence` for what stands under `warnings` in the scenes' provenance, each once."""
    return list(
        dict.fromkeys(
            f"scene {scene['id']!r}: {sentence}"
            for scene in scenes
            for sentence in scene.get("provenance", {}).get("warnings", ())
        )
    )
