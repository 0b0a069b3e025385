"""Pieces: an episode's files before publishing, made durable all at once.

A piece is written to `<output>/.pieces/<folder>.tmp/`, every file and folder is synced, the folder is renamed to
drop `.tmp`, and `.pieces` is synced. So a folder without `.tmp` is always whole, whenever the process died.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import orjson

from nimbusd.stages.errors import OutputGone, StoreError
from nimbusd.stages.store.beneath import check_path, open_beneath, read_beneath
from nimbusd.stages.store.durable import folders_of, sync_file, sync_files, to_json, write_file
from nimbusd.stages.types import EpisodeRequest, Piece, PieceFile

PIECES = ".pieces"
MANIFEST = "manifest.json"
MOST_FILES = 200_000
MOST_MANIFEST_BYTES = 64 << 20
MOST_BYTES = 1 << 40
"""Of a piece: sizes over all episodes of a job must add up to what a ledger can hold."""
MOST_FRAMES = 1 << 30
_TMP = ".tmp"
_LONGEST_NAME = 90
_SHA256 = re.compile("[0-9a-f]{64}")
_AMBIGUOUS_UNDERSCORE = re.compile(r"_(?=_)|(?<=_)_|^_|_$")


def piece_folder(request: EpisodeRequest) -> str:
    """`<job>__<scene>__<index>.<attempt>`: different for different requests, and a valid file name.

    Other characters than letters, digits, `_.-~` are percent-encoded, and so are underscores that could be
    taken for the separator; overlong names end in their hash instead.
    """
    return f"{_safe(request.job)}__{_safe(request.scene)}__{request.index:06d}.{request.attempt}"


def draft_of(piece: Path) -> Path:
    """The folder in which a piece is written before it is whole."""
    return piece.with_name(piece.name + _TMP)


@functools.lru_cache(1024)
def _safe(name: str) -> str:
    text = _AMBIGUOUS_UNDERSCORE.sub("%5F", quote(name, safe=""))
    if len(text) > _LONGEST_NAME:
        text = f"{text[: _LONGEST_NAME - 17]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return text


class PieceDraft:
    """A piece being written. Nothing of it is visible under its final name before `commit` returns."""

    def __init__(self, output: Path, folder: str, fingerprint: str = "") -> None:
        self.output = output
        self.folder = folder
        self.fingerprint = fingerprint
        self.final = output / PIECES / folder
        self.root = draft_of(self.final)
        self._files: list[PieceFile] = []

    def add(self, path: str, content: bytes) -> None:
        """Write one file. path: relative, POSIX.

        Raises OSError with errno and path, StoreError for such a path, or OutputGone if the draft is gone.
        """
        target = self.root / check_path(path, f"piece {self.folder}")
        try:
            for folder in reversed(target.relative_to(self.root).parents[:-1]):
                (self.root / folder).mkdir(exist_ok=True)  # never the draft itself, nor the output: see `draft_piece`
            written = write_file(target, content)
        except FileNotFoundError as error:
            if self.root.exists():
                raise
            raise OutputGone(f"output {self.output} was removed or moved away") from error
        os.chmod(target, target.stat().st_mode & ~0o222)  # datasets hold it as a hard link, and are edited
        self._files.append(PieceFile(path, written.size_bytes, written.sha256))

    def commit(self, length: int) -> Piece:
        """Make the piece durable under its final name.

        Where an intact piece of this attempt is there already, that one stays and is returned: it may have
        been committed, and pieces in the ledger never change.
        """
        files = sorted(self._files, key=lambda file: file.path)
        self.add(MANIFEST, _manifest(length, files, self.fingerprint))
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
        return Piece(self.folder, length, tuple(sorted(self._files, key=lambda file: file.path)), self.fingerprint)


@contextmanager
def draft_piece(output: Path, request: EpisodeRequest) -> Iterator[PieceDraft]:
    """A draft for `request`; what was not committed when the block ends is removed.

    Raises OutputGone if there is no output folder.
    """
    draft = PieceDraft(output, piece_folder(request), request.fingerprint)
    shutil.rmtree(draft.root, ignore_errors=True)
    try:
        (output / PIECES).mkdir(exist_ok=True)  # never the output itself: who removed it wants it back as it was
    except FileNotFoundError as error:
        raise OutputGone(f"output {output} was removed or moved away") from error
    draft.root.mkdir()
    try:
        yield draft
    finally:
        shutil.rmtree(draft.root, ignore_errors=True)


def read_piece(output: Path, folder: str) -> Piece:
    """The piece in `<output>/.pieces/<folder>` as its manifest states it.

    Raises StoreError if there is none, if it cannot be read, or if it names what cannot be a file of a piece.
    """
    root = piece_root(output, folder)
    path = root / MANIFEST
    try:
        content = read_beneath(root, MANIFEST, MOST_MANIFEST_BYTES)
        stated = orjson.loads(content)
        length, fingerprint = _whole(stated["length"], MOST_FRAMES), str(stated.get("fingerprint", ""))
        rows = stated["files"]
        if len(rows) > MOST_FILES:
            raise ValueError(f"it names {len(rows)} files; at most {MOST_FILES} can be")
        files = [PieceFile(_path(row["path"]), _whole(row["size_bytes"], MOST_BYTES), _hash(row)) for row in rows]
        if sum(file.size_bytes for file in files) > MOST_BYTES:
            raise ValueError(f"its files have more than {MOST_BYTES} bytes")
        if len({file.path for file in files} | {MANIFEST}) != len(files) + 1:
            raise ValueError("it names a file twice, or itself")
    except (OSError, ValueError, KeyError, TypeError, StoreError) as error:
        raise StoreError(
            f"piece {folder!r} has no readable manifest {path}: {error}. Make the episode again."
        ) from error
    if content != _manifest(length, files, fingerprint):
        raise StoreError(f"piece {folder!r}: manifest {path} was changed after it was written. Make the episode again.")
    files.append(PieceFile(MANIFEST, len(content), hashlib.sha256(content).hexdigest()))
    return Piece(folder, length, tuple(sorted(files, key=lambda file: file.path)), fingerprint)


def piece_root(output: Path, folder: str) -> Path:
    """The folder of a piece. Raises StoreError if `folder` is no folder's name, or a link is in its place."""
    pieces = output / PIECES
    if "/" in check_path(folder, str(pieces)):
        raise StoreError(f"{pieces}: {folder!r} is not the name of a piece")
    if (pieces / folder).is_symlink():
        raise StoreError(f"piece {folder!r}: {pieces / folder} is a link, and a piece is a folder")
    return pieces / folder


