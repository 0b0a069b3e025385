"""Carries out faults on a cluster of real processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
import psutil

from nimbusd.chaos.cluster import ProcessCluster
from nimbusd.chaos.job_faults import JobFaults
from nimbusd.chaos.plan import IN_COMPONENTS, OF_JOBS, Fault, Kind
from nimbusd.chaos.proxy import DroppingProxy
from nimbusd.chaos.recovery import Hit, WorkDone
from nimbusd.core.ids import EpisodeKey, JobId, slot_of
from nimbusd.makers.faults import JOURNAL, Order, orders_waiting, place_order

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Watched:
    """A node whose watchdog was killed."""

    number: int
    node: str
    pid: int


class Injector:
    """Hits the nodes of a cluster, each behind a proxy of its own, its master, and the job that they work on.

    faults: the folder through which components get theirs. submit: submits that job again. say: called with what
    happens, in words.
    """

    def __init__(
        self,
        cluster: ProcessCluster,
        faults: Path,
        nodes: int,
        workers: int,
        spares: int,
        submit: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        self._cluster = cluster
        self._faults = faults
        self._workers = workers
        self._spares = spares
        self._say = say
        self._env: Mapping[str, str] = {}
        self.at_job = JobFaults(cluster, submit, self._kill_master, self._restart_all, say)
        self._proxies: dict[str, DroppingProxy] = {}
        self._heal_at: dict[str, tuple[float, Fault]] = {}
        self._watched: list[_Watched] = []
        self._node_of: dict[int, str] = {}
        self._slot_of: dict[int, str] = {}
        self._journal_at = 0
        self._ordered: dict[int, Fault] = {}
        self.ended_themselves = 0
        """Daemons that ended without being asked to."""
        self.orphans = 0
        """Compute workers that outlived their daemon."""
        for number in range(nodes):
            name = f"node{number}"
            self._proxies[name] = DroppingProxy(cluster.address, cluster.sockets / name).__enter__()
            self._start(name)

    def close(self) -> None:
        """End what lasts, and close the networks."""
        self.at_job.close()
        for proxy in self._proxies.values():
            proxy.__exit__(None, None, None)

    # --- what is done to them ---

    def inject(self, fault: Fault) -> list[Hit]:
        """Inject a fault, or order it from the compute workers. Returns what has happened at once.

        Raises LookupError if there is nobody whom it could hit now.
        """
        if fault.kind in OF_JOBS:
            return self.at_job.inject(fault)
        if fault.kind in IN_COMPONENTS:
            self._ordered[fault.number] = fault
            place_order(self._faults, Order(fault.number, fault.kind.value, fault.stage, fault.after))
            return []
        match fault.kind:
            case Kind.MASTER:
                return [self._kill_master(fault)]
            case Kind.DAEMON:
                return [self._kill_daemon(fault)]
            case Kind.WATCHDOG:
                return [self._kill_watchdog(fault)]
            case Kind.STOP:
                return [self._stop_worker(fault)]
            case _:
                self._part(fault)
                return []

    def _kill_master(self, fault: Fault) -> Hit:
        self._cluster.master.kill()
        hit = Hit(fault.number, fault.kind, time.monotonic())
        self._cluster.start_master()
        self._say("master: SIGKILL, started again")
        return hit

    def _kill_daemon(self, fault: Fault) -> Hit:
        name = _chosen(sorted(self._cluster.nodes), fault.choice)
        self.orphans += len(self._cluster.nodes[name].kill())
        hit = Hit(fault.number, fault.kind, time.monotonic(), name)
        self._start(name)
        self._say(f"daemon of {name}: SIGKILL, started again")
        return hit

    def _kill_watchdog(self, fault: Fault) -> Hit:
        there = [(name, dog) for name, node in self._cluster.nodes.items() for dog in node.watchdogs()]
        name, watchdog = _chosen(there, fault.choice)
        with contextlib.suppress(psutil.NoSuchProcess):
            watchdog.kill()
        self._watched.append(_Watched(fault.number, name, watchdog.pid))
        self._say(f"watchdog of {name}: SIGKILL")
        return Hit(fault.number, fault.kind, time.monotonic(), name)

    def _stop_worker(self, fault: Fault) -> Hit:
        """Only those that have begun an episode: one that starts may be silent for as long as a simulator takes."""
        there = [
            (name, worker)
            for name, node in self._cluster.nodes.items()
            for worker in node.compute_workers()
            if worker.pid in self._slot_of
        ]
        name, worker = _chosen(there, fault.choice)
        slot = self._slot_of[worker.pid]
        try:
            worker.suspend()
        except psutil.NoSuchProcess as error:
            raise LookupError("the worker died just now") from error
        self._say(f"worker {slot} of {name}: SIGSTOP")
        return Hit(fault.number, fault.kind, time.monotonic(), name, slot, worker.pid)

    def _part(self, fault: Fault) -> None:
        name = _chosen([name for name in sorted(self._proxies) if name not in self._heal_at], fault.choice)
        proxy = self._proxies[name]
        (proxy.cut if fault.cut else proxy.hold)()
        self._heal_at[name] = (time.monotonic() + fault.length_s, fault)
        how = "cut off" if fault.cut else "messages are swallowed"
        self._say(f"network of {name}: {how} for {fault.length_s:.1f} s")

    def _start(self, name: str) -> None:
        node = self._cluster.start_node(
            name, workers=self._workers, spares=self._spares, master=self._proxies[name].address, env=self._env
        )
        self._node_of[node.pid] = name

    def _restart_all(self, env: Mapping[str, str]) -> None:
        """Kill all nodes and start them with this environment, which later ones have, too."""
        self._env = env
        for name in sorted(self._cluster.nodes):
            self.orphans += len(self._cluster.nodes[name].kill())
            self._start(name)

    # --- what comes of it ---

    def look(self) -> tuple[list[Hit], list[WorkDone], list[tuple[int, float]]]:
        """The news since the last call: faults that hit, work done, and faults that are over by themselves.

        Heals networks whose time has come, and starts daemons that have ended by themselves.
        """
        now = time.monotonic()
        hits = [self._heal(name) for name, (at, _) in list(self._heal_at.items()) if at <= now]
        hits += self.at_job.look(now)
        done: list[WorkDone] = []
        for line in self._journal():
            name, slot = self._node_of.get(line["parent"], ""), slot_of(line["worker"])
            if "begun" in line:
                self._slot_of[line["pid"]] = slot
            elif "fault" in line:
                hits += self._met(line, name, slot)
            else:
                episode = EpisodeKey(JobId(line["job"]), line["scene"], line["index"]) if "job" in line else None
                done.append(WorkDone(name, slot, line["pid"], line["at_s"], episode))
        for name, node in list(self._cluster.nodes.items()):
            if not node.alive:
                self.ended_themselves += 1
                self._say(f"daemon of {name} ended by itself:\n{node.tail()}")
                self._start(name)
        return hits, done, self._returned(now)

    def heal_all(self) -> list[Hit]:
        """End all partitions now."""
        return [self._heal(name) for name in list(self._heal_at)]

    def under_way(self) -> int:
        """Faults that have begun, or that no component has met yet."""
        return self.waiting() + len(self._heal_at) + self.at_job.is_under_way

    def waiting(self) -> int:
        """Faults that no component has met yet."""
        return orders_waiting(self._faults)

    def _heal(self, name: str) -> Hit:
        _, fault = self._heal_at.pop(name)
        self._proxies[name].heal()
        return Hit(fault.number, fault.kind, time.monotonic(), name)

    def _met(self, line: dict[str, Any], node: str, slot: str) -> list[Hit]:
        if (fault := self._ordered.pop(line["fault"], None)) is None:
            return []
        whose = f"worker {slot} of {node}" if node else "master"
        self._say(f"{whose}: {fault.kind.value} in {fault.stage}")
        pid = 0 if fault.kind is Kind.DISK_FULL else line["pid"]
        return [Hit(fault.number, fault.kind, line["at_s"], node, slot, pid)]

    def _journal(self) -> Iterator[dict[str, Any]]:
        """The lines that are new."""
        try:
            with (self._faults / JOURNAL).open("rb") as journal:
                journal.seek(self._journal_at)
                content = journal.read()
        except FileNotFoundError:
            return
        whole = content[: content.rfind(b"\n") + 1]
        self._journal_at += len(whole)
        yield from map(orjson.loads, whole.splitlines())

    def _returned(self, now: float) -> list[tuple[int, float]]:
        back = []
        for watched in list(self._watched):
            if any(dog.pid != watched.pid for dog in self._cluster.nodes[watched.node].watchdogs()):
                self._watched.remove(watched)
                back.append((watched.number, now))
        return back


def _chosen(among: Sequence[T], choice: float) -> T:
    if not among:
        raise LookupError("there is nobody to hit")
    return among[int(choice * len(among))]
