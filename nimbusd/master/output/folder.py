"""A job's output folder: who may write to it, what it remembers, and how its committed pieces are published.

<output>/dataset          the published dataset (a link that publishing swaps)
<output>/.pieces/         pieces of committed episodes
<output>/.nimbusd/        owner.json, job.json, lock, trash/, and ledger.sqlite if the job was run here by itself
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from nimbusd.core.ids import JobId
from nimbusd.core.words import os_error_words
from nimbusd.job import Job
from nimbusd.master.intake.adoption import DRAFT
from nimbusd.master.ledger.ledger import CommittedPiece, Ledger, LedgerError, LedgerOutdated
from nimbusd.master.ledger.reads import LedgerIdentity
from nimbusd.master.output.owner import OutputTaken, Owner, mark_path, read_owner, replace_json, write_owner
from nimbusd.stages.base import no_beat
from nimbusd.stages.errors import NimbusError, StoreError
from nimbusd.stages.store.piece import PIECES, manifest_digest, piece_faults, read_piece
from nimbusd.stages.store.publish import DATASET, PUBLISHED
from nimbusd.stages.store.trash import PRIVATE
from nimbusd.stages.types import Piece

_JOB = "job.json"
_LEDGER = "ledger"
"""Key of `job.json` where an older nimbusd kept what is in the owner mark now."""


class OutputBusy(NimbusError):
    """Another run works on this output folder."""


@dataclass(frozen=True, slots=True)
class Claim:
    """An output folder that this process holds by a lock on a file in it. inode: device and number of that file.

    It has no descriptor: a thread may look at it while another lets go of the folder.
    """

    output: Path
    lock: Path
    inode: tuple[int, int]

    def trouble(self) -> str:
        """The reason why nothing can be stored there; empty if all is well. May wait as long as the storage does."""
        try:
            if _inode(os.stat(self.lock)) != self.inode or not (self.output / PIECES).is_dir():
                return f"output {self.output} was replaced by another folder. Put back the one that was there."
            if os.statvfs(self.output / PIECES).f_flag & os.ST_RDONLY:
                return f"{self.output / PIECES} is on a file system that is read-only now."
        except FileNotFoundError:
            return (
                f"output {self.output} was removed or moved away. Put it back, or say where it is: "
                f"`nimbusctl output move {self.output} FOLDER`."
            )
        except OSError as error:
            return f"output {self.output} cannot be used: {error.strerror}."
        return ""


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


@dataclass(frozen=True, slots=True)
class LedgerPlace:
    """The place of an output folder's ledger. host: the machine that path is on, by the name that it had then.

    identity: of the ledger, by which it is known whatever its host is called; empty: of an older nimbusd, or within the
    output itself.
    """

    host: str
    path: Path
    identity: str = ""

    @property
    def is_local(self) -> bool:
        """True where this machine has the name of the ledger's."""
        return self.host == socket.gethostname()

    @property
    def here(self) -> bool:
        """True where it can be read on this machine."""
        if not os.access(self.path, os.R_OK):
            return False
        found = _identity_at(self.path) if self.identity else ""
        return found == self.identity if found else self.is_local

    def __str__(self) -> str:
        return f"{self.path} on {self.host}"


def ledger_path(output: Path) -> Path:
    """The path of the ledger of a job that runs by itself (`nimbusctl run`)."""
    return output / PRIVATE / "ledger.sqlite"


@contextmanager
def claim_output(output: Path) -> Iterator[Claim]:
    """Hold the output folder for this process. Raises OutputBusy while another process holds it."""
    (output / PRIVATE).mkdir(parents=True, exist_ok=True)
    path = output / PRIVATE / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(fd, 256, 0).decode(errors="replace").strip() or "unknown"
            raise OutputBusy(f"{output} is in use by another run (pid {holder}). Stop it or wait for it.") from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield Claim(output, path, _inode(os.fstat(fd)))
    finally:
        os.close(fd)  # which also releases the lock; the file stays, removing it would race with a new holder


