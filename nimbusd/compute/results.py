"""The result of an episode, as a compute worker tells it: a stored piece, or a failure."""

from __future__ import annotations

from nimbusd.stages.store.piece import manifest_digest
from nimbusd.stages.types import Episode
from nimbusd.transport.messages.bounds import MOST_BYTES, MOST_FOLDER, MOST_FRAMES
from nimbusd.transport.messages.failures import Failure, kind_of
from nimbusd.transport.messages.node import Stored


def result_of(episode: Episode, cost_s: float) -> Stored | Failure:
    """The result of an episode that has come to its end. A piece that no master would take is a failure, too."""
    if (failed := episode.failure) is not None:
        kind = kind_of(failed.reason, planning=failed.planned)
        return Failure(failed.stage, failed.reason, failed.detail, failed.evidence, kind)
    piece = episode.piece
    assert piece is not None
    size_bytes = sum(file.size_bytes for file in piece.files)
    if not 0 <= piece.length <= MOST_FRAMES or not 0 <= size_bytes <= MOST_BYTES:
        why = f"the writer stored {piece.length} frames in {size_bytes} bytes, which cannot be"
        return Failure("store", "bad_piece", why)
    if len(piece.folder) > MOST_FOLDER:
        return Failure("store", "bad_piece", "the writer's piece has a name that no folder can have")
    index, digest = episode.request.index, manifest_digest(piece)
    return Stored(index, piece.folder, piece.length, size_bytes, digest, cost_s, dict(episode.timings_s))
