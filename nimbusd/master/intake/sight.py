"""A look at the place where a node says that it stored a piece, before anything is recorded of it."""

from __future__ import annotations

import enum
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from nimbusd.core.ids import EpisodeKey
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.beneath import read_beneath
from nimbusd.stages.store.piece import (
    MANIFEST,
    PIECES,
    manifest_digest,
    piece_faults,
    piece_folder,
    piece_root,
    read_piece,
)
from nimbusd.stages.store.record import MOST_RECORD_BYTES, RECORD, is_ours, parse_record
from nimbusd.stages.types import EpisodeRequest, Piece
from nimbusd.transport.messages.node import Stored

MOST_SIZES = 32
"""Files of a piece whose sizes are looked at here; publishing looks at all of them. Some pieces hold every frame."""


class Sight(enum.Enum):
    """The result of a look. MISSING: nothing yet, which storage shared over a network may need a while for.

    BLIND: nobody here can see what lies in the output, so nothing is known of the piece.
    """

    GOOD = "good"
    MISSING = "missing"
    WRONG = "wrong"
    BLIND = "blind"


@dataclass(frozen=True, slots=True)
class Seen:
    """The result for one piece. why: a sentence, of all but GOOD."""

    sight: Sight
    why: str = ""


def misnamed(key: EpisodeKey, attempt: int, folder: str) -> str | None:
    """A sentence why a piece of this attempt cannot be in `folder`; None: that is its folder."""
    wanted = piece_folder(EpisodeRequest(key.job, key.scene, key.index, attempt=attempt))
    if folder == wanted:
        return None
    return f"its piece would be in {wanted}, and not in {folder[:200]!r}"


def look(output: Path, key: EpisodeKey, told: Stored) -> Seen:
    """Compare a piece with what was told of it. Reads its manifest, its record and some sizes; may wait for a disk."""
    pieces = f"{output}/{PIECES}"
    try:
        if not stat.S_ISDIR(os.lstat(f"{pieces}/{told.folder}").st_mode):
            return Seen(Sight.WRONG, f"{told.folder} is no folder")
        piece = read_piece(output, told.folder)
        return _compared(output, key, told, piece)
    except (OSError, StoreError) as error:
        try:
            os.stat(pieces)
        except OSError as blind:
            why = f"{pieces} cannot be seen here: {blind.strerror}. The output must be shared storage."
            return Seen(Sight.BLIND, why)
        cause = error.__cause__ if isinstance(error, StoreError) else error
        if not isinstance(cause, OSError) or cause.errno in (errno.ELOOP, errno.ENOTDIR):
            return Seen(Sight.WRONG, str(error))
        if cause.errno == errno.ENOENT:
            return Seen(Sight.MISSING, f"there is no whole piece {told.folder} in {pieces}")
        return Seen(Sight.BLIND, f"piece {told.folder} in {pieces} cannot be read here: {cause.strerror}")


def _compared(output: Path, key: EpisodeKey, told: Stored, piece: Piece) -> Seen:
    if manifest_digest(piece) != told.digest:
        return Seen(Sight.WRONG, f"the manifest of {told.folder} is not the one that was told")
    if (size_bytes := sum(file.size_bytes for file in piece.files)) != told.size_bytes:
        return Seen(Sight.WRONG, f"{told.folder} has {size_bytes} bytes, and not {told.size_bytes}")
    if piece.length != told.frames:
        return Seen(Sight.WRONG, f"{told.folder} has {piece.length} frames, and not {told.frames}")
    files = [file for file in piece.files if file.path != MANIFEST]  # that one was read just now
    if files and (
        faults := piece_faults(output, Piece(piece.folder, piece.length, tuple(files[:MOST_SIZES])), deep=False)
    ):
        return Seen(Sight.WRONG, faults[0])
    if why := record_fault(output, key, piece):
        return Seen(Sight.WRONG, why)
    return Seen(Sight.GOOD)


def record_fault(output: Path, key: EpisodeKey, piece: Piece) -> str:
    """A sentence why its record keeps a piece from being published as that episode; empty if nothing does.

    Raises StoreError if the record is torn or lacks what publishing needs, or OSError.
    """
    if not any(file.path == RECORD for file in piece.files):  # of a writer with a format of its own
        return ""
    content = read_beneath(piece_root(output, piece.folder), RECORD, MOST_RECORD_BYTES)
    if not is_ours(content):
        return ""
    record = parse_record(content, f"piece {piece.folder}: {RECORD}")
    facts = record["facts"]
    if (facts["job"], facts["scene"]["id"], facts["index_in_scene"]) != (key.job, key.scene, key.index):
        return f"the record of {piece.folder} is of another episode"
    if record["length"] != piece.length:
        return f"the record of {piece.folder} says {record['length']} frames, and not {piece.length}"
    return ""
