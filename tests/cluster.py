"""A cluster of real processes on this machine: a master, nodes and what it takes to stop, kill and watch them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import psutil
import yaml

from nimbusd.client import Client
from nimbusd.core.episodes import EpisodeKey, JobId
from nimbusd.job import Job, read_job
from nimbusd.master.ledger import Ledger

REPOSITORY = Path(__file__).parent.parent
PATIENCE_S = 45.0
"""How long to wait for what must come. Only a failing test waits so long."""


class Daemon:
    """A process whose log is read as it is written."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        """Start `argv`; its output is added to `log`. env: what differs from our own environment."""
        paths = [env.get("PYTHONPATH", ""), str(REPOSITORY)]
        own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
        self.started_at = time.monotonic()
        self._process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **env, **own}
        )
        self.pid = self._process.pid
        self._lines: list[tuple[float, str]] = []
        self._ended = False
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(log,), daemon=True)
        self._reader.start()

    def _read(self, log: Path) -> None:
        assert self._process.stdout is not None
        with log.open("ab") as file:
            for line in self._process.stdout:
                file.write(line)
                file.flush()
                with self._news:
                    self._lines.append((time.monotonic(), line.decode(errors="replace").rstrip()))
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def mark(self) -> int:
        """The place of now in the log, to wait for what comes after it."""
        with self._news:
            return len(self._lines)

    def wait_for(self, pattern: str, after: int = 0, timeout_s: float = PATIENCE_S) -> str:
        """The first line with a match of `pattern` in it, from the mark `after` on."""
        return self._wait_for(pattern, after, timeout_s)[1]

    def seconds_until(self, pattern: str, timeout_s: float = PATIENCE_S) -> float:
        """How long after its start the process wrote the first line with a match of `pattern` in it."""
        return self._wait_for(pattern, 0, timeout_s)[0] - self.started_at

    def _wait_for(self, pattern: str, after: int, timeout_s: float) -> tuple[float, str]:
        ends = time.monotonic() + timeout_s
        with self._news:
            while True:
                for at, line in self._lines[after:]:
                    if re.search(pattern, line):
                        return at, line
                after = len(self._lines)
                left_s = ends - time.monotonic()
                assert not self._ended, f"the process ended without {pattern!r}:\n{self.tail()}"
                assert left_s > 0, f"no {pattern!r} within {timeout_s:g} s:\n{self.tail()}"
                self._news.wait(left_s)

    def said(self, text: str) -> list[str]:
        """The lines so far with `text` in them."""
        with self._news:
            return [line for _, line in self._lines if text in line]

    def tail(self) -> str:
        """The last lines, for messages."""
        return "\n".join(line for _, line in self._lines[-30:])

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def compute_workers(self) -> list[psutil.Process]:
        """The compute workers of a node, now."""
        return self._children("nimbusd.worker.compute")

    def watchdogs(self) -> list[psutil.Process]:
        """The watchdog of a node, now; none while it is replaced."""
        return self._children("nimbusd.supervisor.watchdog")

    def _children(self, module: str) -> list[psutil.Process]:
        found = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if module in child.cmdline():
                        found.append(child)
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> list[psutil.Process]:
        """SIGKILL, and wait until it is gone. Returns the compute workers that it leaves alive."""
        workers = self.compute_workers()
        self._process.kill()
        self._process.wait()
        _, left = psutil.wait_procs(workers, timeout=10)
        self._reader.join()
        return left

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Its exit status, once it has ended by itself."""
        status = self._process.wait(timeout_s)
        self._reader.join()
        return status


