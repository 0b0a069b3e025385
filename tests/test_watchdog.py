"""The watchdog with real processes and real signals: what hangs dies with a stack, and nobody else does."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from nimbusd.job import Job
from nimbusd.stages.types import Episode, Observation, Piece, Sequence
from nimbusd.supervisor import proc
from nimbusd.supervisor.page import DAEMON, FIRST_WORKER, HeartbeatPage
from nimbusd.supervisor.process import WorkerProcess
from nimbusd.supervisor.watch import Killing, Seat, Watch
from nimbusd.supervisor.watchdog import stack_path
from tests.cluster import Cluster, gate_of, toy_job
from tests.toy import ToyWriter

pytestmark = pytest.mark.processes

PATIENCE_S = 30.0
"""How long to wait for what must come. Only a failing test waits so long."""
SHORT_S = 1.0


class SlowWriter(ToyWriter):
    """Takes twice the job's beat timeout for an episode, and beats."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        ends = time.monotonic() + 2 * SHORT_S
        while time.monotonic() < ends:
            self.beat()
            time.sleep(0.01)
        return super().save_data(seq, obs, episode)


PRELUDE = """
import ctypes, os, signal, subprocess, sys, threading, time
from nimbusd.supervisor.page import own_line
from nimbusd.supervisor.target import dump_stacks_when_asked
page, number, stacks, allowance_s = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
dump_stacks_when_asked(stacks)
line = own_line(page, number)
def render():
    line.work.owe("render", allowance_s, time.monotonic_ns())
    print("render", flush=True)
"""


class Bench:
    """A watchdog whose daemon we are, and workers that we wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page = HeartbeatPage.create(4)
        self.reports, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.reports.settimeout(PATIENCE_S)
        self._children: list[subprocess.Popen[str]] = []
        argv = [sys.executable, "-m", "nimbusd.supervisor.watchdog", str(self.page.fd), str(theirs.fileno())]
        self.watchdog = self._popen([*argv, str(os.getpid()), str(folder)], (self.page.fd, theirs.fileno()), {})
        theirs.close()

    def _popen(self, argv: list[str], fds: tuple[int, ...], env: dict[str, str]) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            argv,
            pass_fds=fds,
            env={**os.environ, **env},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._children.append(child)
        return child

    def worker(self, body: str, *, number: int = FIRST_WORKER, allowance_s: float = 0.2, **env: str) -> Any:
        """Start a worker that runs `body` after the prelude."""
        line = self.page.line(number)
        generation = line.prepare("start", 60.0, time.monotonic_ns())
        marked = {proc.MARK: proc.mark(self.page.page_id, number, generation), **env}
        options = [str(self.page.fd), str(number), stack_path(str(self.folder), number), str(allowance_s)]
        argv = [sys.executable, "-c", PRELUDE + textwrap.dedent(body), *options]
        child = self._popen(argv, (self.page.fd,), marked)
        ticks = proc.start_ticks(child.pid)
        assert ticks is not None
        line.occupy(child.pid, ticks)
        return child

    def report(self) -> dict[str, Any]:
        """The next report; fails if none comes."""
        return dict(json.loads(self.reports.recv(1 << 18)))

    def killing(self) -> dict[str, Any]:
        """The next report of a kill, which must follow that of its verdict."""
        condemned, killed = self.report(), self.report()
        assert (condemned["kind"], killed["kind"]) == ("condemned", "killed")
        assert condemned["pid"] == killed["pid"]
        return killed

    def hanging(self, body: str, **options: Any) -> dict[str, Any]:
        """The report of a worker that hangs in `body`, once it is dead."""
        child = self.worker(body, **options)
        killed = self.killing()
        assert killed["pid"] == child.pid
        assert child.wait(PATIENCE_S) < 0
        return killed

    def close(self) -> None:
        self.reports.close()
        assert self.watchdog.wait(PATIENCE_S) in (0, -signal.SIGKILL), self.watchdog.communicate()[1]
        for child in self._children:
            child.kill()
            child.communicate()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    try:
        yield made
    finally:
        made.close()


def gone(pid: int) -> None:
    """Wait until a process is gone, or dead and only waited for."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], PATIENCE_S)[0], f"pid {pid} lives: {proc.where(pid)}"
    finally:
        os.close(pidfd)


