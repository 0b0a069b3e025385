"""The ledger behind asyncio: durable in order, one transaction for many, errors that reach everybody."""

from __future__ import annotations

import asyncio
import errno
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest
import pytest_asyncio

from nimbusd.core.ids import EpisodeKey, JobId
from nimbusd.core.records import LedgerEntry, Record, State
from nimbusd.master.ledger import thread as ledger_thread
from nimbusd.master.ledger.ledger import Ledger, LedgerBusy, LedgerError, LedgerFull
from nimbusd.master.ledger.thread import LedgerThread
from tests.support.ledger_writer import job_row
from tests.support.records import record_of

JOB = JobId("houses")


def committed(index: int) -> Record:
    return record_of(EpisodeKey(JOB, "a", index), State.COMMITTED)


def indexes(path: Path) -> list[int]:
    with Ledger.read(path) as ledger:
        return [piece.key.index for piece in ledger.committed(JOB)]


class Disk:
    """Stands between the thread and the disk: counts transactions, holds them up, lets them fail."""

    def __init__(self, apply: Callable[[Ledger, Iterable[LedgerEntry]], None]) -> None:
        self._apply = apply
        self.sizes: list[int] = []
        self.reached = threading.Event()
        self.free = threading.Event()
        self.free.set()
        self.error: LedgerError | None = None

    def apply(self, ledger: Ledger, entries: Iterable[LedgerEntry]) -> None:
        batch = list(entries)
        self.sizes.append(len(batch))
        self.reached.set()
        assert self.free.wait(30)
        if self.error is not None:
            raise self.error
        self._apply(ledger, batch)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk(Ledger.apply)
    monkeypatch.setattr(Ledger, "apply", lambda ledger, entries: found.apply(ledger, entries))
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest_asyncio.fixture
async def thread(path: Path) -> AsyncIterator[LedgerThread]:
    async with LedgerThread.opened(path) as opened:
        await opened.call_writing(lambda ledger: ledger.put_job(job_row(JOB)))
        yield opened


async def test_what_submit_returned_from_is_in_the_file(thread: LedgerThread, path: Path) -> None:
    await thread.submit([committed(0), committed(1)])
    assert indexes(path) == [0, 1]
    assert await thread.call(lambda ledger: ledger.totals(JOB).committed) == 2
    assert await thread.call_apart(lambda ledger: ledger.totals(JOB).committed) == 2


async def test_all_that_is_submitted_during_a_transaction_is_the_next_one(disk: Disk, thread: LedgerThread) -> None:
    disk.free.clear()
    first = asyncio.create_task(thread.submit([committed(0)]))
    await asyncio.to_thread(disk.reached.wait, 30)
    rest = [asyncio.create_task(thread.submit([committed(index)])) for index in range(1, 101)]
    await asyncio.sleep(0)
    disk.free.set()
    await asyncio.gather(first, *rest)
    assert disk.sizes == [1, 100]


async def test_a_transaction_has_a_largest_size(
    disk: Disk, thread: LedgerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_thread, "MOST_AT_ONCE", 10)
    disk.free.clear()
    first = asyncio.create_task(thread.submit([committed(0)]))
    await asyncio.to_thread(disk.reached.wait, 30)
    sizes = (4, 4, 4, 25, 1)
    rest = [asyncio.create_task(thread.submit([committed(9)] * size)) for size in sizes]
    await asyncio.sleep(0)
    disk.free.set()
    await asyncio.gather(first, *rest)
    assert disk.sizes == [1, 8, 4, 25, 1]


async def test_callbacks_come_in_the_order_of_submission_and_calls_in_their_turn(thread: LedgerThread) -> None:
    seen: list[int] = []
    for index in range(500):
        thread.submit_nowait([committed(index)], lambda index=index: seen.append(index))  # type: ignore[misc]
        if index == 250:
            count = asyncio.create_task(thread.call_writing(lambda ledger: ledger.totals(JOB).committed))
            await asyncio.sleep(0)
        if index % 7 == 0:
            await asyncio.sleep(0)
    await thread.submit([])
    assert seen == list(range(500))
    assert await count == 251


async def test_closing_writes_what_was_submitted_and_tells_so(path: Path) -> None:
    seen: list[int] = []
    async with LedgerThread.opened(path) as thread:
        await thread.call_writing(lambda ledger: ledger.put_job(job_row(JOB)))
        for index in range(50):
            thread.submit_nowait([committed(index)], lambda index=index: seen.append(index))  # type: ignore[misc]
    assert seen == indexes(path) == list(range(50))
    with pytest.raises(LedgerError, match="closed"):
        thread.submit_nowait([committed(99)], lambda: None)
    Ledger.open(path).close()


