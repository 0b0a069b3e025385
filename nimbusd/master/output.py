"""A job's output folder: who may write to it, what it remembers, and how its committed pieces are published.

<output>/dataset          the published dataset (a link that publishing swaps)
<output>/.pieces/         pieces of committed episodes
<output>/.nimbusd/        ledger.sqlite, job.json, lock
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from nimbusd.job import Job
from nimbusd.master.ledger import CommittedPiece, Ledger, LedgerError
from nimbusd.master.manifest import manifest_digest
from nimbusd.stages.errors import NimbusError, StoreError
from nimbusd.stages.store.piece import PIECES, read_piece
from nimbusd.stages.types import Piece

_PRIVATE = ".nimbusd"


class OutputBusy(NimbusError):
    """Another run works on this output folder."""


def ledger_path(output: Path) -> Path:
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
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            raise OutputBusy(f"{output} is in use by another run (pid {holder}). Stop it or wait for it.") from error
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)  # which also releases the lock; the file stays, removing it would race with a new holder


def remember_job(output: Path, job: Job) -> None:
    """Keep the job beside its ledger, so that publish and verify need no job file."""
    path = output / _PRIVATE / "job.json"
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(orjson.dumps(job.to_dict(), option=orjson.OPT_INDENT_2))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def recall_job(output: Path) -> Job:
    """The job that made this output. Raises LedgerError if there is none."""
    path = output / _PRIVATE / "job.json"
    try:
        return Job.from_dict(orjson.loads(path.read_bytes()))
    except OSError as error:
        raise LedgerError(f"{output} holds no job: {path} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise LedgerError(f"{path} is damaged: {error}. Run the job file again to restore it.") from error


def sweep_pieces(output: Path, ledger: Ledger) -> int:
    """Remove pieces that no commit names: leftovers of crashed or refused attempts. Returns how many.

    Only for who holds the output folder and has no worker running.
    """
    pieces = output / PIECES
    if not pieces.is_dir():
        return 0
    kept = {piece.folder for piece in ledger.committed()}
    garbage = [path for path in pieces.iterdir() if path.name not in kept]
    for path in garbage:
        shutil.rmtree(path)
    return len(garbage)


def committed_pieces(job: Job, output: Path, ledger: Ledger) -> list[Piece]:
    """The job's committed pieces by scene, in the job's order, then index.

    Raises StoreError for a piece whose manifest is not the one that was committed.
    """
    order = {scene: number for number, scene in enumerate(job.scenes)}
    rows = sorted(ledger.committed(), key=lambda row: (order[row.key.scene], row.key.index))
    return [_checked(output, row) for row in rows]


def _checked(output: Path, row: CommittedPiece) -> Piece:
    piece = read_piece(output, row.folder)
    if manifest_digest(piece) != row.digest:
        raise StoreError(
            f"piece {row.folder} of {row.key.scene}/{row.key.index} is not the one that was committed: "
            f"its manifest differs from the ledger. Restore the file from a backup."
        )
    return piece


def publish_job(job: Job, output: Path, ledger: Ledger, *, final: bool) -> tuple[Path | None, int]:
    """Publish what is committed. Returns the dataset's path (None while nothing is) and its episodes.

    Raises StoreError if it cannot be written.
    """
    pieces = committed_pieces(job, output, ledger)
    if not pieces:
        return None, 0
    facts = {"name": job.name, "seed": job.seed, "fingerprint": job.fingerprint()}
    try:
        return job.make("store").publish(output, pieces, facts, final), len(pieces)
    except OSError as error:
        raise StoreError(f"cannot publish the dataset in {output}: {error}") from error
