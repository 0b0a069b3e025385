"""The parts of episodes as LeRobot knows them: `meta/subtasks.parquet` and a `subtask_index` of every frame.

LeRobot since 0.4 hands out `item["subtask"]` for them. A dataset has them if every episode states its parts (the note
`sub_tasks`) and no feature is called `subtask_index` already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from nimbusd.stages.store.columns import Column
from nimbusd.stages.store.source_piece import SourcePiece

SUBTASK = Column("subtask_index", "int64", (1,))
SUBTASKS_PATH = "meta/subtasks.parquet"
NO_PART = ""
"""The text of frames that belong to no part."""


def subtasks_of(sources: Iterable[SourcePiece], columns: Iterable[Column]) -> dict[str, int]:
    """Text → index of every part, in the order of their first frame; empty for datasets without parts."""
    if any(column.key == SUBTASK.key for column in columns):
        return {}
    found: dict[str, int] = {}
    for piece in sources:
        if not piece.notes.sub_tasks:
            return {}
        for text in _texts(piece):
            found.setdefault(text, len(found))
    return found


def subtask_indexes(piece: SourcePiece, subtasks: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """(T,) the index of each frame's part."""
    return np.array([subtasks[text] for text in _texts(piece)], np.int64)


def _texts(piece: SourcePiece) -> Iterator[str]:
    """The text of each frame's part; of parts that overlap the first."""
    parts = piece.notes.sub_tasks
    for frame in range(piece.length):
        yield next((part.instruction for part in parts if part.start <= frame < part.stop), NO_PART)
