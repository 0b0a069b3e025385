"""The comparison of two pieces of an episode: state columns number by number, media pixel by pixel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import orjson

from nimbusd.replay.difference import Difference, Tolerance, json_differences, rows_difference
from nimbusd.replay.media import image_difference, video_difference
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.beneath import file_beneath
from nimbusd.stages.store.piece import MANIFEST, manifest_digest, piece_root, read_piece
from nimbusd.stages.store.record import RECORD, is_ours, parse_record

_IMAGES = frozenset({".png", ".jpg", ".jpeg"})
_VIDEOS = frozenset({".mp4", ".mkv"})
_MEDIA = _IMAGES | _VIDEOS | {".ply", ".exr", ".npz"}
_FRAME = re.compile(r"(\d+)$")
_NOT_THE_EPISODE = (
    *(f"{RECORD}: {part}" for part in ("run", "facts.schema_version", "facts.renderer")),
    *(f"{RECORD}: {part}" for part in ("facts.config", "facts.components", "facts.seeds")),
)
"""Parts of an episode's record that say how it was made, by which release and among which others; not what it is."""
_LEVELS = 255


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between two pieces. files: the number of those compared."""

    files: int
    differences: tuple[Difference, ...] = ()

    @property
    def equal(self) -> bool:
        """True where all of it is the same."""
        return not self.differences

    @property
    def within(self) -> bool:
        """True where all that differs is tolerated."""
        return all(found.tolerated for found in self.differences)

    @property
    def state_equal(self) -> bool:
        """True where nothing but media differs."""
        return all(found.media for found in self.differences)

    @property
    def diverged(self) -> Difference | None:
        """The difference at the earliest frame, beyond the tolerance; states before media. None if no frame differs."""
        of_frames = [found for found in self.differences if found.frame is not None and not found.tolerated]
        return min(of_frames, key=lambda found: (found.frame or 0, found.media), default=None)

    @property
    def largest(self) -> Difference | None:
        """The largest of the differences that have an amount; states before media."""
        measured = [found for found in self.differences if found.amount is not None]
        return max(measured, key=lambda found: (not found.media, found.amount or 0.0), default=None)


@dataclass(frozen=True, slots=True)
class _Files:
    """A file that both pieces have. path: in the piece. one: of the committed piece. record: of that piece, if ours."""

    path: str
    one: Path
    other: Path
    record: dict[str, Any] | None
    tolerance: Tolerance


def compare_pieces(
    committed: tuple[Path, str], made: tuple[Path, str], digest: str = "", tolerance: Tolerance | None = None
) -> Comparison:
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
    record = record_of(*committed) if RECORD in ours else None
    found: list[Difference] = []
    for path in sorted(ours.keys() | theirs.keys()):
        media = PurePosixPath(path).suffix in _MEDIA
        if path not in theirs:
            found.append(Difference(path, "was not made", media, _frame_of(path)))
        elif path not in ours:
            found.append(Difference(path, "is new", media, _frame_of(path)))
        elif ours[path] != theirs[path]:
            files = file_beneath(piece_root(*committed), path), file_beneath(piece_root(*made), path)
            found += _compare(_Files(path, *files, record, tolerance or Tolerance()))
    return Comparison(len(ours.keys() | theirs.keys()), tuple(found))


def record_of(output: Path, folder: str) -> dict[str, Any] | None:
    """The record of a piece that one of our writers made; None for a writer of somebody's own.

    Raises StoreError if it cannot be read.
    """
    try:
        content = file_beneath(piece_root(output, folder), RECORD).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"piece {folder}: {RECORD} cannot be read ({error})") from error
    return parse_record(content, f"piece {folder}: {RECORD}") if is_ours(content) else None


def _compare(files: _Files) -> Iterator[Difference]:
    """Two versions of a file whose bytes differ."""
    suffix = PurePosixPath(files.path).suffix
    if files.path == RECORD and files.record is not None:
        yield from _records(files)
    elif suffix == ".parquet":
        yield from _tables(files)
    elif suffix in (".json", ".jsonl"):
        yield from _lines(files)
    elif suffix in _VIDEOS and files.record is not None:
        length, fps = int(files.record["length"]), float(files.record["fps"])
        if found := video_difference(files.path, files.one, files.other, length, fps, files.tolerance):
            yield found
    elif suffix in _IMAGES:
        yield from _images(files)
    else:
        yield Difference(files.path, "differs", suffix in _MEDIA)


def _frame_of(path: str) -> int | None:
    """The frame that a file of our own is of, by its name."""
    file = PurePosixPath(path)
    number = _FRAME.fullmatch(file.stem)
    return int(number[1]) if number and file.suffix in _IMAGES and len(file.parts) == 2 else None


def _images(files: _Files) -> Iterator[Difference]:
    found = image_difference(files.path, [files.one.read_bytes()], [files.other.read_bytes()], files.tolerance)
    if found is not None:
        frame = _frame_of(files.path)
        what = found.what.replace(" from frame 0 on", "")
        yield Difference(files.path, what, True, frame, found.amount, found.tolerated)


def _records(files: _Files) -> Iterator[Difference]:
    """Statistics of numbers follow from columns, which are compared themselves; those of images follow from pixels."""
    ours, theirs = (orjson.loads(path.read_bytes()) for path in (files.one, files.other))
    pixels = {key for key, entry in ours["features"].items() if entry["dtype"] in ("video", "image")}
    for record in (ours, theirs):
        record["stats"] = {key: value for key, value in record["stats"].items() if key in pixels}
    for key in sorted(ours.keys() | theirs.keys()):
        if key == "stats":
            yield from _image_statistics(ours[key], theirs[key], files.tolerance)
            continue
        for found in json_differences(ours.get(key), theirs.get(key), f"{RECORD}: {key}", files.tolerance.numbers):
            if not found.place.startswith(_NOT_THE_EPISODE):
                media = key == "videos"
                yield Difference(found.place, found.what, media, None, found.amount, found.tolerated)


def _image_statistics(ours: Any, theirs: Any, tolerance: Tolerance) -> Iterator[Difference]:
    for found in json_differences(ours, theirs, f"{RECORD}: stats", tolerance.levels / _LEVELS, 1):
        if found.amount is None:
            yield Difference(found.place, found.what, True)
        else:
            levels = found.amount * _LEVELS
            what = f"differs by {levels:.3g} of {_LEVELS} levels"
            yield Difference(found.place, what, True, None, levels, levels <= tolerance.levels)


def _lines(files: _Files) -> Iterator[Difference]:
    """JSON, or lines of it: the first line that differs beyond the tolerance, else the first that differs."""
    try:
        ours, theirs = ([orjson.loads(line) for line in _texts(path)] for path in (files.one, files.other))
    except ValueError:
        yield Difference(files.path, "differs")
        return
    found: Difference | None = None
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        frame = one.get("frame_index") if isinstance(one, dict) else None
        name = f"{files.path}: line {number + 1}" if len(ours) > 1 else files.path
        for difference in json_differences(one, other, name, files.tolerance.numbers, frame=frame):
            if found is None or (found.tolerated and not difference.tolerated):
                found = difference
    if found is not None:
        yield found
    if len(ours) != len(theirs):
        yield Difference(files.path, f"has {len(theirs)} lines instead of {len(ours)}")


def _texts(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.suffix == ".jsonl" else [path.read_bytes()]


def _tables(files: _Files) -> Iterator[Difference]:
    """Tables column by column: images are structs, everything else is state."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ours, theirs = pq.read_table(files.one), pq.read_table(files.other)
    features = (files.record or {}).get("features", {})
    for key in dict.fromkeys([*ours.column_names, *theirs.column_names]):
        place = f"{files.path}: {key}"
        if key not in theirs.column_names:
            yield Difference(place, "was not made")
            continue
        if key not in ours.column_names:
            yield Difference(place, "is new")
            continue
        one, other = ours.column(key), theirs.column(key)
        media = pa.types.is_struct(one.type)
        if one.type != other.type:
            yield Difference(place, f"is of type {other.type} instead of {one.type}", media)
        elif media:
            yield from _image_column(place, one.to_pylist(), other.to_pylist(), files.tolerance)
        elif not one.equals(other):
            names = features.get(key, {}).get("names")
            yield _number_column(place, one, other, files.tolerance.numbers, names)


def _image_column(place: str, ours: list[Any], theirs: list[Any], tolerance: Tolerance) -> Iterator[Difference]:
    length = min(len(ours), len(theirs))
    one, other = ([row["bytes"] for row in rows[:length]] for rows in (ours, theirs))
    if found := image_difference(place, one, other, tolerance):
        yield found
    if len(ours) != len(theirs):
        yield Difference(place, f"has {len(theirs)} frames instead of {len(ours)}", True, length)


def _number_column(place: str, one: Any, other: Any, tolerance: float, names: list[str] | None) -> Difference:
    """A column of numbers; what else there may be in a table differs as a whole."""
    try:
        ours, theirs = (np.array(column.to_pylist()) for column in (one, other))
        if ours.dtype.kind in "fiub" and ours.shape[1:] == theirs.shape[1:]:
            return rows_difference(place, ours, theirs, tolerance, names) or Difference(
                place, "differs in the sign of its zeros", amount=0.0, tolerated=True
            )
    except (ValueError, TypeError):
        pass  # lists of different lengths, or of texts
    return Difference(place, "differs")
