"""Pieces: an episode's files before publishing, made durable all at once.

A piece is written to `<output>/.pieces/<folder>.tmp/`, every file and folder is synced, the folder is renamed to
drop `.tmp`, and `.pieces` is synced. So a folder without `.tmp` is always whole, whenever the process died.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import orjson

from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.durable import file_sha256, folders_of, sync_file, sync_files, to_json, write_file
from nimbusd.stages.types import EpisodeRequest, Piece, PieceFile

PIECES = ".pieces"
MANIFEST = "manifest.json"
_TMP = ".tmp"
_LONGEST_NAME = 90
_AMBIGUOUS_UNDERSCORE = re.compile(r"_(?=_)|(?<=_)_|^_|_$")


def piece_folder(request: EpisodeRequest) -> str:
    """`<job>__<scene>__<index>.<attempt>`: different for different requests, and a valid file name.

    Other characters than letters, digits, `_.-~` are percent-encoded, and so are underscores that could be
    taken for the separator; overlong names end in their hash instead.
    """
    return f"{_safe(request.job)}__{_safe(request.scene)}__{request.index:06d}.{request.attempt}"


def draft_of(piece: Path) -> Path:
    """Where the piece is written before it is whole."""
    return piece.with_name(piece.name + _TMP)


def _safe(name: str) -> str:
    text = _AMBIGUOUS_UNDERSCORE.sub("%5F", quote(name, safe=""))
    if len(text) > _LONGEST_NAME:
        text = f"{text[: _LONGEST_NAME - 17]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return text


class PieceDraft:
    """A piece being written. Nothing of it is visible under its final name before `commit` returns."""

    def __init__(self, output: Path, folder: str) -> None:
        self.output = output
        self.folder = folder
        self.final = output / PIECES / folder
        self.root = draft_of(self.final)
        self._files: list[PieceFile] = []

    def add(self, path: str, content: bytes) -> None:
        """Write one file. path: relative, POSIX. Raises OSError with errno and path."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        written = write_file(target, content)
        self._files.append(PieceFile(path, written.size_bytes, written.sha256))

    def commit(self, length: int) -> Piece:
        """Make the piece durable under its final name.

        Where an intact piece of this attempt is there already, that one stays and is returned: it may have
        been committed, and pieces in the ledger never change.
        """
        files = sorted(self._files, key=lambda file: file.path)
        self.add(MANIFEST, _manifest(length, files))
        paths = [file.path for file in self._files]
        sync_files(self.root / path for path in paths)
        for folder in folders_of(self.root, paths):
            sync_file(folder)
        if self.final.is_dir():
            earlier = _intact(self.output, self.folder)
            if earlier is not None:
                return earlier
            shutil.rmtree(self.final)
        os.rename(self.root, self.final)
        sync_file(self.final.parent)
        return Piece(self.folder, length, tuple(sorted(self._files, key=lambda file: file.path)))


@contextmanager
def draft_piece(output: Path, request: EpisodeRequest) -> Iterator[PieceDraft]:
    """A draft for `request`; what was not committed when the block ends is removed."""
    draft = PieceDraft(output, piece_folder(request))
    shutil.rmtree(draft.root, ignore_errors=True)
    draft.root.mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft.root, ignore_errors=True)


def read_piece(output: Path, folder: str) -> Piece:
    """The piece in `<output>/.pieces/<folder>` as its manifest states it. Raises StoreError if unreadable."""
    path = output / PIECES / folder / MANIFEST
    try:
        content = path.read_bytes()
        stated = orjson.loads(content)
        length = int(stated["length"])
        files = [PieceFile(str(row["path"]), int(row["size_bytes"]), str(row["sha256"])) for row in stated["files"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"piece {folder!r} has no readable manifest {path}: {error}. Make the episode again."
        ) from error
    if content != _manifest(length, files):
        raise StoreError(f"piece {folder!r}: manifest {path} was changed after it was written. Make the episode again.")
    files.append(PieceFile(MANIFEST, len(content), hashlib.sha256(content).hexdigest()))
    return Piece(folder, length, tuple(sorted(files, key=lambda file: file.path)))


def piece_faults(output: Path, piece: Piece, *, deep: bool) -> list[str]:
    """What differs between the piece on disk and `piece`: missing files and sizes; contents too if `deep`."""
    root = output / PIECES / piece.folder
    faults = []
    for file in piece.files:
        path = root / file.path
        try:
            size = path.stat().st_size
        except OSError as error:
            faults.append(f"piece {piece.folder}: {file.path} is missing ({error.strerror})")
            continue
        if size != file.size_bytes:
            faults.append(f"piece {piece.folder}: {file.path} has {size} bytes instead of {file.size_bytes}")
        elif deep and file_sha256(path) != file.sha256:
            faults.append(f"piece {piece.folder}: the content of {file.path} differs from its SHA-256")
    return faults


def _intact(output: Path, folder: str) -> Piece | None:
    try:
        piece = read_piece(output, folder)
    except StoreError:
        return None
    return None if piece_faults(output, piece, deep=True) else piece


def _manifest(length: int, files: list[PieceFile]) -> bytes:
    rows = [{"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in files]
    return to_json({"length": length, "files": rows}, indent=True)
