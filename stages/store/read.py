"""Reading published datasets back, whatever their format: `open_dataset(path).episode(i)`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.formats.table import every_format, format_names
from nimbusd.stages.store.made_with import MadeWith, joined
from nimbusd.stages.store.publish import DATASET
from nimbusd.stages.store.stored_tree import StoredEpisode, StoredTree


class Dataset:
    """A published dataset. format: its name, such as `lerobot-v3.0`. episodes: their number.

    features: as info.json has them, those of more than one axis flat; an episode has them in their own shape.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for self.dataset_format in every_format():
            if trees := self.dataset_format.trees(root):
                break
        else:
            raise StoreError(
                f"{root} holds no dataset of a format that is installed here ({', '.join(format_names())}): neither "
                "meta/info.json of such a version, nor success/meta/info.json, nor <group>/<scene>/meta/info.json"
            )
        self.trees: list[StoredTree] = list(trees)
        self.format = self.dataset_format.name
        self.fps = self.trees[0].fps
        self.episodes = sum(tree.episodes for tree in self.trees)
        self.frames = sum(tree.frames for tree in self.trees)
        self.features = self.trees[0].features

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera names, in the order of the features."""
        return tuple(self.trees[0].meta[0]["cameras"])

    @cached_property
    def environments(self) -> list[MadeWith]:
        """The packages that episodes were made with; empty for a dataset of before that was recorded.

        Raises StoreError if what is recorded cannot be read.
        """
        return joined([(tree.episodes, tree.environments) for tree in self.trees])

    def meta(self, index: int) -> Mapping[str, Any]:
        """Metadata of episode `index`, without reading its frames."""
        tree, local = self._find(index)
        return tree.meta[local]

    def episode(self, index: int) -> StoredEpisode:
        """Episode `index`, 0 … episodes - 1. Raises IndexError, or StoreError for files that cannot be read."""
        tree, local = self._find(index)
        try:
            return tree.read(local)
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"episode {index} of {self.root} cannot be read: {error}") from error

    def objects(self, index: int) -> pa.Table:
        """A row for each frame and object of episode `index`: where it is, as InternDataA1Writer stores it.

        Raises IndexError, or StoreError where there is no such table.
        """
        tree, local = self._find(index)
        return tree.objects(local)

    def _find(self, index: int) -> tuple[StoredTree, int]:
        if not 0 <= index < self.episodes:
            raise IndexError(f"episode {index}: {self.root} has episodes 0…{self.episodes - 1}")
        for tree in self.trees:
            if index < tree.episodes:
                return tree, index
            index -= tree.episodes
        raise AssertionError("episodes is the sum over the trees")


def open_dataset(path: Path) -> Dataset:
    """The dataset at `path`: its own folder, or a job's output folder. Raises StoreError if there is none."""
    root = path / DATASET if (path / DATASET).is_dir() else path
    return Dataset(root.resolve())  # a later publish moves the link; this reader stays with what it opened
