"""The processes of a node's compute workers and spares: started, watched over, killed, and reported when they end.

Each has a seat on the watchdog's heartbeat page from before it starts until it is gone; a spare that takes a slot
keeps it. Who is to be started and killed is `WorkerPool`'s to decide; what became of it is told as the pool's facts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from nimbusd.core.ids import WorkerId
from nimbusd.core.node import pool_facts as p
from nimbusd.core.node.spares import is_spare
from nimbusd.node.folders import environment_of_temporary_files
from nimbusd.node.slots import Slot, environment, typical
from nimbusd.supervisor.process import WorkerProcess, python
from nimbusd.supervisor.watch import Seat, WorkerWatch

log = logging.getLogger(__name__)

START_TIMEOUT_S = 300.0
BYE_TIMEOUT_S = 1.0


Ended: TypeAlias = p.WorkerKilled | p.WorkerExited | p.SpareGone


@dataclass(slots=True)
class _Running:
    """name: of the worker or the spare that it is now."""

    name: WorkerId
    process: WorkerProcess


class ComputeProcesses:
    """The compute workers' processes of one node. tell: is told what became of each, as it happens."""

    def __init__(
        self,
        tell: Callable[[Ended], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell = tell
        self._clock = clock
        self._running: dict[WorkerId, _Running] = {}
        self._byes: dict[WorkerId, asyncio.Event] = {}
        self._last_words: dict[WorkerId, str] = {}
        self._started = itertools.count()
        self._over = False

    def open(self, folder: Path, temporary: Path, endpoint: str, slots: Sequence[Slot], spares: int) -> None:
        """Before anything is started. folder: for sockets and stacks. temporary: for the workers' temporary files.
        endpoint: of the daemon, where workers report. spares: how many there can be at a time beside the slots'
        workers.
        """
        self._temporary = temporary
        self._endpoint = endpoint
        self._typical = typical(slots)
        self._watch = WorkerWatch(folder, len(slots) + spares, self._condemned, self._watchdog_runs)

    async def watch(self) -> None:
        """Keep a watchdog over the workers, until cancelled; then it kills those that are left."""
        await self._watch.run()

    async def look_after(self, slot: Slot, worker: WorkerId, not_before: float) -> None:
        """Start a worker, wait for its end, and tell of it."""
        await asyncio.sleep(max(0.0, not_before - self._clock()))
        await self._run(slot, worker, environment(slot))

    async def look_after_spare(self, spare: WorkerId) -> None:
        """Start a spare, wait for its end, and tell of it; if it took a place meanwhile, as of that worker."""
        # Its GPU is chosen with its place. Cores and threads are those of the likeliest one.
        slot = replace(self._typical, device="auto", gpu_uuid="")
        await self._run(slot, spare, environment(slot), "--spare")

    def take(self, spare: WorkerId, worker: WorkerId) -> bool:
        """A spare is a slot's worker from now on, and goes by its name. False if it does not run any more."""
        running = self._running.pop(spare, None)
        if running is not None:
            running.name = worker
            self._running[worker] = running
        return running is not None

    def pid(self, worker: WorkerId) -> int:
        """Of a running worker; 0 if it does not run."""
        running = self._running.get(worker)
        return 0 if running is None else running.process.pid

    def said_bye(self, worker: WorkerId) -> None:
        """All that the worker had to say has arrived: its exit need not be held back."""
        self._bye_of(worker).set()

    def last_words(self, worker: WorkerId) -> str:
        """The end of what a worker that is gone wrote on standard output and error; once."""
        return self._last_words.pop(worker, "")

    def kill(self, worker: WorkerId) -> None:
        """SIGKILL a worker and its group, if it runs. Its end is told as any other."""
        if (running := self._running.get(worker)) is not None:
            running.process.kill()

    def kill_all(self) -> None:
        """SIGKILL every worker, and start none from now on."""
        self._over = True
        for running in self._running.values():
            running.process.kill()

    async def _run(self, slot: Slot, name: WorkerId, env: Mapping[str, str], *options: str) -> None:
        if self._over:
            return
        temporary = self._temporary / str(next(self._started))
        temporary.mkdir(0o700)
        await self._run_process(slot, name, {**env, **environment_of_temporary_files(temporary)}, *options)
        # After its end was told: this may take long. Should we be killed meanwhile, it goes with the node's own folder.
        await asyncio.to_thread(shutil.rmtree, temporary, ignore_errors=True)

    async def _run_process(self, slot: Slot, name: WorkerId, env: Mapping[str, str], *options: str) -> None:
        seat = self._watch.seat(START_TIMEOUT_S)
        argv = [*self._argv(slot, name, seat), *options]
        process = await WorkerProcess.spawn(argv, {**env, **dict([seat.env])}, [seat.fd], seat.group)
        self._watch.seated(seat, process.pid)
        running = self._running[name] = _Running(name, process)
        if self._over:
            process.kill()
        returncode = await process.wait()
        if returncode == 0 and not is_spare(running.name):
            # Its last commits may still be on their way through the socket, which the exit overtakes.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._bye_of(running.name).wait(), BYE_TIMEOUT_S)
        name = running.name
        del self._running[name]
        self._byes.pop(name, None)
        killing = await self._watch.rise(seat, process.pid)
        if is_spare(name):
            log.info("%s is gone, status %d; its last words: %s", name, returncode, process.output()[-2000:])
            self._tell(p.SpareGone(name))
            return
        self._last_words[name] = process.output()
        if killing is not None:
            self._tell(p.WorkerKilled(name, killing.reason, killing.stack, killing.guilty_stage))
        self._tell(p.WorkerExited(name, returncode))

    def _argv(self, slot: Slot, worker: WorkerId, seat: Seat) -> list[str]:
        argv = python("nimbusd.compute.worker", "--endpoint", self._endpoint, "--worker", worker)
        argv += ["--parent", str(os.getpid()), "--device", slot.device, "--cpus", ",".join(map(str, slot.cpus))]
        return [*argv, *seat.options, "--start-timeout", str(START_TIMEOUT_S)]

    def _bye_of(self, worker: WorkerId) -> asyncio.Event:
        return self._byes.setdefault(worker, asyncio.Event())

    def _condemned(self, pid: int, reason: str) -> None:
        worker = next((name for name, running in self._running.items() if running.process.pid == pid), None)
        log.warning("killing worker %s: %s", worker or f"with pid {pid}", reason)

    def _watchdog_runs(self, pid: int) -> None:
        log.info("the watchdog runs as pid %d", pid)