# --- what hangs ---


def test_a_worker_that_hangs_in_c_and_holds_the_gil_dies_and_tells_where(bench: Bench) -> None:
    killed = bench.hanging("def hang_in_c():\n  render()\n  ctypes.PyDLL(None).pause()\nhang_in_c()\nprint('woken')")
    assert killed["reason"] == "no progress in stage render for 0.2 s"
    assert "in hang_in_c" in killed["stack"]
    assert "state S" in killed["stack"]


def test_the_signal_that_asks_for_the_stack_does_not_wake_the_condemned(bench: Bench, tmp_path: Path) -> None:
    mark = tmp_path / "woken"
    bench.hanging(f"render()\nctypes.PyDLL(None).pause()\nopen({str(mark)!r}, 'w')")
    assert not mark.exists()


def test_a_worker_that_is_stopped_dies_and_tells_where(bench: Bench) -> None:
    killed = bench.hanging("def stop_here():\n  render()\n  os.kill(os.getpid(), signal.SIGSTOP)\nstop_here()")
    assert "in stop_here" in killed["stack"]
    assert "state T" in killed["stack"]


def test_a_worker_that_spins_dies_and_tells_where(bench: Bench) -> None:
    killed = bench.hanging("def spin():\n  render()\n  while True: pass\nspin()")
    assert "in spin" in killed["stack"]


def test_a_worker_that_deadlocks_on_import_dies_and_tells_where(bench: Bench, tmp_path: Path) -> None:
    module = tmp_path / "deadlocks.py"
    module.write_text("import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()\n")
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    killed = bench.hanging("render()\nimport deadlocks", PYTHONPATH=path)
    assert "deadlocks.py" in killed["stack"]


def test_a_worker_that_hangs_before_it_can_do_anything_dies(bench: Bench) -> None:
    child = bench.worker("signal.pause()")
    os.kill(child.pid, signal.SIGSTOP)  # somewhere in the start of its interpreter
    bench.page.line(FIRST_WORKER).work.owe("start", 0.0, time.monotonic_ns())
    killed = bench.killing()
    assert killed["stage"] == "start"
    assert child.wait(PATIENCE_S) < 0


def test_a_writer_thread_that_hangs_is_found_though_the_working_thread_beats(bench: Bench) -> None:
    body = """
    def store_for_ever():
        line.store.owe("store", allowance_s, time.monotonic_ns())
        threading.Event().wait()
    allowance_s, stored_s = 60, allowance_s
    render()
    allowance_s = stored_s
    threading.Thread(target=store_for_ever).start()
    while True:
        line.work.owe("render", 60, time.monotonic_ns())
        time.sleep(0.01)
    """
    killed = bench.hanging(body)
    assert killed["stage"] == "store"
    assert "in store_for_ever" in killed["stack"]


def test_an_episode_that_beats_for_ever_dies_at_its_own_limit(bench: Bench) -> None:
    body = """
    line.limit_episode(time.monotonic_ns() + 300_000_000)
    while True:
        line.work.owe("render", 60, time.monotonic_ns())
    """
    assert bench.hanging(body)["reason"] == "an episode took longer than the job allows"


def test_a_worker_that_ignores_every_signal_and_gives_no_stack_dies(bench: Bench) -> None:
    body = """
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    render()
    time.sleep(1000)
    """
    child = bench.worker(body)
    assert bench.killing()["stack"].endswith("It gave no stack.")
    assert child.wait(PATIENCE_S) == -signal.SIGKILL


