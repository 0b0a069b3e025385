"""A compute worker before it has a slot: it imports what its job needs, at low priority, and waits for a place.

It opens no device and makes no component: those belong to the slot that it will have. What depends on the slot
reaches it with its place (cores, GPU, threads), so that no module may read that when it is imported.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from nimbusd import __version__
from nimbusd.compute.link import DaemonLink
from nimbusd.compute.progress import ThreadProgress, wait_for_message
from nimbusd.core.ids import WorkerId
from nimbusd.job import Job
from nimbusd.stages.errors import NimbusError
from nimbusd.stages.registry import resolve
from nimbusd.supervisor.page import Line
from nimbusd.transport.messages import local as m

log = logging.getLogger(__name__)

NICER = 10
"""Niceness that a spare adds while it imports: it then gets about a tenth of a worker's share of a core."""
WAIT_S = 5.0
"""A spare that waits says within this time that it could take a place."""
_OPENMP = "omp_set_num_threads"
_LINEAR_ALGEBRA = (
    "openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
    "MKL_Set_Num_Threads",
)
"""Of OpenBLAS, as NumPy and SciPy name it, and of MKL."""
_LIBRARIES = ("openblas", "libgomp", "libomp", "libiomp", "mkl_rt")


class Spare:
    """The spare in this process. `name` is what the daemon knows it by; `line` is its own on the heartbeat page."""

    def __init__(self, link: DaemonLink, name: WorkerId, line: Line, start_timeout_s: float) -> None:
        self._link = link
        self._name = name
        self._progress = ThreadProgress(line.work)
        self._start_timeout_s = start_timeout_s

    def wait(self) -> m.TakePlace | None:
        """Get ready for a job, and wait for a place; returns it, with this process moved there. None: not needed."""
        priority = Priority()
        priority.lower()
        self._link.send(m.WorkerHello(self._name, os.getpid(), __version__))
        message = self._next()
        if isinstance(message, m.Prepare):
            self._progress.promise("open", self._start_timeout_s)
            import_components(Job.from_dict(message.job))
            self._progress.promise("wait", WAIT_S)  # before it can be relied on
            self._link.send(m.Warm(self._name))
            message = self._next()
        if isinstance(message, m.Leave):
            return None
        if not isinstance(message, m.TakePlace):
            raise NimbusError(f"the daemon said {type(message).__name__} to a spare")
        self._progress.promise("open", self._start_timeout_s)
        priority.restore()
        move_to(message)
        return message

    def _next(self) -> m.Message:
        return wait_for_message(self._link, self._progress, WAIT_S)


def import_components(job: Job) -> None:
    """Import the job's components and the modules that they require. What fails is logged: the worker that is made of
    this process meets the same error, and tells it as the job's.
    """
    for kind, spec in job.stages.items():
        try:
            for module in resolve(spec.component, kind).requires:
                importlib.import_module(module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything when it is imported
            log.warning("component %s is not warm: %s", spec.component, error)


def move_to(place: m.TakePlace) -> None:
    """Give this process what its slot has: environment, cores, and as many threads of numeric libraries as cores."""
    os.environ.update(place.environment)
    _for_each_thread(lambda thread: os.sched_setaffinity(thread, place.cpus))
    limit_threads(len(place.cpus))


def limit_threads(number: int) -> None:
    """Have loaded libraries compute with `number` threads, linear algebra with one (see MAKER_ENVIRONMENT).

    They read the environment when they were loaded.
    """
    for path in _loaded(_LIBRARIES):
        library = ctypes.CDLL(path)
        for name, threads in ((_OPENMP, number), *((setter, 1) for setter in _LINEAR_ALGEBRA)):
            if hasattr(library, name):
                getattr(library, name)(ctypes.c_int(threads))


def _loaded(names: Iterable[str]) -> set[str]:
    """Paths of shared libraries in this process with one of these words in their file's name."""
    paths = {line.split(maxsplit=5)[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "/" in line}
    return {path for path in paths if any(name in path.rpartition("/")[2] for name in names) and ".so" in path}


class Priority:
    """The share of the processors that this process has, lowered only where it can be raised again.

    That takes CAP_SYS_NICE or a limit as `LimitNICE=+0` of systemd sets it. Elsewhere a spare imports as fast as it
    can, on the cores of one slot.
    """

    def __init__(self) -> None:
        self._own = os.getpriority(os.PRIO_PROCESS, 0)

    def lower(self) -> None:
        """Give way to others, with every thread of this process."""
        if self._can_return():
            _for_each_thread(lambda thread: os.setpriority(os.PRIO_PROCESS, thread, min(19, self._own + NICER)))

    def restore(self) -> None:
        """Return to the priority before `lower`."""
        _for_each_thread(lambda thread: os.setpriority(os.PRIO_PROCESS, thread, self._own))

    def _can_return(self) -> bool:
        """Tried out in a thread of its own, whose priority is its own, too."""
        returned = False

        def try_out() -> None:
            nonlocal returned
            os.setpriority(os.PRIO_PROCESS, 0, min(19, self._own + 1))
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, self._own)
                returned = True

        thread = threading.Thread(target=try_out)
        thread.start()
        thread.join()
        return returned


def _for_each_thread(do: Callable[[int], object]) -> None:
    """Linux keeps cores and priorities by thread; new threads have those of the one that starts them."""
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):
            do(int(thread))
