"""Publishing: committed pieces become a dataset, swapped in atomically.

`<output>/dataset` is a relative link to `<output>/.published/<number>/`. A snapshot is built beside, synced, renamed,
and the link is replaced in one step; the snapshot before it stays for readers that have it open, older ones go.
Files that need no change are hard links to the pieces' files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from nimbusd.stages.base import no_beat
from nimbusd.stages.errors import StoreError
from nimbusd.stages.store.arm_columns import stated_meanings
from nimbusd.stages.store.beneath import check_path, link_beneath
from nimbusd.stages.store.conventions import conventions
from nimbusd.stages.store.durable import (
    file_sha256,
    folders_of,
    naming,
    sync_file,
    sync_files,
    to_json,
    to_json_lines,
    write_file,
)
from nimbusd.stages.store.made_with import ENVIRONMENT, environment_json, environments_of
from nimbusd.stages.store.piece import piece_faults
from nimbusd.stages.store.source_piece import SourcePiece, load_piece
from nimbusd.stages.types import Piece, PieceFile

DATASET = "dataset"
PUBLISHED = ".published"
CHECKSUMS = "meta/checksums.json"
CONVENTIONS = "meta/conventions.json"
EPISODES_METADATA = "meta/nimbusd_episodes.jsonl"
JOB = "meta/nimbusd_job.json"
_NEW_LINK = ".dataset.new"
_TMP = ".tmp"


class Tree:
    """A folder of a dataset under construction, which ends up with a checksum of every file in it.

    beat: called for every file.
    """

    def __init__(self, root: Path, beat: Callable[[], None] = no_beat) -> None:
        self.root = root
        self._beat = beat
        self._files: dict[str, PieceFile] = {}
        self._unsynced: list[str] = []

    def write(self, path: str, content: bytes) -> None:
        """Add a file with `content`."""
        written = write_file(self._target(path), content)
        self._note(path, written.size_bytes, written.sha256)

    def link(self, path: str, source: SourcePiece, name: str) -> None:
        """Add the piece's file `name` as `path`, without copying where the file system can."""
        file = source.file(name)
        link_beneath(source.root, name, self._target(path))
        self._note(path, file.size_bytes, file.sha256)

    def adopt(self, path: str, make: Callable[[Path], None]) -> None:
        """Add a file that `make` writes itself, given where."""
        target = self._target(path)
        with naming(target):
            make(target)
        self._note(path, target.stat().st_size, file_sha256(target))

    def finish(self) -> None:
        """Write the checksums and make the tree durable."""
        rows = {path: [file.size_bytes, file.sha256] for path, file in sorted(self._files.items())}
        self.write(CHECKSUMS, checksums_text(rows))
        sync_files((self.root / path for path in self._unsynced), self._beat)
        for folder in folders_of(self.root, self._files):
            sync_file(folder)

    def _target(self, path: str) -> Path:
        target = self.root / check_path(path, str(self.root))
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _note(self, path: str, size: int, sha256: str) -> None:
        self._files[path] = PieceFile(path, size, sha256)
        self._unsynced.append(path)
        self._beat()


def checksums_text(rows: Mapping[str, Any]) -> bytes:
    """Content of `meta/checksums.json`: path → [size, SHA-256], and a SHA-256 of that table itself."""
    import hashlib

    return to_json({"files": rows, "sha256": hashlib.sha256(to_json(rows)).hexdigest()}, indent=True)


Build: TypeAlias = Callable[[Path, list[SourcePiece]], None]
"""Writes a dataset of some format into an empty folder."""


def publish_pieces(
    output: Path,
    pieces: Iterable[Piece],
    format_name: str,
    build: Build,
    *,
    final: bool,
    beat: Callable[[], None] = no_beat,
) -> Path:
    """Make `<output>/dataset` hold exactly `pieces`. Returns its path. beat: called for every piece that is checked.

    There is no dataset without episodes: raises StoreError for no pieces, and for a piece that is missing or
    torn (sizes are checked every time, contents when `final`). The dataset before stays as it was then.
    """
    sources = _checked(output, list(pieces), format_name, beat, deep=final)
    published = output / PUBLISHED
    published.mkdir(parents=True, exist_ok=True)
    for leftover in published.glob("*" + _TMP):
        shutil.rmtree(leftover)
    number = max(_numbers(published), default=0) + 1
    draft = published / f"{number}{_TMP}"
    draft.mkdir()
    try:
        _build(build, draft, sources, output)
        os.rename(draft, published / str(number))
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    sync_file(published)
    before = _swap(output, number)
    for other in set(_numbers(published)) - {number, before}:  # older ones, and those that a crash left unused
        shutil.rmtree(published / str(other))
    return output / DATASET