def test_workers_that_hang_together_die_together(bench: Bench) -> None:
    numbers = range(FIRST_WORKER, FIRST_WORKER + 4)
    # Blocked, so that each of them makes the watchdog wait for a stack that never comes.
    body = "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\nrender()\ntime.sleep(99)"
    children = [bench.worker(body, number=number, allowance_s=60.0) for number in numbers]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "render\n"
    for number in numbers:
        bench.page.line(number).work.owe("render", 0.0, time.monotonic_ns())
    reports = [bench.report() for _ in range(8)]
    assert [report["kind"] for report in reports] == ["condemned"] * 4 + ["killed"] * 4


def test_a_worker_that_beats_or_owes_nothing_lives(bench: Bench) -> None:
    """Another one that starts later and hangs is killed in the meantime."""
    beats = "while True:\n  line.work.owe('render', 30, time.monotonic_ns())\n  time.sleep(0.01)"
    idle = "line.work.rest()\nprint('idle', flush=True)\ntime.sleep(1000)"
    living = [bench.worker(beats), bench.worker(idle, number=3)]
    killed = bench.hanging("render()\ntime.sleep(1000)", number=4)
    assert killed["line"] == 4
    assert [child.poll() for child in living] == [None, None]


# --- what it started ---

SPAWN = """
group = subprocess.Popen(["sleep", "1000"])
other_group = subprocess.Popen(["sleep", "1000"], process_group=0)
session = subprocess.Popen(["sleep", "1000"], start_new_session=True)
orphan = subprocess.check_output(["sh", "-c", "setsid sleep 1000 >/dev/null & echo $!"], text=True)
with open(stacks + ".children", "w") as file:
    file.write(f"{group.pid} {other_group.pid} {session.pid} {orphan}")
"""


def spawned(bench: Bench) -> list[int]:
    children = Path(stack_path(str(bench.folder), FIRST_WORKER) + ".children").read_text().split()
    assert len(children) == 4
    return [int(pid) for pid in children]


@pytest.mark.parametrize("ends", ["time.sleep(1000)", "os.kill(os.getpid(), signal.SIGSEGV)", "os._exit(0)"])
def test_all_that_a_worker_started_goes_with_it_however_it_ends(bench: Bench, ends: str) -> None:
    child = bench.worker(SPAWN + f"render()\n{ends}")
    child.wait(PATIENCE_S)
    for pid in spawned(bench):
        gone(pid)


def test_children_that_wiped_their_environment_go_with_a_worker_that_hangs(bench: Bench) -> None:
    child = bench.worker("bare = subprocess.Popen(['sleep', '1000'], env={}, start_new_session=True)\n"
                         "print(bare.pid, flush=True)\nrender()\ntime.sleep(1000)")  # fmt: skip
    bare = int(child.stdout.readline())
    bench.killing()
    gone(bare)


def test_workers_of_a_daemon_that_is_gone_die_with_all_they_started(bench: Bench) -> None:
    child = bench.worker(SPAWN + "line.work.rest()\nprint('idle', flush=True)\ntime.sleep(1000)")
    assert child.stdout.readline() == "idle\n"
    bench.reports.close()
    assert child.wait(PATIENCE_S) == -signal.SIGKILL
    for pid in spawned(bench):
        gone(pid)
    assert bench.watchdog.wait(PATIENCE_S) == 0


# --- who must not die ---


def test_a_process_that_took_over_a_dead_workers_pid_lives(bench: Bench) -> None:
    innocent = bench.worker("line.work.rest()\ntime.sleep(1000)", number=3)
    line = bench.page.line(FIRST_WORKER)
    line.prepare("render", 0.0, 0)
    ticks = proc.start_ticks(innocent.pid)
    assert ticks is not None
    line.occupy(innocent.pid, ticks - 1)
    bench.hanging("render()\ntime.sleep(1000)", number=4)  # by then it has looked at the others
    assert innocent.poll() is None


