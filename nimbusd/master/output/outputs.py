"""The output folders that a master holds: taken before a job goes on, watched while it does, and let go."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from nimbusd.core.ids import JobId
from nimbusd.core.master import facts as f
from nimbusd.core.words import counted, os_error_words
from nimbusd.job import Job
from nimbusd.master.intake.adoption import Adoption, garbage_of, look_at_pieces
from nimbusd.master.ledger.ledger import Ledger, LedgerError
from nimbusd.master.ledger.reads import LedgerIdentity
from nimbusd.master.ledger.thread import LedgerThread
from nimbusd.master.output.folder import Claim, claim_output, is_marked, owner_of, remember_job
from nimbusd.master.output.owner import Whose, first_attempt, judge, read_owner, refusal
from nimbusd.master.publish.published import check_place
from nimbusd.program.systemd import why_hidden
from nimbusd.stages.errors import OutputGone, StoreError
from nimbusd.stages.store.piece import PIECES
from nimbusd.stages.store.trash import empty_trash, throw_away

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""Seconds between two looks whether the folders are still there."""


@dataclass(slots=True)
class _Held:
    job: Job
    claim: Claim
    stack: ExitStack
    trouble: str = ""
    is_looked_at: bool = False


class Outputs:
    """The output folders of a master's jobs. fact: tells the scheduler of one that is gone, or back."""

    def __init__(self, ledger: LedgerThread, fact: Callable[[f.Fact], None]) -> None:
        self._ledger = ledger
        self._fact = fact
        self._held: dict[JobId, _Held] = {}

    async def take(self, job: Job, *, anyway: bool = False) -> Adoption:
        """Hold a job's output folder, and look at what lies there. Writes nothing but the lock: it can be let go.

        anyway: also if a newer state of the ledger was there, and pieces of the same seed and component versions.
        Raises OutputBusy while another process works on it, OutputTaken or NotOfThisJob if it is not the job's, or
        StoreError.
        """
        held, adoption = await asyncio.to_thread(self._take, job, anyway)
        self._held[JobId(job.name)] = held
        return adoption

    def _take(self, job: Job, anyway: bool) -> tuple[_Held, Adoption]:
        with ExitStack() as stack:
            try:
                with Ledger.read(self._ledger.path) as ledger:
                    check_there(job, ledger)
                    claim = stack.enter_context(claim_output(job.output))
                    check_owner(job, ledger, anyway=anyway)
                    adoption = look_at_pieces(job, job.output, ledger, anyway=anyway)
                    adoption.first_attempt = first_attempt_at(job, ledger)
                check_place(job.output)
                job.output.joinpath(PIECES).mkdir(exist_ok=True)
                if trouble := claim.trouble():
                    raise StoreError(trouble)
            except OSError as error:
                said = f"{os_error_words(error)}.{why_hidden(job.output, error)}"
                raise StoreError(f"output {job.output} of job {job.name!r} cannot be used: {said}") from error
            return _Held(job, claim, stack.pop_all()), adoption
        raise AssertionError("an error left the block")

    async def settle(self, job: Job, adoption: Adoption) -> None:
        """Do as was decided, once the ledger has what was adopted and the job: mark the folder and clear away.

        Raises StoreError.
        """
        ledger = self._ledger
        identity = await ledger.call(lambda read: read.identity())
        await asyncio.to_thread(_settle, job, ledger.path, identity, adoption)

    async def clear(self, name: JobId) -> None:
        """Put what crashed or refused attempts of a job left behind into the trash."""
        job = self._held[name].job
        count = await self._ledger.call_apart(lambda ledger: clear_away(job, ledger))
        if count:
            log.info("%s: cleared away %s", job.output, counted(count, "leftover piece"))

    def release(self, name: JobId) -> None:
        """Let others work on the output folder of a job."""
        if (held := self._held.pop(name, None)) is not None:
            held.stack.close()

    def close(self) -> None:
        """Release all output folders."""
        for name in list(self._held):
            self.release(name)

    async def watch(self) -> None:
        """Tell when a folder cannot be written to any more, and when it can again, until cancelled.

        Storage that hangs keeps nobody from looking at the other folders.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                for name, held in self._held.items():
                    if not held.is_looked_at:
                        held.is_looked_at = True
                        group.create_task(self._look(name, held))

    async def _look(self, name: JobId, held: _Held) -> None:
        trouble = await asyncio.to_thread(held.claim.trouble)
        held.is_looked_at = False
        if trouble == held.trouble or self._held.get(name) is not held:
            return
        held.trouble = trouble
        self._fact(f.OutputLost(name, trouble) if trouble else f.OutputBack(name))


def check_owner(job: Job, ledger: Ledger, *, anyway: bool) -> None:
    """Raise OutputTaken if a job of a ledger may not work on its output folder."""
    mark = owner_of(job.output)
    restored = ledger.is_restored()
    whose = judge(
        mark, job.name, job.fingerprint(), ledger.identity(), lambda token: restored or ledger.has_generation(token)
    )
    if whose is Whose.OTHER_JOB or (whose in (Whose.STALE, Whose.OTHER_SETTINGS) and not anyway):
        assert mark is not None
        raise refusal(job.output, mark, whose, job.name)


def first_attempt_at(job: Job, ledger: Ledger) -> int:
    """The number of the first attempt at an episode in a job's output folder, as nobody has leased it before."""
    mark = read_owner(job.output) or owner_of(job.output)  # also that of a folder which is empty by now
    return max(ledger.first_attempt(), first_attempt(mark, job.name, ledger.identity(), ledger.has_generation))


