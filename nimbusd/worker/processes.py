"""The processes of a node's compute workers: started, watched over, killed, and reported when they end.

Each has a seat on the watchdog's heartbeat page from before it starts until it is gone. Who is to be started and
killed is `WorkerPool`'s to decide; what became of it is told as the pool's facts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nimbusd.core import pool
from nimbusd.core.episodes import WorkerId
from nimbusd.supervisor.process import WorkerProcess
from nimbusd.supervisor.watch import Seat, Watch
from nimbusd.worker.slots import Slot, environment

log = logging.getLogger(__name__)

START_TIMEOUT_S = 300.0
BYE_TIMEOUT_S = 1.0


class ComputeProcesses:
    """The compute workers' processes of one node. tell: is told what became of each, as it happens."""

    def __init__(
        self,
        tell: Callable[[pool.WorkerKilled | pool.WorkerExited], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._running: dict[WorkerId, WorkerProcess] = {}
        self._byes: dict[WorkerId, asyncio.Event] = {}
        self._last_words: dict[WorkerId, str] = {}
        self._over = False

    def open(self, folder: Path, endpoint: str, workers: int) -> None:
        """Before anything is started. folder: for sockets and stacks. endpoint: of the daemon, where workers report.
        workers: how many there can be at a time.
        """
        self._endpoint = endpoint
        self._watch = Watch(folder, workers, self._condemned, self._watchdog_runs)

    async def watch(self) -> None:
        """Keep a watchdog over the workers, until cancelled; then it kills those that are left."""
        await self._watch.run()

    async def look_after(self, slot: Slot, worker: WorkerId, not_before: float) -> None:
        """Start a worker, wait for its end, and tell of it."""
        await asyncio.sleep(max(0.0, not_before - self._clock()))
        if self._over:
            return
        seat = self._watch.seat(START_TIMEOUT_S)
        argv = self._argv(slot, worker, seat)
        process = await WorkerProcess.spawn(argv, {**environment(slot), **dict([seat.env])}, [seat.fd])
        self._watch.seated(seat, process.pid)
        self._running[worker] = process
        if self._over:
            process.kill()
        returncode = await process.wait()
        bye = self._bye_of(worker)
        if returncode == 0:
            # Its last commits may still be on their way through the socket, which the exit overtakes.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(bye.wait(), BYE_TIMEOUT_S)
        del self._byes[worker]
        self._last_words[worker] = process.output()
        del self._running[worker]
        if (killing := await self._watch.rise(seat, process.pid)) is not None:
            self._tell(pool.WorkerKilled(worker, killing.reason, killing.stack, killing.guilty_stage))
        self._tell(pool.WorkerExited(worker, returncode))

    def pid(self, worker: WorkerId) -> int:
        """Of a running worker; 0 if it does not run."""
        process = self._running.get(worker)
        return 0 if process is None else process.pid

    def said_bye(self, worker: WorkerId) -> None:
        """All that the worker had to say has arrived: its exit need not be held back."""
        self._bye_of(worker).set()

    def last_words(self, worker: WorkerId) -> str:
        """The end of what a worker that is gone wrote on standard output and error; once."""
        return self._last_words.pop(worker, "")

    def kill(self, worker: WorkerId) -> None:
        """SIGKILL a worker and its group, if it runs. Its end is told as any other."""
        if (process := self._running.get(worker)) is not None:
            process.kill()

    def kill_all(self) -> None:
        """SIGKILL every worker, and start none from now on."""
        self._over = True
        for process in self._running.values():
            process.kill()

    def _argv(self, slot: Slot, worker: WorkerId, seat: Seat) -> list[str]:
        argv = [sys.executable, "-m", "nimbusd.worker.compute", "--endpoint", self._endpoint, "--slot", worker]
        argv += ["--parent", str(os.getpid()), "--device", slot.device, "--cpus", ",".join(map(str, slot.cpus))]
        return [*argv, *seat.options, "--start-timeout", str(START_TIMEOUT_S)]

    def _bye_of(self, worker: WorkerId) -> asyncio.Event:
        return self._byes.setdefault(worker, asyncio.Event())

    def _condemned(self, pid: int, reason: str) -> None:
        worker = next((worker for worker, process in self._running.items() if process.pid == pid), None)
        log.warning("killing worker %s: %s", worker or f"with pid {pid}", reason)

    def _watchdog_runs(self, pid: int) -> None:
        log.info("the watchdog runs as pid %d", pid)
