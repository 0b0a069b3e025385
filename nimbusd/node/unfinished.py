"""The pieces that compute workers have begun: garbage, where a worker dies before it tells what became of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from nimbusd.core.ids import Attempt, WorkerId
from nimbusd.stages.store.piece import PIECES, draft_of, piece_folder
from nimbusd.stages.types import EpisodeRequest


class UnfinishedPieces:
    """The pieces of the episodes that workers have begun and not told the end of."""

    def __init__(self) -> None:
        self._works_on: dict[WorkerId, Path] = {}
        self._begun: dict[WorkerId, dict[Attempt, Path]] = {}

    def works_on(self, worker: WorkerId, output: Path) -> None:
        """A worker makes pieces in this output folder from now on."""
        self._works_on[worker] = output

    def began(self, worker: WorkerId, attempt: Attempt) -> None:
        """A worker has begun an episode, or is still at it."""
        begun = self._begun.setdefault(worker, {})
        if worker in self._works_on and attempt not in begun:
            key = attempt.key
            folder = piece_folder(EpisodeRequest(key.job, key.scene, key.index, attempt=attempt.number))
            begun[attempt] = self._works_on[worker] / PIECES / folder

    def ended(self, worker: WorkerId, attempt: Attempt) -> None:
        """A worker has told what became of an episode."""
        self._begun.get(worker, {}).pop(attempt, None)

    def left_by(self, worker: WorkerId) -> list[Path]:
        """A worker is gone: the pieces that it leaves. Nobody was told of them, so they can never be committed."""
        self._works_on.pop(worker, None)
        return list(self._begun.pop(worker, {}).values())


def remove_pieces(pieces: Iterable[Path]) -> None:
    """Remove pieces, and the drafts of those that did not become any."""
    for piece in pieces:
        shutil.rmtree(draft_of(piece), ignore_errors=True)
        shutil.rmtree(piece, ignore_errors=True)