def is_claimed(output: Path) -> bool:
    """True where a process works on the output folder now."""
    try:
        fd = os.open(output / PRIVATE / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def remember_job(output: Path, job: Job, ledger: Path, identity: LedgerIdentity, first_attempt: int) -> None:
    """Mark an output folder as a job's, and keep the job in it, so that publish and verify need no job file.

    ledger: where the job's ledger is. first_attempt: see `Owner`. Raises OSError.
    """
    own = ledger_path(output)
    path = own.relative_to(output) if ledger.absolute() == own.absolute() else ledger.absolute()
    replace_json(output / PRIVATE / _JOB, job.to_dict())
    mark = Owner(job.name, job.fingerprint(), identity, socket.gethostname(), path, first_attempt=first_attempt)
    write_owner(output, mark)


def owner_of(output: Path) -> Owner | None:
    """The owner of an output folder, by its mark or, where an older nimbusd wrote it, by the job that it remembers.

    None for one that holds no episodes. Raises LedgerError if that cannot be read.
    """
    mark = read_owner(output)
    if mark is None and (output / PRIVATE / _JOB).exists():
        place, job = ledger_place(output), recall_job(output)
        mark = Owner(job.name, job.fingerprint(), LedgerIdentity("", 0, ""), place.host, place.path)
    return None if mark is None or _is_empty(output) else mark


def is_marked(output: Path) -> bool:
    """True where an output folder bears the mark of a job, or remembers one."""
    return mark_path(output).exists() or (output / PRIVATE / _JOB).exists()


def _is_empty(output: Path) -> bool:
    """True where nothing was made or published in an output folder."""
    return not any(entry for folder in (PIECES, PUBLISHED) for entry in (output / folder).glob("*"))


def recall_job(output: Path) -> Job:
    """The job that made this output. Raises LedgerError if there is none."""
    described = _described(output)
    described.pop(_LEDGER, None)
    try:
        return Job.from_dict(described)
    except NimbusError as error:
        raise _damaged(output, error) from error


def ledger_place(output: Path) -> LedgerPlace:
    """Find the ledger of the job in an output folder. Raises LedgerError if there is no job."""
    mark = read_owner(output)
    if mark is not None:
        if mark.path.is_absolute():
            return LedgerPlace(mark.host, mark.path, mark.ledger.ledger)
        return LedgerPlace(socket.gethostname(), output / mark.path)
    if ledger_path(output).exists():
        return LedgerPlace(socket.gethostname(), ledger_path(output))
    place = _described(output).get(_LEDGER)
    if place is None:
        raise LedgerError(f"{ledger_path(output)} does not exist: no job has run with this output folder.")
    try:
        return LedgerPlace(str(place["host"]), Path(place["path"]))
    except (KeyError, TypeError) as error:
        raise _damaged(output, error) from error


def ledger_gone(output: Path) -> LedgerError:
    """A sentence on what to do about a ledger that is not where it was."""
    place = ledger_place(output)
    return LedgerError(
        f"the ledger of {output}, {place}, is gone. Put it back (`nimbusctl restore`), or make it from the pieces that "
        f"are there: `nimbusctl output rebuild {output}`.",
        place.path,
        errno.ENOENT,
    )


def _identity_at(path: Path) -> str:
    """The identity of the ledger at a path; empty if that cannot be told."""
    try:
        with Ledger.read(path) as ledger:
            return ledger.identity().ledger
    except LedgerError:
        return ""


def read_ledger(output: Path) -> Ledger:
    """The ledger of the job in an output folder, to read; one of an older nimbusd is converted first.

    Raises LedgerError, which says where it is if that is elsewhere.
    """
    place = ledger_place(output)
    if place.is_local and not place.path.exists():
        raise ledger_gone(output)
    if not place.here:
        raise LedgerError(
            f"the ledger of {output} is {place}: its master publishes the dataset. "
            "Run this command there to do it by hand.",
            place.path,
        )
    try:
        return Ledger.read(place.path)
    except LedgerOutdated:
        if not (os.access(place.path, os.W_OK) and os.access(place.path.parent, os.W_OK)):
            return Ledger.read_copy(place.path)
        Ledger.open(place.path).close()
        return Ledger.read(place.path)


def delete_output_of(job: Job) -> None:
    """Delete what nimbusd stored in a job's output: pieces, datasets, ledger and trash. What is not its own stays.

    Raises OutputBusy while somebody works on it, OutputTaken if it is another job's, or StoreError.
    """
    output = job.output
    if not (output / PRIVATE).is_dir():
        return
    with claim_output(output):
        mark = owner_of(output)
        if mark is not None and mark.job != job.name:
            raise OutputTaken(f"output {output} belongs to job {mark.job!r} now: nothing was deleted there")
        try:
            if (output / DATASET).is_symlink():
                (output / DATASET).unlink()
            for folder in (PIECES, PUBLISHED, PRIVATE):  # the mark goes last, so that this can be done again
                if (output / folder).exists():
                    shutil.rmtree(output / folder)
            if not any(output.iterdir()):
                output.rmdir()
        except OSError as error:
            raise StoreError(f"output {output} cannot be deleted: {os_error_words(error)}") from error


def committed_pieces(job: Job, output: Path, ledger: Ledger, beat: Callable[[], None] = no_beat) -> list[Piece]:
    """The job's committed pieces by scene, in the job's order, then index. beat: called for each of them.

    Raises StoreError for a piece whose manifest is not the one that was committed.
    """
    order = {scene: number for number, scene in enumerate(job.scenes)}
    rows = sorted(ledger.committed(JobId(job.name)), key=lambda row: (order[row.key.scene], row.key.index))
    pieces = []
    for row in rows:
        beat()
        pieces.append(_checked(output, row))
    return pieces


def stored_faults(output: Path) -> list[str]:
    """Find what is wrong with pieces in an output folder, each by its own manifest, without a ledger."""
    pieces = output / PIECES
    faults = []
    for folder in sorted(entry.name for entry in os.scandir(pieces)) if pieces.is_dir() else ():
        if not folder.endswith(DRAFT):
            try:
                faults += piece_faults(output, read_piece(output, folder), deep=True)
            except StoreError as error:
                faults.append(str(error))
    return faults


def _checked(output: Path, row: CommittedPiece) -> Piece:
    piece = read_piece(output, row.folder)
    if manifest_digest(piece) != row.digest:
        raise StoreError(
            f"piece {row.folder} of {row.key.scene}/{row.key.index} is not the one that was committed: "
            f"its manifest differs from the ledger. Restore the file from a backup."
        )
    return piece


def _described(output: Path) -> dict[str, Any]:
    path = output / PRIVATE / _JOB
    try:
        described = orjson.loads(path.read_bytes())
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise LedgerError(
                f"{output} holds no job: there is no {path.relative_to(output)} in it. Name an output folder in which "
                "a job has run."
            ) from error
        raise LedgerError(f"{path} cannot be read: {error.strerror}.", path, error.errno or 0) from error
    except ValueError as error:
        raise _damaged(output, error) from error
    if not isinstance(described, dict):
        raise _damaged(output, TypeError("it describes no job"))
    return described


def _damaged(output: Path, error: Exception) -> LedgerError:
    path = output / PRIVATE / _JOB
    return LedgerError(f"{path} is damaged: {error}. Run the job file again to restore it.", path)
