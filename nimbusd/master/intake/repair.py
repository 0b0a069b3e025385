"""Committed pieces that are damaged or gone: found, put into the trash, and made again."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.core.records import State
from nimbusd.master.ledger.reads import CommittedPiece, LedgerReads
from nimbusd.stages.errors import NimbusError, StoreError
from nimbusd.stages.store.piece import PIECES, manifest_digest, piece_faults, read_piece
from nimbusd.stages.store.trash import throw_away

_NOT_MADE = {
    State.PENDING: "it is made when the job goes on",
    State.FAILED: "it could not be planned, and is not tried again",
    State.QUARANTINED: "it is quarantined: `nimbusctl retry JOB`, or `run --retry-quarantined`, tries it again",
}
"""The prospects of an episode that is not committed."""


class NothingToRepair(NimbusError):
    """An episode that was named is not committed."""


def fault_of(output: Path, row: CommittedPiece, *, deep: bool) -> str:
    """Find what is wrong with a committed piece: its manifest, sizes, and contents if `deep`. Empty if nothing is."""
    try:
        piece = read_piece(output, row.folder)
    except StoreError as error:
        return str(error)
    if manifest_digest(piece) != row.digest:
        return f"piece {row.folder}: its manifest is not the one that was committed"
    return next(iter(piece_faults(output, piece, deep=deep)), "")


def damaged(
    output: Path, name: JobId, ledger: LedgerReads, *, deep: bool, only: Collection[EpisodeKey] = ()
) -> Iterator[tuple[CommittedPiece, str]]:
    """Committed pieces of a job that are damaged or gone, and what is wrong. only: of these episodes; none: of all."""
    for row in ledger.committed(name):
        if (not only or row.key in only) and (fault := fault_of(output, row, deep=deep)):
            yield row, fault


def chosen(name: JobId, ledger: LedgerReads, episodes: Iterable[EpisodeKey]) -> list[CommittedPiece]:
    """The committed pieces of these episodes. Raises NothingToRepair for one that is not committed."""
    found = []
    for key in episodes:
        piece = ledger.committed_piece(key)
        if piece is None:
            standing = ledger.standing(key)
            becomes = _NOT_MADE[State.PENDING if standing is None else standing.state]
            raise NothingToRepair(
                f"episode {key.scene}/{key.index} of job {name!r} is not committed, so that nothing of it can be "
                f"repaired; {becomes}"
            )
        found.append(piece)
    return found


def set_aside(output: Path, rows: Iterable[CommittedPiece]) -> None:
    """Put the pieces of these episodes into the trash, as far as they are there.

    Raises StoreError if the output itself is not.
    """
    if not (output / PIECES).is_dir():
        raise StoreError(f"output {output} has no folder of pieces: put it back first")
    now = time.time()
    for row in rows:
        if (output / PIECES / row.folder).exists():
            throw_away(output, row.folder, "it is made again", now)
