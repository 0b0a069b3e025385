"""The watchdog of a node: one small process that kills compute workers whose deadline on the heartbeat page passed.

Started by the daemon as `python -m nimbusd.supervisor.watchdog`. It has no event loop, shares no lock with
anybody, and imports nothing but a little of the standard library. Its rules:

1. A worker that is overdue is asked for the stacks of its threads, has at most STACK_S for them, and is then killed
   by SIGKILL, with its process group and all that descends from it. The daemon is told before and after.
2. What a worker has started dies with it, however it ends. While the worker lives it stays below it (it is a
   subreaper). Of a worker that has died the daemon ends what is left, and we what has a mark in its environment.
3. When the daemon goes (its pidfd, or the end of the report socket), every worker is killed with its control group, and
   the watchdog ends. Where there are no control groups, nothing finds what wiped its environment then.
4. A daemon that lives but does not turn its event loop is reported on standard error, never killed: only a
   service manager can start it again, and systemd's WatchdogSec kills it itself. Hung workers are killed meanwhile.
5. When the watchdog itself could not run for a while (the machine stood still), the workers could not either: it
   gives them as long again, up to MERCY_S.

SIGTERM, SIGINT and SIGHUP are ignored: a service manager may send them to every process of a node that drains.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from typing import NamedTuple

from nimbusd.supervisor import proc
from nimbusd.supervisor.cgroups import WorkerGroups
from nimbusd.supervisor.page import DAEMON, FIRST_WORKER, WATCHDOG, HeartbeatPage, Line, Occupant, Owed
from nimbusd.supervisor.prctl import wake_when_parent_dies
from nimbusd.supervisor.target import Target, kill_marked, read_stack

POLL_S = 0.1
STACK_S = 0.3
STACK_POLL_S = 0.02
STALL_S = 1.0
RECENT_NS = 1_000_000_000
MERCY_S = 10.0
STUBBORN_S = 5.0
"""A killed process that is still there after so long is reported: it waits in the kernel and cannot die."""


class Judgement(NamedTuple):
    """The reason why a worker must die."""

    stage: str
    """Of the thread that is overdue."""
    reason: str
    overdue_s: float
    alone: bool
    """True if that thread alone is to blame: the worker's other thread owed nothing, or went on meanwhile. Where it did
    not, nobody can tell: one thread that holds the GIL silences both."""


def judge(line: Line, now_ns: int) -> Judgement | None:
    """The judgement on the process of a line: the sign of life that it owes and has not given, or None."""
    working, storing = line.working(), line.storing()
    for owed, other in ((working, storing), (storing, working)):
        if 0 < owed.deadline_ns < now_ns:
            reason = f"no progress in stage {owed.stage or '?'} for {owed.allowance_s:g} s"
            silent_ns = now_ns - _last_beat_ns(owed)
            alone = _goes_on(other, now_ns - silent_ns // 2)
            return Judgement(owed.stage, reason, (now_ns - owed.deadline_ns) / 1e9, alone)
    if 0 < line.episode_deadline_ns() < now_ns:
        late_s = (now_ns - line.episode_deadline_ns()) / 1e9
        alone = any(_goes_on(owed, now_ns - RECENT_NS) for owed in (working, storing))
        return Judgement(working.stage, "an episode took longer than the job allows", late_s, alone)
    return None


def _last_beat_ns(owed: Owed) -> int:
    return owed.deadline_ns - int(owed.allowance_s * 1e9)


def _goes_on(owed: Owed, since_ns: int) -> bool:
    """True if a thread owes nothing, or has beaten since then."""
    return owed.deadline_ns == 0 or _last_beat_ns(owed) > since_ns


class Mercy:
    """Tells when to look away because the machine stood still."""

    def __init__(self, now_ns: int) -> None:
        self._last_ns = now_ns
        self._until_ns = 0

    def due(self, now_ns: int) -> bool:
        """Called at every look: whether to let all deadlines pass this time."""
        gap_ns, self._last_ns = now_ns - self._last_ns, now_ns
        if gap_ns > STALL_S * 1e9:
            self._until_ns = now_ns + min(gap_ns, int(MERCY_S * 1e9))
        return now_ns < self._until_ns


class _Watched:
    """A worker's process from when it is first seen until it is gone."""

    def __init__(self, number: int, occupant: Occupant, target: Target) -> None:
        self.number = number
        self.occupant = occupant
        self.target = target
        self.judgement: Judgement | None = None
        self.asked = False
        self.where = ""
        self.kill_at_ns = 0
        self.killed_at_ns: int | None = None
        self.stubborn = False


