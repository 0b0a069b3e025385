"""A job's output folder: who may write to it, what it remembers, and how its committed pieces are published.

<output>/dataset          the published dataset (a link that publishing swaps)
<output>/.pieces/         pieces of committed episodes
<output>/.nimbusd/        job.json, lock, and ledger.sqlite if the job was run here by itself
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import socket
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from nimbusd.core.episodes import JobId
from nimbusd.job import Job
from nimbusd.master.ledger import CommittedPiece, Ledger, LedgerError, LedgerOutdated
from nimbusd.master.manifest import manifest_digest
from nimbusd.stages.errors import NimbusError, StoreError
from nimbusd.stages.store.durable import sync_file
from nimbusd.stages.store.piece import PIECES, piece_faults, piece_folder, read_piece
from nimbusd.stages.types import EpisodeRequest, Piece

log = logging.getLogger(__name__)

_PRIVATE = ".nimbusd"
_LEDGER = "ledger"
_DRAFT = ".tmp"

Attempt: TypeAlias = tuple[str, int, int]
"""(scene, index, attempt) of a job."""


class OutputBusy(NimbusError):
    """Another run works on this output folder."""


@dataclass(frozen=True, slots=True)
class LedgerPlace:
    """Where the ledger of an output folder is. host: the machine that path is on."""

    host: str
    path: Path

    @property
    def here(self) -> bool:
        """Whether it can be read on this machine."""
        return self.host == socket.gethostname() and self.path.is_file()

    def __str__(self) -> str:
        return f"{self.path} on {self.host}"


def ledger_path(output: Path) -> Path:
    """Where the ledger of a job is that runs by itself (`nimbusctl run`)."""
    return output / _PRIVATE / "ledger.sqlite"


@contextmanager
def claim_output(output: Path) -> Iterator[None]:
    """Hold the output folder for this process. Raises OutputBusy while another process holds it."""
    (output / _PRIVATE).mkdir(parents=True, exist_ok=True)
    path = output / _PRIVATE / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(fd, 256, 0).decode(errors="replace").strip() or "unknown"
            raise OutputBusy(f"{output} is in use by another run (pid {holder}). Stop it or wait for it.") from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)  # which also releases the lock; the file stays, removing it would race with a new holder


def remember_job(output: Path, job: Job, ledger: Path | None = None) -> None:
    """Keep the job in its output folder, so that publish and verify need no job file.

    ledger: where the job's ledger is, if that is not this folder's own.
    """
    described = job.to_dict()
    if ledger is not None and ledger.absolute() != ledger_path(output).absolute():
        described[_LEDGER] = {"host": socket.gethostname(), "path": str(ledger.absolute())}
    path = output / _PRIVATE / "job.json"
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(orjson.dumps(described, option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_file(path.parent)


def recall_job(output: Path) -> Job:
    """The job that made this output. Raises LedgerError if there is none."""
    described = _described(output)
    described.pop(_LEDGER, None)
    try:
        return Job.from_dict(described)
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(output, error) from error


def ledger_place(output: Path) -> LedgerPlace:
    """Where the ledger of the job in an output folder is. Raises LedgerError if there is no job."""
    if ledger_path(output).exists():
        return LedgerPlace(socket.gethostname(), ledger_path(output))
    place = _described(output).get(_LEDGER)
    if place is None:
        raise LedgerError(f"{ledger_path(output)} does not exist: no job has run with this output folder.")
    try:
        return LedgerPlace(str(place["host"]), Path(place["path"]))
    except (KeyError, TypeError) as error:
        raise _damaged(output, error) from error


def read_ledger(output: Path) -> Ledger:
    """The ledger of the job in an output folder, to read; one of an older nimbusd is converted first.

    Raises LedgerError, which says where it is if that is elsewhere.
    """
    place = ledger_place(output)
    if not place.here:
        raise LedgerError(
            f"the ledger of {output} is {place}: its master publishes the dataset. "
            "Run this command there to do it by hand.",
            place.path,
        )
    try:
        return Ledger.read(place.path)
    except LedgerOutdated:
        Ledger.open(place.path).close()
        return Ledger.read(place.path)


def sweep_pieces(output: Path, name: JobId, ledger: Ledger, live: Set[Attempt] = frozenset()) -> int:
    """Remove pieces that can never be committed: leftovers of crashed or refused attempts. Returns how many.

    name: the job's in the ledger. live: attempts that must be left alone beyond those that the ledger says
    may still be committed: open leases, and the last attempt at an episode that is pending again (its node may
    yet be heard of). May run while nodes work: a lease is in the ledger before its node can write anything.
    """
    pieces = output / PIECES
    if not pieces.is_dir():
        return 0
    found = {entry.name for entry in os.scandir(pieces)}  # before the ledger is asked, see above
    possible = set(live)
    for lease in ledger.open_leases(name):
        possible.update((lease.scene, i, lease.attempt) for s in lease.spans for i in range(s.start, s.stop))
    for scene, past in ledger.history(name).items():
        possible.update((scene, index, tried.attempt) for index, tried in past.tried.items())
    for scene, index, attempt in possible:
        folder = piece_folder(EpisodeRequest(name, scene, index, attempt=attempt))
        found -= {folder, folder + _DRAFT}
    for piece in ledger.committed(name):
        found.discard(piece.folder)
    return sum(_removed(pieces / folder) for folder in sorted(found))


def committed_pieces(job: Job, output: Path, ledger: Ledger) -> list[Piece]:
    """The job's committed pieces by scene, in the job's order, then index.

    Raises StoreError for a piece whose manifest is not the one that was committed.
    """
    order = {scene: number for number, scene in enumerate(job.scenes)}
    rows = sorted(ledger.committed(JobId(job.name)), key=lambda row: (order[row.key.scene], row.key.index))
    return [_checked(output, row) for row in rows]


def stored_faults(output: Path) -> list[str]:
    """What is wrong with pieces in an output folder, each by its own manifest, without a ledger."""
    pieces = output / PIECES
    faults = []
    for folder in sorted(entry.name for entry in os.scandir(pieces)) if pieces.is_dir() else ():
        if not folder.endswith(_DRAFT):
            try:
                faults += piece_faults(output, read_piece(output, folder), deep=True)
            except StoreError as error:
                faults.append(str(error))
    return faults


def publish_job(job: Job, output: Path, ledger: Ledger, *, final: bool) -> tuple[Path | None, int]:
    """Publish what is committed. Returns the dataset's path (None while nothing is) and its episodes.

    Raises StoreError if it cannot be written.
    """
    try:
        pieces = committed_pieces(job, output, ledger)
        if not pieces:
            return None, 0
        facts = {"name": job.name, "seed": job.seed, "fingerprint": job.fingerprint()}
        return job.make("store").publish(output, pieces, facts, final), len(pieces)
    except OSError as error:
        raise StoreError(f"cannot publish the dataset in {output}: {error}") from error


def _removed(folder: Path) -> bool:
    """Remove a leftover. One that a node is removing, or still writing to, is left for the next time."""
    try:
        shutil.rmtree(folder)
    except OSError as error:
        log.warning("leftover %s cannot be removed now: %s", folder, error)
        return False
    return True


def _checked(output: Path, row: CommittedPiece) -> Piece:
    piece = read_piece(output, row.folder)
    if manifest_digest(piece) != row.digest:
        raise StoreError(
            f"piece {row.folder} of {row.key.scene}/{row.key.index} is not the one that was committed: "
            f"its manifest differs from the ledger. Restore the file from a backup."
        )
    return piece


def _described(output: Path) -> dict[str, Any]:
    path = output / _PRIVATE / "job.json"
    try:
        described = orjson.loads(path.read_bytes())
    except OSError as error:
        raise LedgerError(f"{output} holds no job: {path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise _damaged(output, error) from error
    if not isinstance(described, dict):
        raise _damaged(output, TypeError("it describes no job"))
    return described


def _damaged(output: Path, error: Exception) -> LedgerError:
    path = output / _PRIVATE / "job.json"
    return LedgerError(f"{path} is damaged: {error}. Run the job file again to restore it.", path)
