"""sd_notify: what a service manager hears of the daemons, and when it hears nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nimbusd.client import Client, Event
from nimbusd.config import MasterConfig
from nimbusd.master.server import MasterServer
from nimbusd.program.systemd import Notifier
from tests.support.cluster import PATIENCE_S, Daemon, gate_of, toy_job

WATCHDOG_USEC = 200_000
SEVERAL_WATCHDOGS_S = 1.0


class Manager:
    """The service manager's end: a datagram socket. `address` is what NOTIFY_SOCKET says."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(PATIENCE_S)
        self.heard: list[str] = []

    @property
    def environment(self) -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.address, "WATCHDOG_USEC": str(WATCHDOG_USEC)}

    def next(self) -> str:
        """The next message, for which this waits."""
        message = self.socket.recv(4096).decode()
        self.heard += message.splitlines()
        return message

    async def hear(self) -> str:
        return await asyncio.to_thread(self.next)

    def until(self, line: str) -> str:
        """The next message that has a line that begins so."""
        ends = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends:
            message = self.next()
            if any(said.startswith(line) for said in message.splitlines()):
                return message
        raise AssertionError(f"no {line!r} in {self.heard}")

    def rest(self) -> list[str]:
        """Messages that have arrived and were not read yet."""
        messages = []
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append(self.socket.recv(4096).decode())
        self.socket.settimeout(PATIENCE_S)
        self.heard += "\n".join(messages).splitlines()
        return messages

    def hears_nothing_for(self, seconds: float) -> bool:
        self.socket.settimeout(seconds)
        try:
            self.next()
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_S)
        return False


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else f"@nimbusd-test-{os.getpid()}")
    with manager.socket:
        yield manager


def notifier(manager: Manager) -> Notifier:
    return Notifier.from_environment(manager.environment)


def told(message: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in message.splitlines())


def always(status: str) -> Callable[[], str]:
    return lambda: status


# --- the notifier by itself ---


async def test_without_a_manager_nothing_is_told_and_nothing_waits() -> None:
    notifier = Notifier.from_environment({"WATCHDOG_USEC": "1000"})
    assert notifier.watchdog_s is None
    async with notifier.telling(asyncio.Event(), always("never asked for")):
        notifier.stopping("bye")


def test_the_managers_variables_are_taken_out_of_the_environment() -> None:
    environment = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid()), "HOME": "/h"}
    assert Notifier.from_environment(environment).watchdog_s == 0.5
    assert environment == {"HOME": "/h"}


@pytest.mark.parametrize(("usec", "pid"), [("500000", "1"), ("0", ""), ("soon", ""), ("", "")])
def test_a_watchdog_of_another_process_or_none_is_not_fed(usec: str, pid: str) -> None:
    environment = {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}
    assert Notifier.from_environment(environment).watchdog_s is None


def test_an_address_that_is_neither_path_nor_abstract_is_reported_and_not_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Notifier.from_environment({"NOTIFY_SOCKET": "vsock:2:1234"}).stopping("bye")
    assert "vsock:2:1234" in caplog.text


async def test_ready_is_told_when_it_is_so_and_stopping_when_it_ends(manager: Manager) -> None:
    ready = asyncio.Event()
    async with notifier(manager).telling(ready, always("two\nlines")):
        assert await manager.hear() == "STATUS=starting"
        assert manager.rest() == []
        ready.set()
        assert told(await manager.hear()) == {"READY": "1", "STATUS": "two lines"}
        assert await manager.hear() == "WATCHDOG=1"
    assert manager.rest()[-1] == "STOPPING=1"


async def test_a_status_is_told_again_only_when_it_has_changed(manager: Manager) -> None:
    ready, status = asyncio.Event(), ["idle"]
    ready.set()
    async with notifier(manager).telling(ready, lambda: status[0]):
        while await manager.hear() != "WATCHDOG=1":
            pass
        status[0] = "busy"
        while (message := await manager.hear()) == "WATCHDOG=1":
            pass
        assert told(message) == {"STATUS": "busy", "WATCHDOG": "1"}
        assert await manager.hear() == "WATCHDOG=1"


async def test_an_error_becomes_the_last_status(manager: Manager) -> None:
    with pytest.raises(ValueError, match="no disk"):
        async with notifier(manager).telling(asyncio.Event(), always("")):
            raise ValueError("no disk")
    assert told(manager.rest()[-1]) == {"STOPPING": "1", "STATUS": "failed: no disk"}


