"""`nimbusctl run`: master and node in one process tree.

The decisions are the state machines of `nimbusd.core`; this is the shell around them. Every fact (a message, an
exit, a tick) is given to the machines, what they order is queued, and one task carries the queue out: records
go to the ledger first, in one transaction, and only then the leases of the same batch leave.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import zmq
import zmq.asyncio

from nimbusd import events
from nimbusd.core import episodes as ep
from nimbusd.core import pool
from nimbusd.core.episodes import Attempt, EpisodeKey, State, WorkerId
from nimbusd.core.tasks import TaskTable
from nimbusd.job import Job
from nimbusd.master.ledger import Ledger
from nimbusd.master.output import claim_output, ledger_path, publish_job, remember_job, sweep_pieces
from nimbusd.stages.errors import NimbusError, StoreError
from nimbusd.stages.store.piece import PIECES
from nimbusd.supervisor.process import WorkerProcess
from nimbusd.transport import messages as m
from nimbusd.worker.slots import Slot, environment

T = TypeVar("T")
log = logging.getLogger(__name__)

TICK_S = 0.2
BYE_TIMEOUT_S = 1.0
PUBLISH_EVERY_S = 30.0
PUBLISH_SHARE = 20
"""Publishing takes at most one part in so many of the run: a slow publish is followed by a longer pause."""


class JobRun:
    """One run of a job on this machine, from the ledger as it stands to the published dataset.

    slots: where compute workers run. watch: is told what happens. retry_quarantined: give episodes that were
    set aside another chance. `drain()` may be called from the event loop's thread at any time.
    """

    def __init__(
        self,
        job: Job,
        slots: tuple[Slot, ...],
        watch: events.Watcher,
        *,
        retry_quarantined: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._output = job.output
        self._slots = {slot.name: slot for slot in slots}
        self._watch = watch
        self._retry_quarantined = retry_quarantined
        self._clock = clock
        self._pool = pool.WorkerPool(self._slots, job.limits.beat_timeout_s, job.limits.episode_timeout_s)
        self._addresses: dict[WorkerId, bytes] = {}
        self._processes: dict[WorkerId, WorkerProcess] = {}
        self._byes: dict[WorkerId, asyncio.Event] = {}
        self._last_words: dict[WorkerId, str] = {}
        self._orders: list[ep.Order | pool.PoolOrder | events.Event] = []
        self._wake = asyncio.Event()
        self._over = asyncio.Event()
        self._committed_since_publish = 0
        self._stopped_because = ""
        self._dropped_messages = 0

    async def run(self) -> events.JobEnded:
        """Make what is missing and publish. Raises NimbusError if the job cannot run here at all."""
        started = self._clock()
        with claim_output(self._output):
            self._output.joinpath(PIECES).mkdir(exist_ok=True)
            async with self._opened_ledger():
                await self._make_episodes()
                dataset = await self._publish(final=not self._tasks.open_episodes())
                ended = await self._in_ledger(lambda: self._summary(dataset, self._clock() - started))
        self._watch(ended)
        return ended

    def drain(self, why: str = "interrupted") -> None:
        """Finish the episodes that have begun, start none."""
        self._begin_drain(why)

    def kill(self) -> None:
        """Stop at once. What was not committed is made again by the next run."""
        for process in self._processes.values():
            process.kill()

    # --- set-up ---

    @asynccontextmanager
    async def _opened_ledger(self) -> AsyncIterator[None]:
        self._ledger_thread = ThreadPoolExecutor(1, "ledger")
        try:
            await self._in_ledger(self._open_ledger)
            yield
        finally:
            await self._in_ledger(self._close_ledger)
            self._ledger_thread.shutdown()

    def _open_ledger(self) -> None:
        job = self._job
        self._ledger: Ledger | None = None
        self._ledger = ledger = Ledger.open(ledger_path(self._output), job.name, job.fingerprint())
        remember_job(self._output, job)
        if self._retry_quarantined:
            ledger.release_quarantined()
        swept = sweep_pieces(self._output, ledger)
        log.info("%s: swept %d leftover pieces", self._output, swept)
        most = job.episodes_per_scene * job.max_tries_per_episode
        plans = [ep.ScenePlan(name, job.episodes_per_scene, job.exact, most) for name in job.scenes]
        self._tasks = TaskTable(plans, job.limits.attempts, ledger.history())

    def _close_ledger(self) -> None:
        if self._ledger is not None:
            self._ledger.close()

    async def _in_ledger(self, call: Callable[[], T]) -> T:
        """Run a blocking call on the ledger's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._ledger_thread, call)

    # --- the run ---

    async def _make_episodes(self) -> None:
        counts = self._tasks.counts.values()
        self._watch(
            events.JobStarted(
                self._job.name,
                str(self._output),
                self._job.total_episodes,
                sum(c.committed for c in counts),
                sum(c.failed for c in counts),
                sum(c.quarantined for c in counts),
                len(self._slots),
            )
        )
        if any(isinstance(order, ep.FinishJob) for order in self._tasks.start()):
            return  # nothing is missing: no worker needs to start
        folder = Path(tempfile.mkdtemp(prefix="nimbusd-"))
        self._endpoint = f"ipc://{folder}/daemon"
        context = zmq.asyncio.Context()
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, m.MAX_MESSAGE_BYTES)
        self._socket.bind(self._endpoint)
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                helpers = [
                    group.create_task(self._receive()),
                    group.create_task(self._tick()),
                    group.create_task(self._publish_now_and_then()),
                    group.create_task(self._carry_out()),
                ]
                self._order(self._pool.start(self._clock()))
                await self._over.wait()
                for helper in helpers:
                    helper.cancel()
        except* NimbusError as errors:
            raise errors.exceptions[0] from None
        finally:
            for process in self._processes.values():
                process.kill()
            self._socket.close()
            context.term()
            shutil.rmtree(folder, ignore_errors=True)

    async def _receive(self) -> None:
        while True:
            address, *frames = await self._socket.recv_multipart()
            try:
                message = m.decode(frames[-1] if frames else b"")
            except m.MessageError as error:
                self._dropped_messages += 1
                log.warning("dropped message %d that is none of ours: %s", self._dropped_messages, error)
                continue
            await self._heard(address, message)

    async def _heard(self, address: bytes, message: m.Message) -> None:
        """A message from a worker, turned into facts."""
        now = self._clock()
        match message:
            case m.Hello(slot, pid, version):
                self._addresses[WorkerId(slot)] = address
                log.info("worker %s said hello from pid %d, nimbusd %s", slot, pid, version)
                await self._send(WorkerId(slot), m.Welcome(self._job.to_dict(), str(self._output)))
            case m.Ready(slot, device):
                process = self._processes.get(WorkerId(slot))
                self._order([events.WorkerUp(slot, process.pid if process else 0, device)])
                self._pool_fact(pool.WorkerReady(WorkerId(slot)))
                if self._tasks.draining or self._tasks.finished:
                    await self._send(WorkerId(slot), m.Drain())
            case m.Pull(slot, credit):
                self._task_fact(ep.CreditOffered(WorkerId(slot), credit))
            case m.Beat(slot, ref, stage):
                worker = WorkerId(slot)
                self._pool.handle(pool.BeatSeen(worker, busy=True), now)
                if stage == "load":
                    self._pool.handle(pool.EpisodeBegan(worker), now)
                    self._task_fact(ep.WorkStarted(worker, _attempt(ref)))
                self._order([events.StageBegan(slot, ref.scene, ref.index, ref.attempt, stage)])
            case m.Commit(slot, ref):
                self._commit(message, WorkerId(slot), _attempt(ref))
            case m.Fail(slot, ref):
                self._fail(message, WorkerId(slot), _attempt(ref))
            case m.GiveBack(slot, refs):
                self._task_fact(ep.LeasesReturned(WorkerId(slot), tuple(_attempt(ref) for ref in refs)))
            case m.Fatal(_, error):
                raise NimbusError(error)
            case m.Bye(slot):
                self._said_bye(WorkerId(slot)).set()
            case m.Welcome() | m.Lease() | m.Drain():
                log.warning("worker sent %s, which only a daemon may send", type(message).__name__)

    def _commit(self, message: m.Commit, worker: WorkerId, attempt: Attempt) -> None:
        stored = ep.PieceStored(worker, attempt, message.folder, message.frames, message.size_bytes, message.digest)
        orders = self._tasks.handle(stored)
        self._order(orders)
        self._settle_beat(worker)
        key = attempt.key
        if any(isinstance(o, ep.Record) and o.key == key and o.state is State.COMMITTED for o in orders):
            self._committed_since_publish += 1
            number, timings_s = attempt.number, message.timings_s
            self._order([events.EpisodeCommitted(key.scene, key.index, number, worker, message.frames, timings_s)])

    def _fail(self, message: m.Fail, worker: WorkerId, attempt: Attempt) -> None:
        full = message.reason == "disk_full"
        failed = ep.AttemptFailed(
            worker,
            attempt,
            message.stage,
            message.reason,
            message.detail,
            message.evidence,
            planned=message.planned,
            final=message.reason == "asset_error",
            blameless=full,
        )
        self._task_fact(failed)
        self._settle_beat(worker)
        if full:
            self._stop(f"no space left: {message.detail}. Free some space and run the same command again.")

    def _settle_beat(self, worker: WorkerId) -> None:
        """An episode is done: that is progress, and if it was the worker's last, nothing more is owed."""
        busy = bool(self._tasks.leased_to(worker))
        self._pool.handle(pool.BeatSeen(worker, busy), self._clock())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._pool_fact(pool.TimePassed())

    # --- orders ---

    def _task_fact(self, fact: ep.Fact) -> None:
        self._order(self._tasks.handle(fact))

    def _pool_fact(self, fact: pool.PoolFact) -> None:
        self._order(self._pool.handle(fact, self._clock()))

    def _order(self, orders: Sequence[ep.Order | pool.PoolOrder | events.Event]) -> None:
        if orders:
            self._orders.extend(orders)
            self._wake.set()

    async def _carry_out(self) -> None:
        """Carry out orders in batches: first the ledger, durably, then all else in order."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._orders = self._orders, []
            records = [order for order in batch if isinstance(order, ep.Record)]
            if records:
                await self._in_ledger(partial(self._open.apply, records))
            for order in batch:
                await self._perform(order)

    @property
    def _open(self) -> Ledger:
        assert self._ledger is not None
        return self._ledger

    async def _perform(self, order: ep.Order | pool.PoolOrder | events.Event) -> None:
        match order:
            case ep.Record():
                self._tell(order)
            case ep.GrantLease(worker, attempt):
                key = attempt.key
                ref = m.EpisodeRef(key.scene, key.index, attempt.number)
                self._pool.handle(pool.LeaseSent(worker), self._clock())
                await self._send(worker, m.Lease(ref, self._job.variant(key.index)))
            case ep.CheckSettled(attempt, folder):
                await self._check_settled(attempt, folder)
            case ep.FinishJob():
                self._send_home()
            case pool.SpawnWorker(slot, worker, not_before):
                self._group.create_task(self._look_after(self._slots[slot], worker, not_before))
            case pool.KillWorker(worker, reason):
                log.warning("killing worker %s: %s", worker, reason)
                if (process := self._processes.get(worker)) is not None:
                    process.kill()
            case pool.ReportLost():
                self._lost(order)
            case pool.GiveUp(detail):
                raise NimbusError(f"no compute worker can run here: {detail}")
            case _:
                self._watch(order)

    def _tell(self, record: ep.Record) -> None:
        """What a record means to those who watch (commits are told with their timings, in `_commit`)."""
        key = record.key
        if record.state is State.FAILED:
            self._watch(events.EpisodeFailed(key.scene, key.index, record.reason, record.detail))
        elif record.reason and record.state in (State.PENDING, State.QUARANTINED):
            quarantined = record.state is State.QUARANTINED
            self._watch(
                events.AttemptLost(key.scene, key.index, record.attempt, record.reason, record.detail, quarantined)
            )

    async def _check_settled(self, attempt: Attempt, folder: str) -> None:
        committed = await self._in_ledger(lambda: self._open.committed_folder(attempt.key))
        if committed != folder:
            log.warning("refused piece %s: attempt %d holds no lease", folder, attempt.number)

    async def _send(self, worker: WorkerId, message: m.Message) -> None:
        if (address := self._addresses.get(worker)) is not None:
            await self._socket.send_multipart([address, m.encode(message)])

    # --- workers ---

    async def _look_after(self, slot: Slot, worker: WorkerId, not_before: float) -> None:
        """Start a worker, wait for its end, and report it."""
        await asyncio.sleep(max(0.0, not_before - self._clock()))
        argv = [sys.executable, "-m", "nimbusd.worker.compute", "--endpoint", self._endpoint, "--slot", worker]
        argv += ["--parent", str(os.getpid()), "--device", slot.device, "--cpus", ",".join(map(str, slot.cpus))]
        process = await WorkerProcess.spawn(argv, environment(slot))
        self._processes[worker] = process
        returncode = await process.wait()
        bye = self._said_bye(worker)
        if returncode == 0:
            # Its last commits may still be on their way through the socket, which the exit overtakes.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(bye.wait(), BYE_TIMEOUT_S)
        del self._byes[worker]
        self._last_words[worker] = process.output()
        del self._processes[worker]
        self._addresses.pop(worker, None)
        self._pool_fact(pool.WorkerExited(worker, returncode))

    def _said_bye(self, worker: WorkerId) -> asyncio.Event:
        return self._byes.setdefault(worker, asyncio.Event())

    def _lost(self, order: pool.ReportLost) -> None:
        evidence = self._last_words.pop(order.worker, "")
        if order.failed:
            self._watch(events.WorkerDown(order.worker, order.reason, order.detail, evidence))
        self._task_fact(ep.WorkerLost(order.worker, order.reason, order.detail, evidence))
        if self._pool.alive() == 0 and (self._tasks.draining or self._tasks.finished):
            self._over.set()

    def _begin_drain(self, why: str) -> None:
        if not self._tasks.draining:
            self._order([events.Draining(why)])
            self._task_fact(ep.DrainAsked())
            self._send_home()

    def _stop(self, why: str) -> None:
        """The job cannot go on for now; nothing is lost."""
        self._stopped_because = self._stopped_because or why
        self._begin_drain(why)

    def _send_home(self) -> None:
        """Ask every worker to leave once it has finished what it has begun."""
        self._pool_fact(pool.StopAsked())
        for worker in list(self._addresses):
            self._group.create_task(self._send(worker, m.Drain()))

    # --- publishing ---

    async def _publish_now_and_then(self) -> None:
        pause_s = PUBLISH_EVERY_S
        while True:
            await asyncio.sleep(pause_s)
            if not self._committed_since_publish:
                continue
            self._committed_since_publish = 0
            began = self._clock()
            try:
                await self._publish(final=False)
            except StoreError as error:
                self._stop(str(error))
            pause_s = max(PUBLISH_EVERY_S, PUBLISH_SHARE * (self._clock() - began))

    async def _publish(self, *, final: bool) -> Path | None:
        """Publish in a thread of its own, with its own reading connection: the ledger stays free for commits."""

        def publish() -> tuple[Path | None, int]:
            with contextlib.closing(Ledger.read(ledger_path(self._output))) as ledger:
                return publish_job(self._job, self._output, ledger, final=final)

        dataset, episodes = await asyncio.to_thread(publish)
        if dataset is not None:
            self._watch(events.Published(str(dataset), episodes, final))
        return dataset

    def _summary(self, dataset: Path | None, elapsed_s: float) -> events.JobEnded:
        counts = self._tasks.counts.values()
        committed = sum(c.committed for c in counts)
        wanted = self._job.total_episodes
        quarantined = sum(c.quarantined for c in counts)
        # Without `exact`, failed plans are part of a complete job.
        expected = wanted if self._job.exact else wanted - sum(c.failed for c in counts)
        if self._stopped_because:
            status = "stopped"
        elif self._tasks.open_episodes():
            status = "interrupted"
        else:
            status = "complete" if committed >= expected else "incomplete"
        return events.JobEnded(
            self._job.name,
            status,
            committed,
            sum(c.failed for c in counts),
            quarantined,
            wanted,
            None if dataset is None else str(dataset),
            elapsed_s,
            self._stopped_because,
            {reason: number for _, reason, number in self._open.failures()},
        )


def _attempt(ref: m.EpisodeRef) -> Attempt:
    return Attempt(EpisodeKey(ref.scene, ref.index), ref.attempt)