def _whole(number: object, most: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= most:
        raise ValueError(f"{str(number)[:40]} is not a number from 0 to {most}")
    return number


def _path(path: object) -> str:
    if not isinstance(path, str):
        raise TypeError("a path is not text")
    return check_path(path, "manifest")


def _hash(row: dict[str, object]) -> str:
    sha256 = row["sha256"]
    if not isinstance(sha256, str) or _SHA256.fullmatch(sha256) is None:
        raise ValueError(f"a SHA-256 has 64 hexadecimal digits, not {str(sha256)[:80]!r}")
    return sha256


def piece_faults(output: Path, piece: Piece, *, deep: bool) -> list[str]:
    """Differences between the piece on disk and `piece`: missing files and sizes; contents too if `deep`.

    A file that is no regular file, or that is reached by a link, is a fault, too; it is not opened.
    """
    try:
        root = piece_root(output, piece.folder)
    except StoreError as error:
        return [str(error)]
    faults = []
    for file in piece.files:
        try:
            with os.fdopen(open_beneath(root, file.path), "rb") as content:
                size = os.fstat(content.fileno()).st_size
                if size != file.size_bytes:
                    faults.append(f"piece {piece.folder}: {file.path} has {size} bytes instead of {file.size_bytes}")
                elif deep and hashlib.file_digest(content, "sha256").hexdigest() != file.sha256:
                    faults.append(f"piece {piece.folder}: the content of {file.path} differs from its SHA-256")
        except OSError as error:
            what = "is a link" if error.errno == errno.ELOOP else "is missing"
            faults.append(f"piece {piece.folder}: {file.path} {what} ({error.strerror})")
        except StoreError as error:
            faults.append(f"piece {piece.folder}: {error}")
    return faults


def _intact(output: Path, folder: str) -> Piece | None:
    try:
        piece = read_piece(output, folder)
    except StoreError:
        return None
    return None if piece_faults(output, piece, deep=True) else piece


def _manifest(length: int, files: list[PieceFile], fingerprint: str) -> bytes:
    """Pieces that were stored without a fingerprint say nothing of one."""
    rows = [{"path": file.path, "size_bytes": file.size_bytes, "sha256": file.sha256} for file in files]
    made_for = {"fingerprint": fingerprint} if fingerprint else {}
    return to_json({"length": length, **made_for, "files": rows}, indent=True)


def manifest_digest(piece: Piece) -> str:
    """SHA-256 (hex) over every file's path, size and hash, so that one short value vouches for the whole piece."""
    files = sorted((file.path, file.size_bytes, file.sha256) for file in piece.files)
    return hashlib.sha256(orjson.dumps(files)).hexdigest()