def _checked(
    output: Path, pieces: list[Piece], format_name: str, beat: Callable[[], None], *, deep: bool
) -> list[SourcePiece]:
    if not pieces:
        raise StoreError(f"nothing to publish in {output}: no episode is committed yet")
    faults = []
    for piece in pieces:
        faults += piece_faults(output, piece, deep=deep)
        beat()
    if faults:
        raise StoreError(
            f"cannot publish {output}: {faults[0]}"
            + (f" (and {len(faults) - 1} more faults)" if len(faults) > 1 else "")
            + ". Make the episode again (`nimbusctl retry`)."
        )
    sources = []
    for piece in pieces:
        sources.append(load_piece(output, piece, format_name))
        beat()
    return sources


def _build(build: Build, draft: Path, sources: list[SourcePiece], output: Path) -> None:
    """`build`, of which every error about what lies in the pieces is a StoreError."""
    import pyarrow as pa

    try:
        build(draft, sources)
    except (KeyError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, pa.ArrowException) as error:
        raise StoreError(
            f"cannot publish {output}: what its pieces hold makes no dataset ({type(error).__name__}: {error}). "
            f"`nimbusctl verify {output}` names those that are damaged."
        ) from error


def _numbers(published: Path) -> list[int]:
    return [int(entry.name) for entry in published.iterdir() if entry.name.isdigit()]


def check_link(output: Path) -> None:
    """Raise StoreError if `<output>/dataset` is anything but a link, which alone publishing may replace."""
    link = output / DATASET
    if os.path.lexists(link) and not link.is_symlink():
        raise StoreError(f"{link} is not a link that nimbusd made; move it away, or choose another output folder")


def _swap(output: Path, number: int) -> int | None:
    """Point the link to snapshot `number`. Returns the number of the one that it pointed to."""
    check_link(output)
    link, new = output / DATASET, output / _NEW_LINK
    before = Path(os.readlink(link)).name if link.is_symlink() else ""
    new.unlink(missing_ok=True)
    os.symlink(f"{PUBLISHED}/{number}", new)
    os.replace(new, link)
    sync_file(output)
    return int(before) if before.isdigit() else None


def shared_columns(sources: list[SourcePiece]) -> SourcePiece:
    """The first piece, as example of all. Raises StoreError if any has other features or another fps."""
    first = sources[0]
    for other in sources[1:]:
        if other.fps != first.fps or other.columns != first.columns:
            ours, theirs = ({c.key: c for c in piece.columns} for piece in (first, other))
            keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
            what = f"feature {keys[0]!r}" if keys else f"fps ({other.fps} and {first.fps}) or order of features"
            raise StoreError(
                f"pieces {first.piece.folder} and {other.piece.folder} differ in {what}; "
                "episodes of one dataset need the same features. Use another output folder."
            )
    return first


def tasks_of(sources: Iterable[SourcePiece]) -> dict[str, int]:
    """Task text → task_index, numbered as they first occur."""
    tasks: dict[str, int] = {}
    for piece in sources:
        tasks.setdefault(piece.task, len(tasks))
    return tasks


def robot_type(sources: Iterable[SourcePiece]) -> str:
    """The robot that made the episodes; of several all names, joined by `+`."""
    return "+".join(sorted({piece.facts.robot for piece in sources}))


def write_nimbusd_metadata(
    tree: Tree, sources: list[SourcePiece], job: Mapping[str, Any], extra: Mapping[str, Any]
) -> None:
    """The files beside LeRobot's own: conventions, one line of metadata per episode, the job, and the packages."""
    tables = {piece.facts.label_table: piece.record.labels for piece in sources}
    arms = stated_meanings(sources[0].record.features, [piece.facts.schema_version for piece in sources])
    tree.write(CONVENTIONS, to_json(conventions(tables, {**arms, **extra}, _origins_of(sources)), indent=True))
    tree.write(EPISODES_METADATA, to_json_lines(piece.metadata(index) for index, piece in enumerate(sources)))
    tree.write(JOB, to_json(dict(job), indent=True))
    environments = environments_of(piece.content["run"] for piece in sources)
    tree.write(ENVIRONMENT, to_json(environment_json(environments), indent=True))


def _origins_of(sources: Iterable[SourcePiece]) -> dict[str, Any]:
    """Scene → `origin_m` of its provenance, where it has one."""
    scenes = (piece.facts.scene for piece in sources)
    return {scene.id: scene.provenance["origin_m"] for scene in scenes if "origin_m" in scene.provenance}


Extras: TypeAlias = Callable[[Tree, list[SourcePiece]], Mapping[str, Any]]
"""Adds what a format has beside LeRobot's own files to a tree. Returns what `meta/conventions.json` says about it."""


def link_own_files(tree: Tree, sources: list[SourcePiece]) -> Mapping[str, Any]:
    """Add the files that workflows saved in formats of their own, as `files/episode_000000/…`."""
    found = False
    for episode, piece in enumerate(sources):
        for file in piece.files_under("files"):
            tree.link(f"files/episode_{episode:06d}/{file.path.removeprefix('files/')}", piece, file.path)
            found = True
    return {"files_path": "files/episode_{episode:06d}"} if found else {}


def number(value: float) -> int | float:
    """An int where the value is one: readers of info.json expect `"fps": 30`."""
    return int(value) if float(value).is_integer() else value