def test_a_page_that_names_a_stranger_kills_no_stranger(bench: Bench) -> None:
    stranger = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    assert stranger.stdout is not None
    nephew = int(stranger.stdout.readline())
    for number, pid in ((FIRST_WORKER, nephew), (3, bench.watchdog.pid), (4, os.getpid())):
        line = bench.page.line(number)
        line.prepare("render", 0.0, 0)
        line.occupy(pid, proc.start_ticks(pid) or 0)
    try:
        killed = bench.hanging("render()\ntime.sleep(1000)", number=5)
        assert killed["line"] == 5
        assert psutil.pid_exists(nephew)
        assert bench.watchdog.poll() is None
    finally:
        os.kill(nephew, signal.SIGKILL)
        stranger.communicate()


def test_a_terminals_or_managers_signals_do_not_end_the_watchdog(bench: Bench) -> None:
    bench.hanging("render()\ntime.sleep(1000)")  # it is up
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        bench.watchdog.send_signal(number)
    bench.hanging("render()\ntime.sleep(1000)", number=3)


def test_a_daemon_that_turns_no_more_is_reported_and_its_workers_still_watched(bench: Bench) -> None:
    daemon = bench.page.line(DAEMON)
    daemon.prepare("loop", 0.0, time.monotonic_ns())
    daemon.occupy(os.getpid(), proc.start_ticks(os.getpid()) or 0)
    bench.hanging("render()\ntime.sleep(1000)")
    assert bench.watchdog.stderr is not None
    assert "the daemon has not turned its event loop" in bench.watchdog.stderr.readline()


def test_the_watchdog_imports_little() -> None:
    script = "import sys, nimbusd.supervisor.watchdog; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "zmq", "numpy", "logging", "threading", "pydantic", "subprocess"} & set(loaded)


# --- the daemon's side ---


class Watching:
    """A watch, and what it tells."""

    def __init__(self, folder: Path) -> None:
        self.condemned: asyncio.Queue[int] = asyncio.Queue()
        self._watchdogs: asyncio.Queue[int] = asyncio.Queue()
        self.watch = Watch(folder, 2, lambda pid, _: self.condemned.put_nowait(pid), self._watchdogs.put_nowait)

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


async def start(watch: Watch, body: str, allowance_s: float = 0.2) -> tuple[Seat, WorkerProcess]:
    seat = watch.seat(60.0)
    options = dict(zip(seat.options[::2], seat.options[1::2], strict=True))
    argv = [sys.executable, "-c", PRELUDE + textwrap.dedent(body)]
    argv += [options["--page"], options["--line"], options["--stacks"], str(allowance_s)]
    process = await WorkerProcess.spawn(argv, {**os.environ, seat.env[0]: seat.env[1]}, [seat.fd])
    watch.seated(seat, process.pid)
    return seat, process


async def end(watch: Watch, seat: Seat, process: WorkerProcess) -> tuple[int, Killing | None]:
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
    quick = await asyncio.create_subprocess_exec("sh", "-c", "exit 3", stdout=asyncio.subprocess.PIPE)
    await quick.wait()  # and nobody can open it any more
    process = WorkerProcess(quick)
    process.kill()
    assert await process.wait() == 3


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


# --- whole nodes ---


def small_job(folder: Path, attempts: int = 3, **replaced: dict[str, Any]) -> Job:
    """Three episodes of one scene, with a short beat timeout. replaced: stages other than the toys."""
    toys = {"load": "ToyLoader", "plan": "ToyPlanner", "render": "ToyRenderer", "store": "ToyWriter"}
    stages = {stage: {"component": f"tests.toy:{name}"} for stage, name in toys.items()}
    limits = {"beat_timeout_s": SHORT_S, "attempts": attempts}
    scenes = [{"name": "a"}]
    return toy_job(folder, scenes=scenes, episodes_per_scene=3, pipeline={**stages, **replaced}, limits=limits)


