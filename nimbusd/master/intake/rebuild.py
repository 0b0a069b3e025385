"""A ledger made from the pieces of an output folder, where the one that had them is lost."""

from __future__ import annotations

import getpass
import time

from nimbusd.core.ids import JobId
from nimbusd.core.records import JobRow
from nimbusd.job import Job
from nimbusd.master.intake.adoption import look_at_pieces
from nimbusd.master.ledger.ledger import Ledger
from nimbusd.master.output.folder import claim_output, ledger_path, remember_job
from nimbusd.master.output.outputs import first_attempt_at


def rebuild_ledger(job: Job) -> int:
    """Make the ledger of a job's output folder anew. Returns how many episodes it has.

    Pieces stay as they are; a ledger that is there is renamed. Raises OutputBusy, LedgerError or StoreError.
    """
    path = ledger_path(job.output)
    with claim_output(job.output):
        for kept in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            if kept.exists():
                kept.rename(kept.with_name(kept.name.replace(path.name, f"{path.name}.replaced-{int(time.time())}")))
        with Ledger.open(path) as ledger:
            adoption = look_at_pieces(job, job.output, ledger, anyway=False)
            ledger.put_job(row_of(job))
            ledger.apply(adoption.records)
            remember_job(job.output, job, path, ledger.identity(), first_attempt_at(job, ledger))
    return adoption.adopted


def row_of(job: Job) -> JobRow:
    """A job as the ledger of a run has it."""
    return JobRow(
        job=JobId(job.name),
        fingerprint=job.fingerprint(),
        spec=job.to_dict(),
        user=getpass.getuser(),
        priority=0,
        max_nodes=0,
        dynload=True,
        environment="",
        submitted_unix_s=time.time(),
    )