class Cluster(AbstractContextManager["Cluster"]):
    """A master and nodes; leaving the context kills all of them.

    bind: what the master listens on; a port `*` is chosen at its first start and kept. The deadlines are short, so
    that tests need not wait for them.
    """

    def __init__(
        self,
        folder: Path,
        *,
        bind: str = "tcp://127.0.0.1:*",
        heartbeat_s: float = 0.25,
        dead_after_s: float = 2.0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.state = folder / "master"
        self.address = bind
        self.nodes: dict[str, Daemon] = {}
        self._env = dict(env or {})
        self._all: list[Daemon] = []
        self._clients: list[Client] = []
        self._config = folder / "master.toml"
        self._config.write_text(f"[master]\nheartbeat_s = {heartbeat_s}\ndead_after_s = {dead_after_s}\n")

    def __enter__(self) -> Self:
        self.start_master()
        return self

    def __exit__(self, *exc: object) -> None:
        for client in self._clients:
            client.close()
        for daemon in self._all:
            if daemon.alive:
                daemon.kill()

    def start_master(self) -> Daemon:
        """Start the master, at the address that it had before, and wait until it listens."""
        options = ["--config", str(self._config), "--state", str(self.state), "--bind", self.address]
        self.master = self._start("master", options, {})
        self.address = self.master.wait_for("listening on").partition("listening on ")[2].partition(";")[0]
        return self.master

    def start_node(
        self, name: str, *, workers: int = 1, master: str | None = None, env: Mapping[str, str] | None = None
    ) -> Daemon:
        """Start a node; it connects by itself. master: another address than the master's own."""
        options = ["--state", str(self.folder / name), "--name", name, "--workers", str(workers)]
        self.nodes[name] = self._start("worker", [*options, "--master", master or self.address], env or {}, name)
        return self.nodes[name]

    def join_node(self, name: str, token: str, state: Path | None = None) -> Daemon:
        """Start a node by a token. state: its folder, if that is not the one of its name."""
        options = ["--state", str(state or self.folder / name), "--name", name, "--workers", "1", "--join", token]
        self.nodes[name] = self._start("worker", options, {}, name)
        return self.nodes[name]

    def start(self, argv: Sequence[str], log: str, env: Mapping[str, str] | None = None) -> Daemon:
        """Start any other process that must end with the cluster."""
        daemon = Daemon(argv, self.folder / f"{log}.log", {**self._env, **(env or {})})
        self._all.append(daemon)
        return daemon

    def _start(self, role: str, options: Sequence[str], env: Mapping[str, str], name: str = "master") -> Daemon:
        return self.start([sys.executable, "-m", "nimbusd", role, "--verbose", *options], name, env)

    def name_of(self, pid: int) -> str:
        """The node whose daemon has that pid."""
        return next(name for name, node in self.nodes.items() if node.pid == pid)

    def stop_nodes(self) -> None:
        """Have all nodes leave as they are asked to. Raises AssertionError if one does not end well."""
        nodes = {name: node for name, node in self.nodes.items() if node.alive}
        for node in nodes.values():
            node.signal(signal.SIGTERM)
        for name, node in nodes.items():
            assert node.wait() == 0, f"node {name}:\n{node.tail()}"

    def client(self, **options: Any) -> Client:
        """A client of the master, closed at the end."""
        client = Client.connect(self.address, timeout_s=PATIENCE_S, **options)
        self._clients.append(client)
        return client

    def nimbusctl(self, *args: str) -> subprocess.CompletedProcess[str]:
        """Run a command of `nimbusctl` against the master."""
        return subprocess.run(
            [sys.executable, "-m", "nimbusd.cli", *args, "--master", self.address],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            timeout=PATIENCE_S,
        )

    def committed(self, job: str) -> list[EpisodeKey]:
        """Committed episodes as the ledger has them."""
        with Ledger.read(self.state / "ledger.sqlite") as ledger:
            return [piece.key for piece in ledger.committed(JobId(job))]


def pieces_of(output: Path) -> list[str]:
    """What lies in the folder of pieces, drafts included."""
    return sorted(path.name for path in (output / ".pieces").iterdir())


def toy_job(folder: Path, name: str = "toy", **changes: Any) -> Job:
    """A job of toy components: 3 scenes of 4 episodes, a third of the plans fail. One of scene c waits at a gate.

    The gate is the file `<folder>/<name>.gate`: see `tests.toy.GatedRenderer`.
    """
    described: dict[str, Any] = {
        "name": name,
        "seed": 3,
        "output": str(folder / name),
        "scenes": [{"name": scene} for scene in "abc"],
        "episodes_per_scene": 4,
        "pipeline": {
            "load": {"component": "tests.toy:ToyLoader"},
            "plan": {"component": "tests.toy:ToyPlanner", "args": {"fail_share": 0.3}},
            "render": {
                "component": "tests.toy:GatedRenderer",
                "args": {"gate": str(gate_of(folder, name)), "scenes": ["c"]},
            },
            "store": {"component": "tests.toy:ToyWriter"},
        },
        "limits": {"beat_timeout_s": 20.0},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**described, **changes}))
    return read_job(path)


def gate_of(folder: Path, name: str) -> Path:
    """The file that opens the gate of a toy job."""
    return folder / f"{name}.gate"


def comes_to(gate: Path) -> int:
    """Wait for the first compute worker at a gate; returns the pid of its node's daemon."""
    ends = time.monotonic() + PATIENCE_S
    while not (taken := gate.with_suffix(".taken")).exists():
        assert time.monotonic() < ends, f"nobody comes to {gate}"
        time.sleep(0.01)
    return int(taken.read_text().split()[0])
