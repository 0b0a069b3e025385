"""Files that survive a power cut: written whole, synced, and named in every OSError."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from nimbusd.stages.base import no_beat
from nimbusd.stages.errors import StoreError
from nimbusd.stages.types import PieceFile

_MANY_FILES = 16
_SYNC_THREADS = 8
_HASH_CHUNK_BYTES = 1 << 20


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError from a call that knows only a descriptor the path that it is about."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_file(path: Path, content: bytes) -> PieceFile:
    """Create `path` with `content`; not yet durable, see `sync_file`. The result's path is `path.name`.

    The umask decides who may use it: outputs are shared by nodes and a master that need not be the same user, and the
    kernel lets nobody make a hard link to another user's file who may not write to it.

    Raises OSError (also FileExistsError: nothing here is ever overwritten).
    """
    with naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)
    return PieceFile(path.name, len(content), hashlib.sha256(content).hexdigest())


def sync_file(path: Path) -> None:
    """Make the content of a file, or the entries of a folder, durable."""
    with naming(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sync_files(paths: Iterable[Path], beat: Callable[[], None] = no_beat) -> None:
    """`sync_file` for each; side by side where there are many, as file systems sync waiting calls together.

    beat: called after each.
    """
    paths = list(paths)
    if len(paths) < _MANY_FILES:
        for path in paths:
            sync_file(path)
            beat()
        return
    with ThreadPoolExecutor(_SYNC_THREADS) as pool:
        for _ in pool.map(sync_file, paths):
            beat()


def folders_of(root: Path, files: Iterable[str]) -> list[Path]:
    """`root` and every folder under it that holds one of `files` (relative paths), deepest first."""
    folders = {root}
    for file in files:
        folders.update(root / parent for parent in Path(file).parents)
    return sorted(folders, key=lambda folder: (-len(folder.parts), str(folder)))


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file's content."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def to_json(value: Any, *, indent: bool = False) -> bytes:
    """JSON in UTF-8; numpy values become numbers and lists. Raises StoreError for what JSON cannot say."""
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
    try:
        return orjson.dumps(value, default=_plain, option=options)
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"metadata holds a value that JSON cannot express: {error}. Notes take JSON values."
        ) from error


def to_json_lines(rows: Iterable[Any]) -> bytes:
    """One JSON document per line."""
    return b"".join(to_json(row) + b"\n" for row in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # arrays that are not C-contiguous, or of a type orjson does not know
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "items"):
        return dict(value)
    raise TypeError(f"{type(value).__name__} {value!r}")