def test_the_failure_of_a_hung_episode_carries_the_stack_to_the_master(tmp_path: Path) -> None:
    faults = {"kind": "hang", "marks": str(tmp_path / "marks"), "states": [0]}
    job = small_job(tmp_path, 1, render={"component": "tests.toy:FaultyRenderer", "args": faults})
    with Cluster(tmp_path) as cluster:
        node = cluster.start_node("w1")
        client = cluster.client()
        client.submit(job)
        client.wait(job.name, PATIENCE_S)
        (failure,) = client.failures(job.name)
        assert (failure.state, failure.stage, failure.reason) == ("quarantined", "render", "hang")
        assert failure.detail == "killed: no progress in stage render for 1 s"
        assert "in _fail" in failure.evidence
        assert node.said("killing worker cpu:0#1: no progress in stage render for 1 s")
        cluster.stop_nodes()


def test_a_slow_writer_that_beats_lives_and_so_do_those_who_wait_for_it(tmp_path: Path) -> None:
    job = small_job(tmp_path, store={"component": "tests.test_watchdog:SlowWriter"})
    with Cluster(tmp_path) as cluster:
        node = cluster.start_node("w1")
        client = cluster.client()
        client.submit(job)
        assert client.wait(job.name, PATIENCE_S).state == "complete"
        assert not node.said("killing worker")
        cluster.stop_nodes()


def test_a_worker_that_is_stopped_while_it_waits_for_work_is_replaced(tmp_path: Path) -> None:
    job = small_job(tmp_path)
    with Cluster(tmp_path) as cluster:
        node = cluster.start_node("w1")
        client = cluster.client()
        client.submit(job)
        assert client.wait(job.name, PATIENCE_S).state == "complete"
        node.compute_workers()[0].suspend()
        node.wait_for("killing worker cpu:0#1: no progress in stage wait for 1 s")
        node.wait_for("worker cpu:0#2 said hello")
        cluster.stop_nodes()


def test_a_node_whose_watchdog_is_killed_loses_no_worker_and_no_episode(tmp_path: Path) -> None:
    job = toy_job(tmp_path)
    with Cluster(tmp_path) as cluster:
        node = cluster.start_node("w1", workers=2)
        client = cluster.client()
        client.submit(job)
        node.wait_for(r"scene='c', index=\d+, attempt=1, stage='render'")  # the first of them waits at the gate
        workers = {worker.pid for worker in node.compute_workers()}
        (watchdog,) = node.watchdogs()
        mark = node.mark()
        watchdog.kill()
        node.wait_for("the watchdog runs as pid", after=mark)
        assert {worker.pid for worker in node.compute_workers()} == workers
        gate_of(tmp_path, job.name).touch()
        assert client.wait(job.name, PATIENCE_S).state == "complete"
        assert not node.said("WorkerDown")
        cluster.stop_nodes()


def test_a_node_that_is_killed_leaves_neither_workers_nor_a_watchdog_nor_what_workers_started(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, sys
from pathlib import Path
from tests.test_watchdog import SPAWN, start
from nimbusd.supervisor.watch import Watch
async def main():
    watch = Watch(Path({str(tmp_path)!r}), 1, lambda *_: None, lambda pid: print(pid, flush=True))
    running = asyncio.create_task(watch.run())
    _, process = await start(watch, SPAWN + "line.work.rest()\\nprint('spawned', flush=True)\\ntime.sleep(1000)")
    reading = asyncio.create_task(process.wait())
    print(process.pid, flush=True)
    while "spawned" not in process.output():
        await asyncio.sleep(0.01)
    print("spawned", flush=True)
    await asyncio.gather(running, reading)
asyncio.run(main())
"""
    node = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert node.stdout is not None
    said = [node.stdout.readline().strip() for _ in range(3)]
    watched = [int(line) for line in said if line != "spawned"]
    children = Path(stack_path(str(tmp_path), FIRST_WORKER) + ".children")
    node.kill()
    node.communicate()
    for pid in [*watched, *map(int, children.read_text().split())]:
        gone(pid)
