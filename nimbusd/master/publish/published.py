"""An output folder's notes on its dataset: the pieces that it was made of, and how its files looked then.

Kept in `<output>/.nimbusd/published.json`, so that the same pieces are not published a second time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from nimbusd import __version__
from nimbusd.job import Job
from nimbusd.stages.store.conventions import SCHEMA_VERSION
from nimbusd.stages.store.durable import sync_file
from nimbusd.stages.store.piece import manifest_digest
from nimbusd.stages.store.publish import DATASET, check_link
from nimbusd.stages.types import Piece

_NOTE = Path(".nimbusd", "published.json")


def content_digest(job: Job, pieces: list[Piece], facts: dict[str, Any]) -> str:
    """SHA-256 (hex) of what a dataset follows from: pieces in their order, the writer's settings, this version."""
    store = job.stages["store"]
    made_of = {
        "nimbusd": [__version__, SCHEMA_VERSION],
        "writer": [store.component, store.version, dict(store.args)],
        "facts": facts,
        "pieces": [[piece.folder, manifest_digest(piece)] for piece in pieces],
    }
    return hashlib.sha256(orjson.dumps(made_of, option=orjson.OPT_SORT_KEYS)).hexdigest()


def published_already(output: Path, content: str, *, final: bool) -> Path | None:
    """The dataset's path, if it was made of the same content and its files are as they were left. None otherwise.

    final: it must be a final one.
    """
    note = _note(output)
    if note.get("content") != content or (final and not note.get("final")):
        return None
    dataset = output / str(note.get("dataset"))
    return dataset if _looks(dataset) == note.get("looks") else None


def note_published(output: Path, content: str, dataset: Path, *, final: bool) -> None:
    """Remember a dataset that was just published. Raises OSError."""
    place = os.path.relpath(dataset, output)
    note = {"content": content, "final": final, "dataset": place, "looks": _looks(dataset)}
    path = output / _NOTE
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(orjson.dumps(note, option=orjson.OPT_INDENT_2))
    sync_file(temporary)
    temporary.replace(path)


def check_place(output: Path) -> None:
    """Raise StoreError if something of somebody else's lies where the dataset will be.

    A writer of the user's own may make `dataset` whatever it likes; then it has been published there before.
    """
    if _note(output).get("dataset") != DATASET or (output / DATASET).is_symlink():
        check_link(output)


def _note(output: Path) -> dict[str, Any]:
    """Read the notes; none if they cannot be read, which costs no more than publishing once more."""
    try:
        note = orjson.loads((output / _NOTE).read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _looks(dataset: Path) -> str:
    """SHA-256 (hex) of the names, sizes and times of change of a dataset's files; empty if it cannot be read."""
    digest = hashlib.sha256()
    try:
        root = dataset.resolve(strict=True)
        for path in sorted(_files(root)):
            stat = path.stat()
            digest.update(f"{path.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    except OSError:
        return ""
    return digest.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        yield root
        return
    for folder, _, names in os.walk(root, onerror=_raise):
        yield from (Path(folder, name) for name in names)


def _raise(error: OSError) -> None:
    raise error
