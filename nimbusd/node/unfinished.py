"""The pieces that compute workers have begun: garbage, where a worker dies before it tells what became of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from nimbusd.core.ids import JobId, WorkerId
from nimbusd.stages.store.piece import PIECES, draft_of, piece_folder
from nimbusd.stages.types import EpisodeRequest
from nimbusd.transport.messages.worker import EpisodeRef


class UnfinishedPieces:
    """The pieces of the episodes that workers have begun and not told the end of."""

    def __init__(self) -> None:
        self._works_on: dict[WorkerId, tuple[JobId, Path]] = {}
        self._begun: dict[WorkerId, dict[EpisodeRef, Path]] = {}

    def works_on(self, worker: WorkerId, job: JobId, output: Path) -> None:
        """A worker makes episodes of a job from now on, into its output folder."""
        self._works_on[worker] = job, output

    def began(self, worker: WorkerId, episode: EpisodeRef) -> None:
        """A worker has begun an episode, or is still at it."""
        begun = self._begun.setdefault(worker, {})
        if worker in self._works_on and episode not in begun:
            job, output = self._works_on[worker]
            folder = piece_folder(EpisodeRequest(job, episode.scene, episode.index, attempt=episode.attempt))
            begun[episode] = output / PIECES / folder

    def ended(self, worker: WorkerId, episode: EpisodeRef) -> None:
        """A worker has told what became of an episode."""
        self._begun.get(worker, {}).pop(episode, None)

    def left_by(self, worker: WorkerId) -> list[Path]:
        """A worker is gone: the pieces that it leaves. Nobody was told of them, so they can never be committed."""
        self._works_on.pop(worker, None)
        return list(self._begun.pop(worker, {}).values())


def remove_pieces(pieces: Iterable[Path]) -> None:
    """Remove pieces, and the drafts of those that did not become any."""
    for piece in pieces:
        shutil.rmtree(draft_of(piece), ignore_errors=True)
        shutil.rmtree(piece, ignore_errors=True)