class Watchdog:
    """page: shared with everybody. reports: socket to the daemon. folder: where workers write their stacks.

    groups: the workers' control groups, where they have any.
    """

    def __init__(
        self,
        page: HeartbeatPage,
        reports: socket.socket,
        daemon_pidfd: int,
        folder: str,
        groups: WorkerGroups | None = None,
    ) -> None:
        self._page = page
        self._reports = reports
        self._daemon_pidfd = daemon_pidfd
        self._folder = folder
        self._groups = groups
        self._own = page.line(WATCHDOG).work
        self._daemon = page.line(DAEMON)
        self._lines = {number: page.line(number) for number in range(FIRST_WORKER, page.lines)}
        self._watched: dict[int, _Watched] = {}
        self._over: dict[int, Occupant] = {}
        """The last process of each line that was seen to be gone."""
        self._killers: set[int] = set()
        """Processes of ours that kill what dead workers have left, by pidfd."""
        self._stuck_ns = 0
        self._poller = select.poll()
        self._poller.register(reports, select.POLLIN)
        self._poller.register(daemon_pidfd, select.POLLIN)

    def run(self) -> None:
        """Watch until the daemon is gone, and then until its workers are."""
        mercy = Mercy(time.monotonic_ns())
        # What was left by workers that died while nobody watched.
        self._kill_marked({number: line.generation() - 1 for number, line in self._lines.items()})
        while True:
            now_ns = time.monotonic_ns()
            self._own.owe("watch", STALL_S, now_ns)
            merciful = mercy.due(now_ns)
            for number, line in self._lines.items():
                self._look(number, line, now_ns, merciful)
            if not merciful:
                self._look_at_daemon(now_ns)
            hurried = any(watched.asked and watched.killed_at_ns is None for watched in self._watched.values())
            ready = {fd for fd, _ in self._poller.poll(1000 * (STACK_POLL_S if hurried else POLL_S))}
            if self._daemon_gone(ready):
                self._end()
                return
            self._bury(ready)

    # --- one worker ---

    def _look(self, number: int, line: Line, now_ns: int, merciful: bool) -> None:
        watched = self._watched.get(number) or self._begin(number, line)
        if watched is None:
            return
        if watched.judgement is not None:
            self._go_on(watched, now_ns)
        elif line.occupant() == watched.occupant and not merciful:
            judgement = judge(line, now_ns)
            # Asked twice, so that a line that changed hands in between condemns nobody.
            if judgement is not None and line.occupant() == watched.occupant:
                self._condemn(watched, judgement, now_ns)

    def _begin(self, number: int, line: Line) -> _Watched | None:
        occupant = line.occupant()
        if occupant is None or occupant == self._over.get(number):
            return None
        target = Target.open(occupant)
        if target is None:
            if line.occupant() == occupant:  # not caught half way through a change: it died before we saw it
                self._over[number] = occupant
                self._kill_marked({number: occupant.generation})
            return None
        watched = self._watched[number] = _Watched(number, occupant, target)
        self._poller.register(target.pidfd, select.POLLIN)
        return watched

    def _condemn(self, watched: _Watched, judgement: Judgement, now_ns: int) -> None:
        watched.judgement = judgement
        watched.where = proc.where(watched.occupant.pid)
        self._tell(watched, "condemned")
        watched.asked = watched.target.ask_stack()
        watched.kill_at_ns = now_ns + int(STACK_S * 1e9) if watched.asked else now_ns
        self._go_on(watched, time.monotonic_ns())

    def _go_on(self, watched: _Watched, now_ns: int) -> None:
        """Kill a condemned worker, once it has given its stacks or its time for them is over."""
        if watched.killed_at_ns is None:
            if now_ns >= watched.kill_at_ns or not watched.target.alive():
                self._kill(watched, now_ns)
        elif now_ns - watched.killed_at_ns > STUBBORN_S * 1e9 and not watched.stubborn:
            watched.stubborn = True
            print(f"nimbusd watchdog: killed, but does not die: {proc.where(watched.occupant.pid)}", file=sys.stderr)

    def _kill(self, watched: _Watched, now_ns: int) -> None:
        watched.killed_at_ns = now_ns
        watched.target.kill()
        self._tell(watched, "killed", read_stack(stack_path(self._folder, watched.number)) if watched.asked else "")

    def _bury(self, ready: set[int]) -> None:
        """Whoever has died, by us or by itself, takes along what it has started."""
        for watched in [one for one in self._watched.values() if one.target.pidfd in ready]:
            if watched.judgement is not None and watched.killed_at_ns is None:
                self._kill(watched, time.monotonic_ns())
            watched.target.kill()  # what is left of its group
            self._kill_marked({watched.number: watched.occupant.generation})
            self._poller.unregister(watched.target.pidfd)
            watched.target.close()
            self._over[watched.number] = watched.occupant
            del self._watched[watched.number]
        for pidfd in self._killers & ready:
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            self._poller.unregister(pidfd)
            os.close(pidfd)
            self._killers.remove(pidfd)

    def _kill_marked(self, over: dict[int, int]) -> None:
        pidfd = kill_marked(self._page.page_id, over)
        self._killers.add(pidfd)
        self._poller.register(pidfd, select.POLLIN)

    def _tell(self, watched: _Watched, kind: str, stack: str = "") -> None:
        """Report to the daemon. One that does not read is not waited for: the kill matters more."""
        judgement = watched.judgement
        assert judgement is not None
        report = {
            "kind": kind,
            "line": watched.number,
            "pid": watched.occupant.pid,
            "stage": judgement.stage,
            "reason": judgement.reason,
            "overdue_s": round(judgement.overdue_s, 3),
            "alone": judgement.alone,
            "stack": f"{watched.where}\n{stack or 'It gave no stack.'}" if kind == "killed" else "",
        }
        try:
            self._reports.send(json.dumps(report).encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as error:
            print(f"nimbusd watchdog: the daemon does not hear ({error}): {report}", file=sys.stderr)

    # --- the daemon ---

    def _look_at_daemon(self, now_ns: int) -> None:
        owed, occupant = self._daemon.working(), self._daemon.occupant()
        if occupant is not None and 0 < owed.deadline_ns < now_ns and owed.deadline_ns != self._stuck_ns:
            self._stuck_ns = owed.deadline_ns
            print(
                f"nimbusd watchdog: the daemon has not turned its event loop for {owed.allowance_s:g} s; "
                f"{proc.where(occupant.pid)}. Its compute workers are still watched.",
                file=sys.stderr,
            )

    def _daemon_gone(self, ready: set[int]) -> bool:
        if self._daemon_pidfd in ready:
            return True
        if self._reports.fileno() not in ready:
            return False
        try:
            return not self._reports.recv(1)
        except ConnectionError:  # it closed its end with reports in it that it had not read
            return True

    def _end(self) -> None:
        """Kill every worker of this page, and what it has started; also one that was not in its line yet."""
        for watched in self._watched.values():
            watched.target.kill()
        if self._groups is not None:
            self._groups.close()
        pidfd = kill_marked(self._page.page_id)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        if self._groups is not None:
            self._groups.close()  # whose processes have died by now


def stack_path(folder: str, number: int) -> str:
    """The file that the worker of a line writes its stacks to."""
    return f"{folder}/{number}.stack"


def main() -> int:
    """Arguments: file descriptors of page and report socket, pid of the daemon, folder of the stacks; and that of the
    workers' control groups, if they have any.
    """
    page_fd, reports_fd, daemon_pid, folder, *rest = sys.argv[1:]
    groups = WorkerGroups(rest[0]) if rest else None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    wake_when_parent_dies()
    try:
        daemon_pidfd = os.pidfd_open(int(daemon_pid))
    except ProcessLookupError:
        daemon_pidfd = -1
    # In this order: a parent that is still ours is the process that the pidfd holds.
    if os.getppid() != int(daemon_pid):
        daemon_pidfd = -1
    page, reports = HeartbeatPage(int(page_fd)), socket.socket(fileno=int(reports_fd))
    for fd in (page.fd, reports.fileno()):
        os.set_inheritable(fd, False)
    with contextlib.suppress(PermissionError):  # only root may; others look a little late on a busy machine
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    if daemon_pidfd < 0:  # it died while we started
        if groups is not None:
            groups.close()
        kill_marked(page.page_id)
        return 0
    Watchdog(page, reports, daemon_pidfd, folder, groups).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
