"""A cluster of real processes on this machine: a master, nodes and what it takes to stop, kill and watch them."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

from nimbusd.chaos.processes import PATIENCE_S, Daemon, ProcessFailed
from nimbusd.client import Client
from nimbusd.supervisor.process import python


class ProcessCluster(AbstractContextManager["ProcessCluster"]):
    """A master and nodes; leaving the context kills all of them. Its deadlines are short, so that nobody waits for
    them.

    folder: for their state and their logs. bind: the address of the master, a Unix socket by default; a port `*` is
    chosen at its first start and kept. sockets: a private folder for those. env: changes to our own environment.
    """

    def __init__(
        self,
        folder: Path,
        *,
        bind: str = "",
        heartbeat_s: float = 0.25,
        dead_after_s: float = 2.0,
        publish_every_s: float = 30.0,
        seen_within_s: float = 60.0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.state = folder / "master"
        self._temporary = tempfile.TemporaryDirectory(prefix="nimbusd-")  # `folder` may be too long for sockets
        self.sockets = Path(self._temporary.name)
        self.address = bind or f"ipc://{self.sockets / 'master'}"
        self.nodes: dict[str, Daemon] = {}
        self._env = dict(env or {})
        self._all: list[Daemon] = []
        self._clients: list[Client] = []
        self._config = folder / "master.toml"
        settings = {
            "heartbeat_s": heartbeat_s,
            "dead_after_s": dead_after_s,
            "publish_every_s": publish_every_s,
            "seen_within_s": seen_within_s,
        }
        self._config.write_text("[master]\n" + "".join(f"{key} = {value}\n" for key, value in settings.items()))

    def __enter__(self) -> Self:
        self.start_master()
        return self

    def __exit__(self, *exc: object) -> None:
        for client in self._clients:
            client.close()
        for daemon in self._all:
            if daemon.alive:
                daemon.kill()
        self._temporary.cleanup()

    def start_master(self) -> Daemon:
        """Start the master, at the address that it had before, and wait until it listens."""
        options = ["--config", str(self._config), "--state", str(self.state), "--bind", self.address]
        self.master = self._start("master", options, {})
        self.address = self.master.wait_for("listening on").partition("listening on ")[2].partition(";")[0]
        return self.master

    def start_node(
        self,
        name: str,
        *,
        workers: int = 1,
        spares: int = 0,
        master: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Daemon:
        """Start a node; it connects by itself. master: another address than the master's own."""
        options = ["--state", str(self.folder / name), "--name", name]
        options += ["--workers", str(workers), "--spares", str(spares)]
        self.nodes[name] = self._start("worker", [*options, "--master", master or self.address], env or {}, name)
        return self.nodes[name]

    def start(self, argv: Sequence[str], log: str, env: Mapping[str, str] | None = None) -> Daemon:
        """Start any other process that must end with the cluster."""
        daemon = Daemon(argv, self.folder / f"{log}.log", {**self._env, **(env or {})})
        self._all = [other for other in self._all if other.alive] + [daemon]
        return daemon

    def _start(self, role: str, options: Sequence[str], env: Mapping[str, str], name: str = "master") -> Daemon:
        return self.start(python("nimbusd", role, "--verbose", *options), name, env)

    def name_of(self, pid: int) -> str:
        """The node whose daemon has that pid."""
        return next(name for name, node in self.nodes.items() if node.pid == pid)

    def stop_nodes(self) -> None:
        """Have all nodes leave as they are asked to. Raises ProcessFailed if one does not end well."""
        nodes = {name: node for name, node in self.nodes.items() if node.alive}
        for node in nodes.values():
            node.signal(signal.SIGTERM)
        for name, node in nodes.items():
            if (status := node.wait()) != 0:
                raise ProcessFailed(f"node {name} ended with status {status}:\n{node.tail()}")

    def client(self, **options: Any) -> Client:
        """A client of the master, closed at the end."""
        client = Client.connect(self.address, timeout_s=PATIENCE_S, **options)
        self._clients.append(client)
        return client
