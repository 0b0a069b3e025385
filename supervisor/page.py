"""The heartbeat page: shared memory in which compute workers say until when they owe the next sign of life.

A sealed memfd that the daemon makes and its watchdog and compute workers inherit. All words are 8 bytes, in the
machine's own byte order (the page never leaves the machine). Layout, version 1:

    bytes 0..63     header: magic `nimbusHB`, u32 version, u32 size of a line, u32 lines, u32 0, u64 id of the page
    then one cache line (64 bytes, 8 words) per process; line 0 is the daemon's, line 1 the watchdog's, the rest
    are compute workers':

    word  written by           holds
    0     daemon               pid; 0: nobody is here. Written last when a worker is put in, zeroed first when it goes
    1     daemon               start time of that process (field 22 of /proc/PID/stat)
    2     daemon               generation: grows whenever a process leaves the line
    3     working thread       deadline: CLOCK_MONOTONIC ns by which it must have beaten again; 0: owes nothing
    4     working thread       progress: stage (8 bits), allowance in ms (28 bits), counter of beats (28 bits)
    5     writer thread        deadline
    6     writer thread        progress
    7     working thread       deadline of the whole episode; 0: none

Nobody locks. Every word has one writer and is loaded and stored whole, since it is aligned; each deadline means
something by itself, so that a reader who sees a line half way through a change sees nothing wrong. The daemon
writes word 3 as well, before the process exists: from its first instruction on a worker owes something.

A beat is two stores and one reading of the clock: no lock, no system call.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from typing import NamedTuple

MAGIC = b"nimbusHB"
VERSION = 1
LINE_BYTES = 64
DAEMON = 0
WATCHDOG = 1
FIRST_WORKER = 2

STAGES = (
    *("", "start", "wait", "open", "load", "randomize", "plan", "render", "store", "close"),
    *("loop", "watch"),  # of the daemon and the watchdog
)
"""The stages that a line can be in. Their places are their codes on the page; 0 stands for any other."""

_HEADER = struct.Struct("=8sIIIIQ")
_WORDS = LINE_BYTES // 8
_PID, _START, _GENERATION, _WORK, _STORE, _EPISODE = 0, 1, 2, 3, 5, 7
_COUNTER_BITS = _ALLOWANCE_BITS = 28
_COUNTER_MASK = (1 << _COUNTER_BITS) - 1
_ALLOWANCE_MASK = (1 << _ALLOWANCE_BITS) - 1
_CODES = {name: code for code, name in enumerate(STAGES)}
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class PageError(Exception):
    """A file is no heartbeat page of this version."""


class Occupant(NamedTuple):
    """The process that a line belongs to. start_ticks: with the pid it names one process for ever; pids come again."""

    pid: int
    start_ticks: int
    generation: int


class Owed(NamedTuple):
    """A thread's last promise. deadline_ns: 0 if it owes nothing. counter: of its beats; wraps at 2^28."""

    deadline_ns: int
    stage: str
    allowance_s: float
    counter: int


class Pulse:
    """One thread's side of a line. Only that thread may call it."""

    __slots__ = ("_counter", "_place", "_words")

    def __init__(self, words: memoryview, place: int) -> None:
        self._words = words
        self._place = place
        self._counter = 0

    def owe(self, stage: str, allowance_s: float, now_ns: int) -> None:
        """A beat: I am in `stage`, and beat again within `allowance_s`."""
        self._counter = (self._counter + 1) & _COUNTER_MASK
        allowance_ms = min(int(allowance_s * 1000), _ALLOWANCE_MASK)
        head = _CODES.get(stage, 0) << _ALLOWANCE_BITS | allowance_ms
        self._words[self._place + 1] = head << _COUNTER_BITS | self._counter
        self._words[self._place] = now_ns + int(allowance_s * 1e9)

    def rest(self) -> None:
        """I owe nothing until I beat again."""
        self._words[self._place] = 0


