"""Whether two pieces hold the same episode: its state columns byte by byte, and its media."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from nimbusd.master.manifest import manifest_digest
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.piece import MANIFEST, PIECES, read_piece
from nimbusd.stages.store.record import RECORD

_MEDIA = frozenset({".mp4", ".mkv", ".png", ".jpg", ".jpeg", ".ply", ".exr", ".npz"})
_NOT_THE_EPISODE = ("run", "facts.config")
"""Parts of an episode's record that say how it was made, by which release and among which others; not what it is."""
_OF_MEDIA = frozenset({"videos", "stats"})


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs, as sentences. files: how many were compared."""

    files: int
    state_differences: tuple[str, ...]
    media_differences: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether all of it is the same."""
        return not self.state_differences and not self.media_differences


def compare_pieces(committed: tuple[Path, str], made: tuple[Path, str], digest: str = "") -> Comparison:
    """Compare two pieces, each given as (output, folder). digest: of the committed one's manifest, if it is known.

    Raises StoreError if one cannot be read, or the committed one is not what was committed.
    """
    one, other = read_piece(*committed), read_piece(*made)
    if digest and manifest_digest(one) != digest:
        raise StoreError(
            f"piece {one.folder} is not the one that was committed: its manifest differs from the ledger. "
            f"Run `nimbusctl verify {committed[0]}`."
        )
    ours = {file.path: file.sha256 for file in one.files if file.path != MANIFEST}
    theirs = {file.path: file.sha256 for file in other.files if file.path != MANIFEST}
    state: list[str] = []
    media: list[str] = []
    for path in sorted(ours.keys() | theirs.keys()):
        kind = media if PurePosixPath(path).suffix in _MEDIA else state
        if path not in theirs:
            kind.append(f"{path} was not made")
        elif path not in ours:
            kind.append(f"{path} is new")
        elif ours[path] != theirs[path]:
            paths = committed[0] / PIECES / one.folder / path, made[0] / PIECES / other.folder / path
            if path == RECORD:
                _compare_records(*paths, state, media)
            elif path.endswith(".parquet"):
                _compare_tables(*paths, path, state, media)
            else:
                kind.append(f"{path} differs")
    return Comparison(len(ours.keys() | theirs.keys()), tuple(state), tuple(media))


def _compare_records(one: Path, other: Path, state: list[str], media: list[str]) -> None:
    ours, theirs = orjson.loads(one.read_bytes()), orjson.loads(other.read_bytes())
    for key in sorted(ours.keys() | theirs.keys()):
        for part in _differing(ours.get(key), theirs.get(key), key):
            if part.startswith(_NOT_THE_EPISODE):
                continue
            (media if key in _OF_MEDIA and "image" in part else state).append(f"{RECORD}: {part} differs")


def _differing(one: Any, other: Any, name: str) -> list[str]:
    """The keys, two levels deep, at which two JSON values differ."""
    if one == other:
        return []
    if name.count(".") < 2 and isinstance(one, dict) and isinstance(other, dict):
        return [
            part
            for key in sorted(one.keys() | other.keys())
            for part in _differing(one.get(key), other.get(key), f"{name}.{key}")
        ]
    return [name]


def _compare_tables(one: Path, other: Path, path: str, state: list[str], media: list[str]) -> None:
    """Tables column by column: images are structs, everything else is state."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ours, theirs = pq.read_table(one), pq.read_table(other)
    if ours.schema != theirs.schema:
        state.append(f"{path}: its columns differ")
        return
    for field in ours.schema:
        if not ours.column(field.name).equals(theirs.column(field.name)):
            (media if pa.types.is_struct(field.type) else state).append(f"{path}: column {field.name} differs")
