"""Pieces that are as they should be, and pieces that are not: what honest and hostile nodes store and report."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import orjson

from nimbusd.stages.store.durable import to_json
from nimbusd.stages.store.formats.table import DEFAULT_FORMAT
from nimbusd.stages.store.piece import MANIFEST, PIECES, draft_piece, manifest_digest, piece_folder
from nimbusd.stages.store.record import RECORD
from nimbusd.stages.types import EpisodeRequest, Piece, PieceFile
from nimbusd.transport.messages import control as c


def stored_of(piece: Piece, index: int) -> c.Stored:
    """Describe a piece as an honest node does."""
    size_bytes = sum(file.size_bytes for file in piece.files)
    return c.Stored(index, piece.folder, piece.length, size_bytes, manifest_digest(piece), 0.1)


def store(output: Path, request: EpisodeRequest) -> c.Stored:
    """Store a piece as toy writers do, and report it."""
    with draft_piece(output, request) as draft:
        draft.add("state.txt", request.scene.encode())
        return stored_of(draft.commit(3), request.index)


def forge(output: Path, request: EpisodeRequest, files: dict[str, bytes | None], length: int = 3) -> c.Stored:
    """Store a piece whose manifest names any paths: with their content, or None for a file that is not written.

    All sums are right, so that nothing but the paths gives it away.
    """
    folder = piece_folder(request)
    root = output / PIECES / folder
    root.mkdir()
    rows = []
    for path, content in sorted(files.items()):
        kept = content if content is not None else b"secret"
        rows.append(PieceFile(path, len(kept), hashlib.sha256(kept).hexdigest()))
        if content is not None:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
    described = [{"path": row.path, "size_bytes": row.size_bytes, "sha256": row.sha256} for row in rows]
    manifest = to_json({"length": length, "files": described}, indent=True)
    (root / MANIFEST).write_bytes(manifest)
    own = PieceFile(MANIFEST, len(manifest), hashlib.sha256(manifest).hexdigest())
    return stored_of(Piece(folder, length, tuple(sorted([*rows, own], key=lambda row: row.path))), request.index)


# --- lies: each stores something, or nothing, and returns what it reports ---


def nothing(_: Path, request: EpisodeRequest) -> c.Stored:
    """There is no piece."""
    return c.Stored(request.index, piece_folder(request), 3, 10, "0" * 64, 0.1)


def outside(output: Path, request: EpisodeRequest) -> c.Stored:
    """The folder is another one."""
    return replace(nothing(output, request), folder="../../etc")


def of_another(output: Path, request: EpisodeRequest) -> c.Stored:
    """The folder is that of another episode."""
    return replace(nothing(output, request), folder=piece_folder(replace(request, index=request.index + 1)))


def too_large(output: Path, request: EpisodeRequest) -> c.Stored:
    """More bytes than there are."""
    return replace(store(output, request), size_bytes=1 << 40)


def too_long(output: Path, request: EpisodeRequest) -> c.Stored:
    """More frames than there are."""
    return replace(store(output, request), frames=1 << 30)


def other_digest(output: Path, request: EpisodeRequest) -> c.Stored:
    """The manifest is another one."""
    return replace(store(output, request), digest="f" * 64)


def climbing_path(output: Path, request: EpisodeRequest) -> c.Stored:
    """A file of the manifest is a private one of the master."""
    return forge(output, request, {"files/../../../secret": None})


def linked_file(output: Path, request: EpisodeRequest) -> c.Stored:
    """A file is a link to a private one of the master."""
    stored = forge(output, request, {"files/secret": None, "state.txt": b"x"})
    (output / PIECES / stored.folder / "files").mkdir()
    (output / PIECES / stored.folder / "files/secret").symlink_to(output.parent / "secret")
    return stored


def linked_folder(output: Path, request: EpisodeRequest) -> c.Stored:
    """The piece's folder is a link to a whole piece elsewhere."""
    stored = store(output, request)
    elsewhere = output.parent / f"elsewhere-{stored.folder}"
    shutil.rmtree(elsewhere, ignore_errors=True)
    shutil.move(output / PIECES / stored.folder, elsewhere)
    (output / PIECES / stored.folder).symlink_to(elsewhere)
    return stored


def pipe(output: Path, request: EpisodeRequest) -> c.Stored:
    """A file is a pipe, which nobody ever writes to."""
    stored = forge(output, request, {"state.txt": None})
    os.mkfifo(output / PIECES / stored.folder / "state.txt")
    return stored


def manifest_is_a_pipe(output: Path, request: EpisodeRequest) -> c.Stored:
    """The manifest is a pipe."""
    stored = nothing(output, request)
    (output / PIECES / stored.folder).mkdir()
    os.mkfifo(output / PIECES / stored.folder / MANIFEST)
    return stored


def no_file(output: Path, request: EpisodeRequest) -> c.Stored:
    """A file is missing."""
    return forge(output, request, {"state.txt": None})


def record_without_fps(output: Path, request: EpisodeRequest) -> c.Stored:
    """The record lacks what publishing needs."""
    return forge(output, request, {RECORD: orjson.dumps({"format": DEFAULT_FORMAT, "length": 3, "features": {}})})


LIES: dict[str, Callable[[Path, EpisodeRequest], c.Stored]] = {
    lie.__name__: lie
    for lie in (
        nothing, outside, of_another, too_large, too_long, other_digest, climbing_path, linked_file, linked_folder,
        pipe, manifest_is_a_pipe, no_file, record_without_fps,
    )
}  # fmt: skip
BARE_LIES = {name: lie for name, lie in LIES.items() if lie not in (nothing, too_large, too_long, other_digest)}
"""Lies that leave nothing whole behind, and are refused at once."""
