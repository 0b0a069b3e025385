"""The daemon's side of the watchdog: it knows who was killed and why, and replaces a watchdog that is gone."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from nimbusd.supervisor import proc
from nimbusd.supervisor.process import WorkerProcess, read_pipe
from nimbusd.supervisor.watch import Killing, Seat, WorkerWatch
from tests.support.watched_workers import PATIENCE_S, SPAWN, gone, start

pytestmark = pytest.mark.processes


class Watching:
    """A watch, and what it tells."""

    def __init__(self, folder: Path) -> None:
        self.condemned: asyncio.Queue[int] = asyncio.Queue()
        self._watchdogs: asyncio.Queue[int] = asyncio.Queue()
        self.watch = WorkerWatch(folder, 2, lambda pid, _: self.condemned.put_nowait(pid), self._watchdogs.put_nowait)

    async def watchdog(self) -> int:
        """The pid of the next watchdog that is started."""
        return await asyncio.wait_for(self._watchdogs.get(), PATIENCE_S)


@asynccontextmanager
async def watching(folder: Path) -> AsyncIterator[Watching]:
    """A watch that runs."""
    made = Watching(folder)
    running = asyncio.create_task(made.watch.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def end(watch: WorkerWatch, seat: Seat, process: WorkerProcess) -> tuple[int, Killing | None]:
    status = await asyncio.wait_for(process.wait(), PATIENCE_S)
    return status, await watch.rise(seat, process.pid)


async def test_a_worker_that_was_killed_is_known_to_be_when_its_exit_is_seen(tmp_path: Path) -> None:
    async with watching(tmp_path) as node:
        seat, process = await start(node.watch, "render()\nctypes.PyDLL(None).pause()")
        status, killing = await end(node.watch, seat, process)
        assert status < 0
        assert killing is not None
        assert (killing.pid, killing.stage) == (process.pid, "render")
        assert "<module>" in killing.stack
        assert node.condemned.get_nowait() == process.pid


@pytest.mark.parametrize(
    ("ends", "status"), [("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV), ("os._exit(0)", 0)]
)
async def test_a_worker_that_ends_by_itself_was_not_killed(tmp_path: Path, ends: str, status: int) -> None:
    async with watching(tmp_path) as node:
        seat, process = await start(node.watch, f"render()\n{ends}", allowance_s=60.0)
        assert await end(node.watch, seat, process) == (status, None)


async def test_a_worker_that_is_gone_before_anybody_looks_has_ended_like_any_other() -> None:
    quick = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
    await quick.wait()  # and nobody can open it any more
    ear, mouth = os.pipe()
    os.close(mouth)
    process = WorkerProcess(quick, *await read_pipe(ear))
    process.kill()
    assert await process.wait() == 3


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run])
def test_a_pipe_that_was_read_is_closed_once(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """A second close would hit whatever another thread has opened meanwhile: a connection, or the ledger."""

    async def read_and_close() -> None:
        ear, mouth = os.pipe()
        os.close(mouth)
        stream, transport = await read_pipe(ear)
        file = transport.get_extra_info("pipe")
        assert await stream.read() == b""
        transport.close()
        for _ in range(10):  # the loop closes it in one of its next turns
            await asyncio.sleep(0)
        assert file.closed
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(ear)
        # uvloop closes what it reads by itself; asyncio leaves that to the file.
        assert file.closefd == (run is not uvloop.run)

    run(read_and_close())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_watchdog_that_is_killed_or_stopped_is_replaced_and_workers_live(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with watching(tmp_path) as node:
        living = await start(node.watch, "line.work.rest()\ntime.sleep(1000)")
        os.kill(await node.watchdog(), number)
        await node.watchdog()
        seat, process = await start(node.watch, "render()\ntime.sleep(1000)")  # the new one does its work
        assert (await end(node.watch, seat, process))[1] is not None
        assert proc.state(living[1].pid) in ("S", "R")
        living[1].kill()
        assert (await end(node.watch, *living))[1] is None


async def test_what_died_while_nobody_watched_takes_its_children_along(tmp_path: Path) -> None:
    async with watching(tmp_path) as node:
        os.kill(await node.watchdog(), signal.SIGSTOP)
        body = """
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=subprocess.DEVNULL)
        print(child.pid)
        """
        seat, process = await start(node.watch, body)
        await end(node.watch, seat, process)
        await node.watchdog()  # a new one
        await asyncio.to_thread(gone, int(process.output()))


async def test_a_watch_that_ends_leaves_no_process(tmp_path: Path) -> None:
    async with watching(tmp_path) as node:
        _, process = await start(node.watch, SPAWN + "line.work.rest()\ntime.sleep(1000)")
        watchdog = await node.watchdog()
    await asyncio.wait_for(process.wait(), PATIENCE_S)
    for pid in (process.pid, watchdog):
        gone(pid)