async def test_a_manager_that_is_gone_is_reported_once_and_stops_no_work(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ready, turns = asyncio.Event(), 0
    ready.set()
    ten = asyncio.Event()

    async def alive() -> None:
        nonlocal turns
        turns += 1
        if turns == 10:
            ten.set()

    async with Notifier(str(tmp_path / "gone"), watchdog_s=0.002).telling(ready, always("fine"), alive):
        await ten.wait()
    assert len([record for record in caplog.records if "cannot be told" in record.message]) == 1


def test_what_a_manager_that_is_behind_cannot_take_goes_with_the_next_message(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    fill(manager.socket.getsockname())
    notifier.stopping("first")
    assert set(manager.rest()) == {"X=1"}
    notifier.stopping("second")
    assert told(manager.next()) == {"STATUS": "second", "STOPPING": "1"}


def fill(address: str | bytes) -> None:
    """Send until nobody can send any more: a sender alone may come to its own limit before the receiver's."""
    sent = 1
    while sent:
        sent = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, contextlib.suppress(BlockingIOError):
            other.setblocking(False)
            while True:
                other.sendto(b"X=1", address)
                sent += 1


async def test_a_bug_in_the_status_is_logged_with_its_place(manager: Manager, caplog: pytest.LogCaptureFixture) -> None:
    ready, asked = asyncio.Event(), asyncio.Event()
    ready.set()

    def status() -> str:
        asked.set()
        return str(1 // 0)

    async with notifier(manager).telling(ready, status):
        await asked.wait()
    assert "nothing any more" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_master_whose_ledger_does_not_answer_sends_no_watchdog(manager: Manager, tmp_path: Path) -> None:
    server = MasterServer(MasterConfig(bind=(f"ipc://{tmp_path}/master",), state=tmp_path / "state"))
    stuck, gate, asked = threading.Event(), threading.Event(), asyncio.Event()

    async def check() -> None:
        asked.set()
        await server.check()

    def hang(_: object) -> None:
        stuck.set()
        gate.wait()

    async with notifier(manager).telling(server.ready, server.status, check):
        serving = asyncio.create_task(server.run())
        await server.ready.wait()
        hanging = asyncio.create_task(server._master.ledger.call_writing(hang))
        await asyncio.to_thread(stuck.wait)
        asked.clear()
        await asked.wait()
        manager.rest()
        assert await asyncio.to_thread(manager.hears_nothing_for, SEVERAL_WATCHDOGS_S)
        gate.set()
        await hanging
        assert await manager.hear() == "WATCHDOG=1"
        server.leave()
        await serving


# --- the daemons ---


def start(manager: Manager, folder: Path, role: str, *options: str) -> Daemon:
    argv = [sys.executable, "-m", "nimbusd", role, "--verbose", "--state", str(folder / role), *options]
    return Daemon(argv, folder / f"{role}.log", manager.environment)


@contextlib.contextmanager
def ending(daemon: Daemon) -> Iterator[Daemon]:
    try:
        yield daemon
    finally:
        if daemon.alive:
            daemon.signal(signal.SIGCONT)
            daemon.kill()


by_path = pytest.mark.parametrize("manager", ["path"], indirect=True)


@pytest.mark.processes
def test_a_master_tells_that_it_starts_serves_lives_and_stops(manager: Manager, tmp_path: Path) -> None:
    with ending(start(manager, tmp_path, "master", "--bind", f"ipc://{tmp_path}/m")) as master:
        assert manager.next() == "STATUS=starting"
        assert told(manager.next()) == {"READY": "1", "STATUS": "0 open jobs, 0 nodes, 0.0 episodes/s"}
        assert manager.next() == "WATCHDOG=1"
        assert manager.next() == "WATCHDOG=1"
        master.signal(signal.SIGTERM)
        manager.until("STOPPING=1")
        assert master.wait() == 0, master.tail()
        assert "READY=1" not in manager.heard[manager.heard.index("STOPPING=1") :]


@pytest.mark.processes
@by_path
def test_a_node_tells_of_its_master_and_keeps_the_manager_from_its_compute_workers(
    manager: Manager, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"ipc://{tmp_path}/master.socket"
    runtime = tmp_path_factory.mktemp("run")  # a short path, as sockets need
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(runtime))
    with ending(start(manager, tmp_path, "worker", "--workers", "1", "--master", address)) as node:
        assert "connecting" in (first := manager.until("READY=1")) or "cannot reach" in first
        assert "0 episodes under way in 1 slots" in first
        assert manager.next().splitlines()[-1] == "WATCHDOG=1"
        with ending(Daemon(master_of(tmp_path, address), tmp_path / "master.log", {})):
            assert told(manager.until(f"STATUS=connected to {address}"))["WATCHDOG"] == "1"
            for worker in node.compute_workers():
                assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & worker.environ().keys()
            assert list(runtime.glob("nimbusd-*/node")), "sockets lie in the service's own folder"
            node.signal(signal.SIGTERM)
            assert "leaving: asked to stop" in manager.until("STATUS=")
            assert node.wait() == 0, node.tail()
        manager.rest()
        assert "STOPPING=1" in manager.heard


@pytest.mark.processes
@by_path
def test_a_stopped_process_sends_no_watchdog_until_it_goes_on(manager: Manager, tmp_path: Path) -> None:
    with ending(start(manager, tmp_path, "master", "--bind", f"ipc://{tmp_path}/m")) as master:
        manager.until("WATCHDOG=1")
        master.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, master.pid, os.WSTOPPED | os.WNOWAIT)
        manager.rest()
        assert manager.hears_nothing_for(SEVERAL_WATCHDOGS_S)
        master.signal(signal.SIGCONT)
        manager.until("WATCHDOG=1")


@pytest.mark.processes
@by_path
def test_a_master_that_a_watchdog_aborts_logs_every_threads_stack(manager: Manager, tmp_path: Path) -> None:
    with ending(start(manager, tmp_path, "master", "--bind", f"ipc://{tmp_path}/m")) as master:
        manager.until("READY=1")
        master.signal(signal.SIGABRT)
        assert master.wait() == -signal.SIGABRT
        assert master.said("Fatal Python error: Aborted")
        assert master.said("in _write"), "the ledger's thread is shown, too"


@pytest.mark.processes
@by_path
def test_a_master_stopped_in_the_middle_of_a_job_keeps_what_was_made_and_loses_no_attempt(
    manager: Manager, tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/master.socket"
    job = toy_job(tmp_path)
    with contextlib.ExitStack() as daemons:
        master = daemons.enter_context(ending(start(manager, tmp_path, "master", "--bind", address)))
        manager.until("READY=1")
        daemons.enter_context(ending(Daemon(node_of(tmp_path, address), tmp_path / "worker.log", {})))
        with Client.connect(address, timeout_s=PATIENCE_S) as client:
            cursor = client.cursor()
            client.submit(job)
            assert "1 open job, 1 node" in manager.until("STATUS=1 open job, 1 node")
            assert any(isinstance(event, Event) and event.name == "episode_committed" for event in client.watch(cursor))
            made = client.job(job.name).summary.committed
            master.signal(signal.SIGTERM)
            assert master.wait() == 0, master.tail()
            assert not master.said("Traceback"), master.tail()
            daemons.enter_context(ending(Daemon(master_of(tmp_path, address), tmp_path / "master.log", {})))
            gate_of(tmp_path, job.name).touch()
            ended = client.wait(job.name, PATIENCE_S)
            assert ended.state == "complete"
            assert ended.committed >= made >= 1
            assert client.job(job.name).reasons == {"unreachable": ended.failed}


@pytest.mark.processes
@by_path
def test_settings_that_cannot_be_used_have_a_status_of_their_own(manager: Manager, tmp_path: Path) -> None:
    with ending(start(manager, tmp_path, "worker", "--master", "tcp://127.0.0.1:7600")) as node:
        assert node.wait() == 2
        assert node.said("--allow-any-local-user")


def master_of(folder: Path, address: str) -> list[str]:
    return [sys.executable, "-m", "nimbusd", "master", "--state", str(folder / "master"), "--bind", address]


def node_of(folder: Path, address: str) -> list[str]:
    options = ["--state", str(folder / "worker"), "--workers", "2", "--master", address, "--verbose"]
    return [sys.executable, "-m", "nimbusd", "worker", *options]
