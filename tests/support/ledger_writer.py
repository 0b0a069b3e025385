"""A process that writes to a ledger until it is killed, and what must then be in the ledger.

    python -m tests.support.ledger_writer LEDGER

It writes batch after batch, and a line with the batch's number to its standard output when the batch is durable.
What a batch holds follows from its number.
"""

from __future__ import annotations

import random
import select
import subprocess
import sys
from pathlib import Path

from nimbusd.core.ids import EpisodeKey, JobId, LeaseId, NodeId, Span
from nimbusd.core.records import JobRow, LeaseClosed, LeaseOpened, LedgerEntry, State
from nimbusd.master.ledger.ledger import Ledger
from tests.support.records import record_of

JOB = JobId("killed")
SCENES = ("kitchen", "hall", "attic")
_LARGEST = 200


def job_row(name: str = JOB, fingerprint: str = "f1") -> JobRow:
    return JobRow(JobId(name), fingerprint, {"name": name}, "ada", 0, 0, True, "", 1.5)


def size(batch: int) -> int:
    """Episodes of a batch: mostly few, sometimes many."""
    return random.Random(batch).choice((1, 3, 20, _LARGEST))


def entries(batch: int) -> list[LedgerEntry]:
    """Commits, a lease opened, the lease of the batch before closed, an episode that was tried."""
    scene = SCENES[batch % len(SCENES)]
    first = batch * (_LARGEST + 1)
    made: list[LedgerEntry] = [
        record_of(EpisodeKey(JOB, scene, index), State.COMMITTED, folder=f"piece-{index}", frames=7, digest="d" * 64)
        for index in range(first, first + size(batch))
    ]
    tried = EpisodeKey(JOB, scene, first + size(batch))
    made.append(record_of(tried, State.PENDING, batch, 1, reason="crash", evidence="stack " * 50))
    made.append(LeaseOpened(LeaseId(batch), JOB, scene, 2, NodeId("n"), (Span(first, first + 1),)))
    if batch:
        made.append(LeaseClosed(LeaseId(batch - 1)))
    return made


def write(path: Path) -> None:
    """Write batches for ever, from the first that is not there."""
    with Ledger.open(path) as ledger:
        ledger.put_job(job_row())
        leases = ledger.open_leases()
        batch = leases[-1].lease + 1 if leases else 0
        sys.stdout.write("open\n")
        sys.stdout.flush()
        while True:
            ledger.apply(entries(batch))
            sys.stdout.write(f"{batch}\n")
            sys.stdout.flush()
            batch += 1


def kill_once(path: Path, rng: random.Random, longest_s: float = 0.05) -> tuple[int, int]:
    """Let a process write, and kill it at a random moment. Returns (last batch acknowledged, batches in the ledger).

    Raises AssertionError if anything acknowledged is missing, or a batch is there in part.
    """
    writer = subprocess.Popen([sys.executable, "-m", "tests.support.ledger_writer", str(path)], stdout=subprocess.PIPE)
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        select.select([], [], [], rng.uniform(0, longest_s))
        writer.kill()
        said = writer.stdout.read().splitlines()
    acknowledged = int(said[-1]) if said else -1
    return acknowledged, check(path, acknowledged)


def check(path: Path, acknowledged: int) -> int:
    """Count the batches of the ledger: all up to some batch in full, at least the acknowledged ones."""
    with Ledger.open(path) as ledger:
        leases = ledger.open_leases()
        batches = leases[-1].lease + 1 if leases else 0
        assert batches > acknowledged, f"batch {acknowledged} was acknowledged and is lost"
        assert [lease.lease for lease in leases] == ([batches - 1] if batches else [])
        expected: dict[str, list[Span]] = {}
        tried: dict[str, list[int]] = {}
        for batch in range(batches):
            first = batch * (_LARGEST + 1)
            expected.setdefault(SCENES[batch % len(SCENES)], []).append(Span(first, first + size(batch)))
            tried.setdefault(SCENES[batch % len(SCENES)], []).append(first + size(batch))
        history = ledger.history(JOB)
        assert {scene: list(past.settled) for scene, past in history.items()} == expected
        assert {scene: sorted(past.tried) for scene, past in history.items()} == tried
        assert ledger.totals(JOB).committed == sum(size(batch) for batch in range(batches))
        assert ledger.reasons(JOB) == ({"crash": batches} if batches else {})
    return batches


if __name__ == "__main__":
    write(Path(sys.argv[1]))