async def test_a_submission_that_nobody_awaits_any_more_is_written_all_the_same(
    disk: Disk, thread: LedgerThread, path: Path
) -> None:
    disk.free.clear()
    task = asyncio.create_task(thread.submit([committed(0)]))
    await asyncio.to_thread(disk.reached.wait, 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    disk.free.set()
    await thread.submit([committed(1)])
    assert indexes(path) == [0, 1]


async def test_an_error_reaches_everybody_and_nothing_is_written_after_it(
    disk: Disk, thread: LedgerThread, path: Path
) -> None:
    told: list[LedgerError] = []
    disk.free.clear()
    disk.error = LedgerFull("no room", path, errno.ENOSPC)
    watching = asyncio.create_task(thread.failure())
    first = asyncio.create_task(thread.submit([committed(0)]))
    await asyncio.to_thread(disk.reached.wait, 30)
    second = asyncio.create_task(thread.submit([committed(1)]))
    calling = asyncio.create_task(thread.call_writing(lambda ledger: ledger.totals(JOB)))
    await asyncio.sleep(0)
    thread.submit_nowait([committed(2)], lambda: None, told.append)
    disk.free.set()
    results = await asyncio.gather(first, second, calling, watching, return_exceptions=True)
    assert list(results) == [disk.error] * 4
    disk.error = None
    with pytest.raises(LedgerFull):
        await thread.submit([committed(3)])
    assert told == [thread.failed]
    assert indexes(path) == []
    assert disk.sizes == [1]


async def test_after_a_failure_writing_goes_on_when_asked(disk: Disk, thread: LedgerThread, path: Path) -> None:
    disk.error = LedgerFull("no room", path, errno.ENOSPC)
    with pytest.raises(LedgerFull):
        await thread.submit([committed(0)])
    disk.error = None
    thread.go_on()
    await thread.submit([committed(0)])
    assert thread.failed is None
    assert indexes(path) == [0]
    failure = asyncio.create_task(thread.failure())
    disk.error = LedgerFull("no room", path, errno.ENOSPC)
    with pytest.raises(LedgerFull):
        await thread.submit([committed(1)])
    with pytest.raises(LedgerFull):
        await failure


async def test_a_call_that_is_refused_fails_alone(thread: LedgerThread, path: Path) -> None:
    with pytest.raises(LedgerError, match="another job"):
        await thread.call_writing(lambda ledger: ledger.put_job(job_row(JOB, "f2")))
    with pytest.raises(ZeroDivisionError):
        await thread.call_writing(lambda ledger: 1 // 0)
    with pytest.raises(sqlite3.ProgrammingError):
        await thread.call(lambda ledger: ledger.job(object()))  # type: ignore[arg-type]
    await thread.submit([committed(0)])
    assert indexes(path) == [0]


async def test_a_long_read_keeps_neither_writes_nor_other_reads_waiting(thread: LedgerThread) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow(ledger: Ledger) -> int:
        begun.set()
        assert go_on.wait(30)
        return ledger.totals(JOB).committed

    reading = asyncio.create_task(thread.call_apart(slow))
    await asyncio.to_thread(begun.wait, 30)
    await thread.submit([committed(0)])
    assert await thread.call(lambda ledger: ledger.totals(JOB).committed) == 1
    go_on.set()
    assert await reading == 1


async def test_whoever_submits_too_much_is_held_up_and_at_last_refused(
    disk: Disk, thread: LedgerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_thread, "MOST_WAITING", 40)
    disk.free.clear()
    await asyncio.wait_for(thread.room(), 30)
    thread.submit_nowait([committed(0)] * 11, lambda: None)
    waiting = asyncio.create_task(thread.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    with pytest.raises(LedgerError, match="11 entries wait"):
        thread.submit_nowait([committed(0)] * 30, lambda: None)
    disk.free.set()
    await asyncio.wait_for(waiting, 30)


async def test_a_loop_that_is_never_idle_lets_the_thread_through(
    thread: LedgerThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []
    go_on = threading.Event()

    def nap(duration_s: float) -> None:
        naps.append(duration_s)
        if len(naps) == 3:
            go_on.set()

    monkeypatch.setattr("nimbusd.master.ledger.thread.time.sleep", nap)
    assert await thread.call_writing(lambda ledger: go_on.wait(30))
    assert naps == [ledger_thread.NAP_S] * len(naps)


async def test_the_ledger_of_another_process_cannot_be_opened(path: Path, thread: LedgerThread) -> None:
    assert thread.epoch > 0
    with pytest.raises(LedgerBusy):
        async with LedgerThread.opened(path):
            pass
