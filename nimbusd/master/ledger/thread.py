"""The ledger for asyncio code: a thread of its own writes, others read, and the event loop never waits for a disk.

Group commit: all that was submitted while a transaction ran goes into the next one. What is submitted is durable
in the order in which it was submitted, and callbacks come in that order.

After a failed write everything that comes later fails as well, until `go_on`: a ledger with a hole in it would be
worse than one that ends early.

A busy event loop gives up the interpreter's lock in every turn, but takes it back before a thread that waits for it
has woken up: transactions were seen to take 18 s instead of 4 ms. So while the ledger's threads have something to do
and nothing comes back, the loop naps now and then, for as long as a thread needs to wake up.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from nimbusd.core.records import LedgerEntry
from nimbusd.master.ledger.ledger import Ledger, LedgerError

T = TypeVar("T")

MOST_WAITING = 200_000
"""Entries that may wait for the disk; `room` waits while there are more than a quarter of that."""
MOST_AT_ONCE = 2_000
"""Entries of one transaction, or those of one submission if they are more."""
NAP_S = 100e-6
NAP_EVERY_S = 1e-3
NAP_EVERY_APART_S = 5e-3
"""While only `call_apart` is under way, which may be for minutes."""


@dataclass(slots=True)
class _Entries:
    """Entries of one submission. durable, failed: called on the event loop's thread."""

    entries: list[LedgerEntry]
    durable: Callable[[], object]
    failed: Callable[[LedgerError], object]


@dataclass(slots=True)
class _Call:
    """Something else to do with the ledger, in its turn."""

    function: Callable[[Ledger], Any]
    result: asyncio.Future[Any]

    def failed(self, error: BaseException) -> None:
        if not self.result.done():
            self.result.set_exception(error)

    def done(self, value: Any) -> None:
        if not self.result.done():
            self.result.set_result(value)