class Line:
    """One process's line."""

    def __init__(self, words: memoryview) -> None:
        assert len(words) == _WORDS
        self._words = words
        self.work = Pulse(words, _WORK)
        self.store = Pulse(words, _STORE)

    # --- written by the daemon ---

    def prepare(self, stage: str, allowance_s: float, now_ns: int) -> int:
        """Make the line ready for a process that is about to be started; returns its generation."""
        self.vacate()
        self._words[_STORE] = self._words[_EPISODE] = 0
        self.work.owe(stage, allowance_s, now_ns)
        return self._words[_GENERATION]

    def occupy(self, pid: int, start_ticks: int) -> None:
        """The process that the line was prepared for runs."""
        self._words[_START] = start_ticks
        self._words[_PID] = pid

    def vacate(self) -> None:
        """Nobody is here any more, and the generation is over."""
        self._words[_PID] = 0
        self._words[_GENERATION] += 1

    # --- written by the working thread ---

    def limit_episode(self, deadline_ns: int) -> None:
        """Set the time by which the episode must be over; 0 for none."""
        self._words[_EPISODE] = deadline_ns

    # --- read by anybody ---

    def occupant(self) -> Occupant | None:
        """The process that this line belongs to, or None."""
        pid = self._words[_PID]
        return Occupant(pid, self._words[_START], self._words[_GENERATION]) if pid else None

    def generation(self) -> int:
        """The generation of who is here, or comes next."""
        return self._words[_GENERATION]

    def working(self) -> Owed:
        """The last promise of the working thread."""
        return self._owed(_WORK)

    def storing(self) -> Owed:
        """The last promise of the writer threads."""
        return self._owed(_STORE)

    def episode_deadline_ns(self) -> int:
        """The time by which the episode must be over; 0 if there is none."""
        return self._words[_EPISODE]

    def _owed(self, place: int) -> Owed:
        deadline_ns, word = self._words[place], self._words[place + 1]
        head, counter = word >> _COUNTER_BITS, word & _COUNTER_MASK
        code, allowance_ms = head >> _ALLOWANCE_BITS, head & _ALLOWANCE_MASK
        return Owed(deadline_ns, STAGES[code] if code < len(STAGES) else "", allowance_ms / 1000, counter)


class HeartbeatPage:
    """The page, mapped. `fd` is to be inherited by those who map it too."""

    def __init__(self, fd: int) -> None:
        """Map the page behind `fd`. Raises PageError if that is none."""
        size = os.fstat(fd).st_size
        if size < _HEADER.size:
            raise PageError(f"file descriptor {fd} is no heartbeat page: it has {size} bytes")
        self._map = mmap.mmap(fd, size)
        magic, version, line_bytes, self.lines, _, self.page_id = _HEADER.unpack_from(self._map)
        if (magic, version, line_bytes) != (MAGIC, VERSION, LINE_BYTES) or size < LINE_BYTES * (self.lines + 1):
            raise PageError(
                f"file descriptor {fd} is no heartbeat page of version {VERSION}: it says {magic!r}, version "
                f"{version}, {self.lines} lines of {line_bytes} bytes in {size} bytes"
            )
        self.fd = fd
        self._words = memoryview(self._map).cast("Q")

    @classmethod
    def create(cls, workers: int) -> HeartbeatPage:
        """Make a page with a line for each of `workers` compute workers. It goes when its last user has gone."""
        lines = FIRST_WORKER + workers
        fd = os.memfd_create("nimbusd-heartbeats", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, LINE_BYTES * (lines + 1))
        # Sealed: a worker gone mad that truncated the file would kill the watchdog by SIGBUS.
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        page_id = int.from_bytes(os.urandom(8), "little")
        os.pwrite(fd, _HEADER.pack(MAGIC, VERSION, LINE_BYTES, lines, 0, page_id), 0)
        return cls(fd)

    def line(self, number: int) -> Line:
        """A line by its number."""
        if not 0 <= number < self.lines:
            raise PageError(f"the heartbeat page has lines 0 to {self.lines - 1}, not {number}")
        begin = _WORDS * (number + 1)
        return Line(self._words[begin : begin + _WORDS])

    def workers(self) -> list[Line]:
        """The compute workers' lines; the first is line FIRST_WORKER."""
        return [self.line(number) for number in range(FIRST_WORKER, self.lines)]

    def forget_fd(self) -> None:
        """Close the file descriptor and keep the mapping, so that a process's own children do not inherit it."""
        os.close(self.fd)
        self.fd = -1


def own_line(fd: int | None, number: int) -> Line:
    """A compute worker's line on the page that it inherited; on a page of its own if nobody watches it."""
    if fd is None:
        return HeartbeatPage.create(1).line(FIRST_WORKER)
    page = HeartbeatPage(fd)
    page.forget_fd()
    return page.line(number)
