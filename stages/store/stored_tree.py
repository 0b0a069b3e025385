"""A published dataset as it lies on disk: one tree of files, its metadata, and an episode read back from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy.typing as npt
import orjson
import pyarrow as pa

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.beneath import read_beneath
from nimbusd.stages.store.made_with import ENVIRONMENT, MadeWith, environments_from_json
from nimbusd.stages.store.publish import CONVENTIONS, EPISODES_METADATA
from nimbusd.stages.types import F32, F64, U8, U16, Label


@dataclass(frozen=True, slots=True)
class StoredEpisode:
    """One episode as it is on disk; T frames, dictionaries by camera name."""

    rgb: Mapping[str, U8]
    """(T, H, W, 3) uint8."""
    depth_m: Mapping[str, F32]
    """(T, H, W) float32, 0 = no reading."""
    instance: Mapping[str, U16]
    """(T, H, W) uint16 ids."""
    semantic: Mapping[str, U16]
    """(T, H, W) uint16 ids."""
    states: Mapping[str, npt.NDArray[Any]]
    """Every other column, (T, …) in the shape that it was planned in."""
    intrinsics: Mapping[str, F64]
    """(4,) fx fy cx cy."""
    T_world_camera: Mapping[str, F64]
    """(T, 4, 4), OpenGL axes."""
    task: str
    """The instruction."""
    meta: Mapping[str, Any]
    """The episode's line of metadata; `meta["notes"]` is what the planner noted."""
    labels: tuple[Label, ...]
    """The meaning of instance and semantic ids."""

    @property
    def length(self) -> int:
        return len(next(iter((self.T_world_camera or self.states).values())))


class StoredTree(ABC):
    """One folder of a dataset, with the metadata that `write_nimbusd_metadata` leaves in it.

    A format's own tree sets, when it is made, how many `episodes` and `frames` there are, the `fps`, and `features`
    (key → at least `dtype` and `shape` of one frame's value); it raises StoreError for a folder that is torn.
    """

    episodes: int
    frames: int
    fps: float
    features: Mapping[str, dict[str, Any]]

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def read(self, index: int) -> StoredEpisode:
        """Episode `index`, 0 … episodes - 1. Raises OSError, ValueError or KeyError for files that cannot be read."""

    def objects(self, index: int) -> pa.Table:
        """Poses and boxes of the objects of an episode (see `object_rows`). Raises StoreError where there are none."""
        raise StoreError(f"{self.root} has no table of objects; InternDataA1Writer makes one")

    @cached_property
    def meta(self) -> list[dict[str, Any]]:
        """The line of metadata of every episode."""
        try:
            lines = read_beneath(self.root, EPISODES_METADATA).splitlines()
            return [orjson.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.root / EPISODES_METADATA} cannot be read: {error}") from error

    @cached_property
    def conventions(self) -> dict[str, Any]:
        """Content of `meta/conventions.json`."""
        return orjson.loads(read_beneath(self.root, CONVENTIONS))  # type: ignore[no-any-return]

    @cached_property
    def environments(self) -> list[MadeWith]:
        """Content of `meta/environment.json`; empty where there is none."""
        try:
            content = read_beneath(self.root, ENVIRONMENT)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.root / ENVIRONMENT} cannot be read: {error}") from error
        return environments_from_json(content, str(self.root / ENVIRONMENT))

    def labels(self, index: int) -> tuple[Label, ...]:
        """The meaning of ids in the frames of an episode."""
        rows = self.conventions["segmentation"]["label_tables"][self.meta[index]["label_table"]]
        return tuple(Label(**row) for row in rows)
