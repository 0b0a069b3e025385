"""Faults on order: how `nimbusctl chaos` makes components hang, crash, run out of memory or find a full disk.

Only in processes whose environment names a folder in NIMBUSD_FAULTS. Faults wait there as tokens, one folder per
stage; whichever process comes first to that stage takes one (by renaming it, so that no two do), notes it in the
journal, and acts it out in the thread that does the work, in the middle of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import orjson

from nimbusd.stages.store.durable import naming
from nimbusd.stages.types import Episode

ENVIRON = "NIMBUSD_FAULTS"
JOURNAL = "journal"
METHODS = {
    "load": "load_asset",
    "plan": "gen_sequence",
    "render": "gen_obs",
    "store": "save_data",
    "publish": "publish",
}
"""Stages that faults can be ordered for, and the method of the component that does the work."""
KINDS = ("hang", "spin", "crash", "exit", "oom", "disk_full", "writer", "publisher")
_TAKEN = "taken"
_FULL = Path("/dev/full")
_SPARE_BYTES = 64 << 20
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Order:
    """A fault to be acted out once. after: beats or writes of the stage before it; at the end if there are fewer."""

    number: int
    kind: str
    stage: str
    after: int


def place_order(folder: Path, order: Order) -> None:
    """Leave a fault for the first worker that comes to its stage."""
    stage = folder / order.stage
    stage.mkdir(parents=True, exist_ok=True)
    (folder / _TAKEN).mkdir(exist_ok=True)
    (stage / f"{order.number}.{order.kind}.{order.after}").touch()


def orders_waiting(folder: Path) -> int:
    """Faults that no worker has met yet."""
    return sum(1 for stage in METHODS for _ in (folder / stage).glob("*"))


def arm(components: Mapping[str, Any], worker: str) -> None:
    """Have the components of a process act out what is ordered. Does nothing where no chaos is.

    components: stage → component, with its `beat` set. worker: what the journal calls the process.
    """
    if folder := os.environ.get(ENVIRON):
        armed = _Armed(Path(folder), worker, [stage for stage in METHODS if stage in components])
        for stage in armed.stages:
            armed.wrap(components[stage], stage)
        armed.count_writes()


class _Armed:
    """The components of a worker. Stages run in several threads at once, each with an order of its own at most."""

    def __init__(self, folder: Path, worker: str, stages: list[str]) -> None:
        self._folder = folder
        self._worker = worker
        self.stages = stages
        self._under_order = threading.local()
        self._has_begun = False

    def wrap(self, component: Any, stage: str) -> None:
        """Look for an order at each call of the component, and count its beats."""
        method, beat = getattr(component, METHODS[stage]), component.beat

        def call(*args: Any) -> Any:
            if not self._has_begun:
                self._has_begun = True
                self.note({"begun": self.stages})
            order = self._take(stage)
            if order is not None:
                self.note({"fault": order.number, "kind": order.kind, "stage": stage})
                self._under_order.moment = _Moment(order)
            try:
                result = method(*args)
                if order is not None:  # it was over sooner than expected
                    with naming(_FULL):
                        _ACTS[order.kind]()
            finally:
                self._under_order.moment = None
            if stage == self.stages[-1]:
                self.note({"done": stage, **_episode(args)})
            return result

        def counted() -> None:
            self._count()
            beat()

        setattr(component, METHODS[stage], call)
        component.beat = counted

    def count_writes(self) -> None:
        """Count every write to a file, which pieces are made of."""
        write = os.write

        def counted(descriptor: int, content: Any) -> int:
            self._count()
            return write(descriptor, content)

        os.write = counted

    def _count(self) -> None:
        moment: _Moment | None = getattr(self._under_order, "moment", None)
        if moment is not None:
            moment.count()

    def _take(self, stage: str) -> Order | None:
        """The order that this worker shall carry out, if there is one that nobody else has taken."""
        try:
            waiting = sorted(os.listdir(self._folder / stage), key=_number)
        except FileNotFoundError:
            return None
        for name in waiting:
            try:
                os.rename(self._folder / stage / name, self._folder / _TAKEN / name)
            except FileNotFoundError:
                continue  # another worker was faster
            number, kind, after = name.split(".")
            return Order(int(number), kind, stage, int(after))
        return None

    def note(self, line: dict[str, Any]) -> None:
        """One line in the journal, in one write, so that lines of several processes do not mix."""
        line |= {"worker": self._worker, "pid": os.getpid(), "parent": os.getppid(), "at_s": time.monotonic()}
        with open(self._folder / JOURNAL, "ab", buffering=0) as journal:
            journal.write(orjson.dumps(line) + b"\n")


class _Moment:
    """Counts what a stage does under an order, and acts when it is time; a full disk stays full until its end."""

    def __init__(self, order: Order) -> None:
        self._kind = order.kind
        self._left = order.after

    def count(self) -> None:
        if self._left == 0:
            _ACTS[self._kind]()
        self._left -= 1


def _hang() -> NoReturn:
    """Wait in C for ever, with the interpreter's lock held: no other thread runs, no Python handler of a signal."""
    library = ctypes.PyDLL(None)
    while True:
        library.pause()


def _spin() -> NoReturn:
    while True:
        pass


def _crash() -> NoReturn:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError("SIGSEGV does not come back")


def _exit() -> NoReturn:
    os._exit(0)


def _oom() -> NoReturn:
    """Take memory until the kernel refuses it, and die as its OOM killer would have us die."""
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[0])
    limit = pages * resource.getpagesize() + _SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    hoard = []
    try:
        while True:
            hoard.append(bytearray(os.urandom(_CHUNK_BYTES)))
    except MemoryError:
        _die()


def _die() -> NoReturn:
    """End our own process, as a writer may do: nothing of it runs any more."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("SIGKILL does not come back")


def _disk_full() -> NoReturn:
    """The kernel's own ENOSPC, from the device that is always full; whoever writes gives it the path of the file."""
    descriptor = os.open(_FULL, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, b"x", 0)
    finally:
        os.close(descriptor)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


_ACTS: Mapping[str, Callable[[], NoReturn]] = {
    "hang": _hang,
    "spin": _spin,
    "crash": _crash,
    "exit": _exit,
    "oom": _oom,
    "disk_full": _disk_full,
    "writer": _die,
    "publisher": _die,
}


def _number(token: str) -> int:
    return int(token.partition(".")[0])


def _episode(args: tuple[Any, ...]) -> dict[str, Any]:
    """The episode that a stage is given, where it is told."""
    for arg in args:
        if isinstance(arg, Episode):
            return {"job": arg.request.job, "scene": arg.request.scene, "index": arg.request.index}
    return {}