def check_there(job: Job, ledger: Ledger) -> None:
    """Raise OutputGone if a ledger has episodes of a job as committed, and its output folder holds no trace of it.

    Then it was removed or moved away, or is not mounted: to make all anew in its place would be to lose them.
    """
    if not (is_marked(job.output) or ledger.totals(JobId(job.name)).committed == 0):
        raise OutputGone(
            f"output {job.output} was removed or moved away, and the ledger has episodes of job {job.name!r} in it. "
            f"Put it back, say where it is (`nimbusctl output move {job.output} FOLDER`), or make all of them anew: "
            f"`nimbusctl forget {job.name}`, and submit it again."
        )


def check_moved(name: str, fingerprint: str, before: Path, now: Path) -> None:
    """Raise LedgerError unless a job's output was moved from `before` to `now`: its mark is there, and only there."""
    mark = owner_of(now)
    is_there = mark is not None and (mark.job, mark.fingerprint) == (name, fingerprint)
    left = owner_of(before)
    if not is_there or (left is not None and left.job == name):
        raise LedgerError(
            f"job {name!r} has its pieces in {before}: submit it with that output to go on with it, move it there "
            f"(`nimbusctl output move {before} {now}`), or give it another name to make it anew"
        )


def _settle(job: Job, ledger: Path, identity: LedgerIdentity, adoption: Adoption) -> None:
    try:
        remember_job(job.output, job, ledger, identity, adoption.first_attempt)
    except OSError as error:
        raise StoreError(f"output {job.output} of job {job.name!r} cannot be used: {os_error_words(error)}") from error
    now = time.time()
    for folder, why in adoption.garbage.items():
        throw_away(job.output, folder, why, now)
    for folder in adoption.drafts:
        _remove_draft(job.output, folder)
    empty_trash(job.output, now)
    if adoption.adopted:
        log.warning("%s: adopted %s that the ledger did not know", job.output, counted(adoption.adopted, "episode"))
    if adoption.strangers:
        log.warning(
            "%s: left %d folders alone that are no pending attempts of job %s, such as %s",
            job.output,
            len(adoption.strangers),
            job.name,
            adoption.strangers[0],
        )
    if adoption.missing:
        key = adoption.missing[0]
        log.error(
            "%s: the pieces of %d committed episodes are missing, such as %s/%d: `nimbusctl repair %s` makes them anew",
            job.output,
            len(adoption.missing),
            key.scene,
            key.index,
            job.output,
        )


def _remove_draft(output: Path, folder: str) -> bool:
    """Remove what never became a piece. One that a node is removing, or still writes to, is left for the next time."""
    try:
        shutil.rmtree(output / PIECES / folder)
    except OSError as error:
        log.warning("leftover %s cannot be removed now: %s", output / PIECES / folder, error)
        return False
    log.info("removed %s, which an attempt left behind before it was whole", output / PIECES / folder)
    return True


def clear_away(job: Job, ledger: Ledger) -> int:
    """Put folders of attempts that can never be committed into the trash, and empty that. Returns how many."""
    now = time.time()
    cleared = 0
    for one in list(garbage_of(job, job.output, ledger)):
        if one.draft:
            cleared += _remove_draft(job.output, one.folder)
        else:
            cleared += throw_away(job.output, one.folder, "its attempt was fenced off", now)
    empty_trash(job.output, now)
    return cleared
