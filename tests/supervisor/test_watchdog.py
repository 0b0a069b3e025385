"""The watchdog with real processes and real signals: what hangs dies with a stack, and nobody else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from nimbusd.supervisor import proc
from nimbusd.supervisor.page import DAEMON, FIRST_WORKER
from nimbusd.supervisor.watchdog import stack_path
from tests.support.watched_workers import PATIENCE_S, SPAWN, Bench, gone

pytestmark = pytest.mark.processes


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    try:
        yield made
    finally:
        made.close()


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
