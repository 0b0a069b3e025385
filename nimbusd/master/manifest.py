"""The digest that ties a row of the ledger to the files of a piece."""

from __future__ import annotations

import hashlib

import orjson

from nimbusd.stages.types import Piece


def manifest_digest(piece: Piece) -> str:
    """SHA-256 (hex) over every file's path, size and hash, so that one short value vouches for the whole piece."""
    files = sorted((file.path, file.size_bytes, file.sha256) for file in piece.files)
    return hashlib.sha256(orjson.dumps(files)).hexdigest()
