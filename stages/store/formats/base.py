"""`DatasetFormat`: all that a format of datasets is.

    write    an episode's piece
    build    a dataset of pieces
    trees    a dataset that was published, opened
    checks   what can be wrong with one

A format has a folder here, where its value lies, and a line in the table. `DatasetWriter` stores and publishes with it,
`open_dataset` and `verify_dataset` open and check with it. docs/extend/format.md makes one from the start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from nimbusd.stages import types
from nimbusd.stages.store.media import MediaArgs
from nimbusd.stages.store.piece import PieceDraft
from nimbusd.stages.store.record_model import PieceRecord
from nimbusd.stages.store.source_piece import SourcePiece
from nimbusd.stages.store.stored_tree import StoredTree

A = TypeVar("A", bound=MediaArgs)
T = TypeVar("T", bound=StoredTree)


class DatasetFormat(ABC, Generic[A, T]):
    """A format of datasets. It keeps nothing: one value serves all writers and threads.

    name: in the table, in job files, and in the record of every piece.
    args_model: the arguments that it needs; a writer whose arguments are of this model offers the format.
    record_model: what `episode.json` must say, whoever wrote it.
    """

    name: str
    args_model: ClassVar[type[MediaArgs]] = MediaArgs
    record_model: ClassVar[type[PieceRecord]] = PieceRecord

    @abstractmethod
    def write(
        self,
        draft: PieceDraft,
        seq: types.Sequence,
        obs: types.Observation,
        episode: types.Episode,
        args: A,
        beat: Callable[[], None],
    ) -> None:
        """Add the files of an episode's piece to `draft`, `episode.json` (see `episode_record`) among them.

        beat: called at least once per frame or second of work. Raises StoreError for what the format cannot hold.
        """

    @abstractmethod
    def build(
        self,
        root: Path,
        sources: list[SourcePiece],
        job: Mapping[str, Any],
        args: A,
        *,
        final: bool,
        beat: Callable[[], None],
    ) -> None:
        """Write the dataset of `sources`, in this order, into the empty folder `root`.

        A pure function: the same call writes the same bytes. job: facts for the metadata. final: nothing follows, so
        files may be joined to the sizes of `args`. beat: called for every file. Raises StoreError.
        """

    def trees(self, root: Path) -> Sequence[T]:
        """The dataset at `root`, opened; empty if it is not of this format.

        A format that only adds files to another's datasets leaves this out: the other one opens them.
        Raises StoreError for a dataset of this format that is torn.
        """
        return ()

    def checks(self, tree: T) -> Mapping[str, Iterator[str]]:
        """Name of a check → its faults, a sentence each, besides what every dataset is checked for."""
        return {}

    def refused_sizes(self, sizes: dict[str, tuple[int, int]], args: A) -> list[str]:
        """Of images (camera → width and height in pixels), those that `write` could not store: a sentence each."""
        return args.refused_sizes(sizes)