class LedgerThread:
    """An open ledger. Every method is for the event loop's thread."""

    def __init__(self, ledger: Ledger, loop: asyncio.AbstractEventLoop) -> None:
        self._ledger = ledger
        self._loop = loop
        self.path = ledger.path
        self.epoch = ledger.epoch
        """The number of times that the ledger has been opened to write."""
        self.failed: LedgerError | None = None
        """The reason why nothing can be written, as long as that is so."""
        self._wake = threading.Condition()
        self._queue: list[_Entries | _Call] = []
        self._broken: LedgerError | None = None
        """`failed`, as the writer's thread knows it; guarded by `_wake`, as are `_queue` and `_closing`."""
        self._waiting = 0
        self._closing = False
        self._failure: asyncio.Future[None] = loop.create_future()
        self._owed = 0
        """Submissions and calls that are not answered yet; of `call_apart` in `_owed_apart`."""
        self._owed_apart = 0
        self._answers = 0
        self._napping = False
        self._room = asyncio.Event()
        self._room.set()
        self._thread = threading.Thread(target=self._write, name="ledger")
        self._readers = [ThreadPoolExecutor(1, name) for name in ("ledger-read", "ledger-apart")]
        self._reading: dict[ThreadPoolExecutor, Ledger] = {}

    @classmethod
    @asynccontextmanager
    async def opened(cls, path: Path) -> AsyncIterator[Self]:
        """The ledger at `path`, until the block ends; then all that was submitted has been written.

        Raises LedgerBusy or LedgerError.
        """
        ledger = await asyncio.to_thread(Ledger.open, path)
        thread = cls(ledger, asyncio.get_running_loop())
        thread._thread.start()
        try:
            yield thread
        finally:
            await thread._close()

    # --- writing ---

    def submit_nowait(
        self,
        entries: Iterable[LedgerEntry],
        durable: Callable[[], object],
        failed: Callable[[LedgerError], object] | None = None,
    ) -> None:
        """Write the entries. Later one of the two is called, on the event loop.

        Without `failed`, an error is only seen by those who await `failure`. Raises LedgerError if MOST_WAITING
        entries wait already: whoever takes in more than a disk can write awaits `room` before it.
        """
        item = _Entries(list(entries), durable, failed or _leave_to_failure)
        if self._waiting + len(item.entries) > MOST_WAITING:
            raise LedgerError(
                f"{self._waiting} entries wait to be written to {self.path}: its disk is too slow.", self.path
            )
        self._put(item)

    async def submit(self, entries: Iterable[LedgerEntry]) -> None:
        """Write the entries; durable on return. Raises LedgerFull or LedgerError."""
        written: asyncio.Future[None] = self._loop.create_future()

        def durable() -> None:
            if not written.done():
                written.set_result(None)

        def failed(error: LedgerError) -> None:
            if not written.done():
                written.set_exception(error)

        self.submit_nowait(entries, durable, failed)
        await written

    async def call_writing(self, function: Callable[[Ledger], T]) -> T:
        """Have the ledger's thread call `function` with the ledger, after all that was submitted before.

        For writing what is no entry. Raises what the function raises; an error of the ledger itself counts as a
        failed write only if it is one of the disk (it has an errno).
        """
        result: asyncio.Future[T] = self._loop.create_future()
        self._put(_Call(function, result))
        return await result

    async def room(self) -> None:
        """Wait until little enough is waiting that more may be taken in."""
        while not self._room.is_set():
            await self._room.wait()

    async def failure(self) -> None:
        """Wait until a write fails, and raise its LedgerError. For the task that must not outlive its ledger."""
        await asyncio.shield(self._failure)

    def go_on(self) -> None:
        """Accept writes again after a failure. What failed is not written: submit it again, in the same order."""
        if self.failed is not None:
            self.failed = None
            self._failure = self._loop.create_future()
            with self._wake:
                self._broken = None

    def _put(self, item: _Entries | _Call) -> None:
        if self._closing:
            raise LedgerError(f"{self.path} is closed.", self.path)
        with self._wake:
            error = self._broken
            if error is None:
                self._queue.append(item)
                self._wake.notify()
        if error is not None:
            self._loop.call_soon(item.failed, error)
            return
        self._owed += 1
        self._nap_later()
        if isinstance(item, _Entries):
            self._waiting += len(item.entries)
            if self._waiting > MOST_WAITING // 4:
                self._room.clear()

    # --- reading ---

    async def call(self, function: Callable[[Ledger], T]) -> T:
        """Return what `function` reads, on a connection of its own: it sees all that was durable when it was called."""
        self._owed += 1
        try:
            return await self._read(self._readers[0], function)
        finally:
            self._owed -= 1
            self._answers += 1

    async def call_apart(self, function: Callable[[Ledger], T]) -> T:
        """`call` for what may take long: it does not keep other calls waiting."""
        self._owed_apart += 1
        try:
            return await self._read(self._readers[1], function)
        finally:
            self._owed_apart -= 1

    async def _read(self, reader: ThreadPoolExecutor, function: Callable[[Ledger], T]) -> T:
        def read() -> T:
            ledger = self._reading.get(reader)
            if ledger is None:
                ledger = self._reading[reader] = Ledger.read(self.path)
            return function(ledger)

        self._nap_later()
        return await self._loop.run_in_executor(reader, read)

    # --- letting the threads through ---

    def let_through(self, begun: bool) -> None:
        """Something has begun in a thread that is not ours, or has ended: it is let through meanwhile, as ours are."""
        self._owed += 1 if begun else -1
        if begun:
            self._nap_later()
        else:
            self._answers += 1

    def _nap_later(self) -> None:
        if not self._napping:
            self._napping = True
            self._loop.call_later(NAP_EVERY_S, self._nap, self._answers)

    def _nap(self, answers: int) -> None:
        """Give up the interpreter's lock for long enough that a thread gets it, if none has come through lately."""
        if not self._owed and not self._owed_apart:
            self._napping = False
            return
        if answers == self._answers:
            time.sleep(NAP_S)
        self._loop.call_later(NAP_EVERY_S if self._owed else NAP_EVERY_APART_S, self._nap, self._answers)

    # --- the writer's thread ---

    def _write(self) -> None:
        while True:
            with self._wake:
                while not self._queue:
                    if self._closing:
                        return
                    self._wake.wait()
                items, self._queue = self._queue, []
            while items:
                items = self._write_some(items)

    def _write_some(self, items: list[_Entries | _Call]) -> list[_Entries | _Call]:
        """Write what can be one transaction. Returns what comes after it."""
        first = items[0]
        if isinstance(first, _Call):
            try:
                value = first.function(self._ledger)
            except LedgerError as error:
                if error.errno:
                    return self._fail(items, error)
                self._loop.call_soon_threadsafe(self._called, first.failed, error)
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever awaits the call
                self._loop.call_soon_threadsafe(self._called, first.failed, error)
            else:
                self._loop.call_soon_threadsafe(self._called, first.done, value)
            return items[1:]
        group: list[_Entries] = []
        size = 0
        for item in items:
            if isinstance(item, _Call) or (group and size + len(item.entries) > MOST_AT_ONCE):
                break
            group.append(item)
            size += len(item.entries)
        try:
            self._ledger.apply(entry for item in group for entry in item.entries)
        except LedgerError as error:
            return self._fail(items, error)
        self._loop.call_soon_threadsafe(self._written, group)
        return items[len(group) :]

    def _fail(self, items: list[_Entries | _Call], error: LedgerError) -> list[_Entries | _Call]:
        with self._wake:  # so that nothing submitted later hears of it earlier
            self._broken = error
            late, self._queue = self._queue, []
            self._loop.call_soon_threadsafe(self._not_written, [*items, *late], error)
        return []

    # --- back on the event loop ---

    def _called(self, answer: Callable[[Any], None], value: Any) -> None:
        self._settle([], 1)
        answer(value)

    def _written(self, group: list[_Entries]) -> None:
        self._settle(group, len(group))
        for item in group:
            self._loop.call_soon(item.durable)

    def _not_written(self, items: list[_Entries | _Call], error: LedgerError) -> None:
        self.failed = error
        self._settle([item for item in items if isinstance(item, _Entries)], len(items))
        for item in items:
            self._loop.call_soon(item.failed, error)
        if not self._failure.done():
            self._failure.set_exception(error)
            self._failure.exception()  # nobody has to await it

    def _settle(self, group: list[_Entries], answered: int) -> None:
        self._owed -= answered
        self._answers += answered
        self._waiting -= sum(len(item.entries) for item in group)
        if self._waiting <= MOST_WAITING // 4:
            self._room.set()

    async def _close(self) -> None:
        """Write what waits, then let go of the file."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        for reader in self._readers:
            await asyncio.to_thread(reader.shutdown)
        for ledger in self._reading.values():
            ledger.close()
        await asyncio.to_thread(self._ledger.close)
        await asyncio.sleep(0)  # callbacks of the last transaction


def _leave_to_failure(_: LedgerError) -> None:
    """An error that `LedgerThread.failure` tells of."""
