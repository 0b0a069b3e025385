"""A ROUTER that answers as a test tells it to, with real control messages: for what a real master never does."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self, TypeAlias

import zmq

from nimbusd.transport.messages import control
from nimbusd.transport.security.keys import KeyPair
from nimbusd.transport.sockets.addresses import socket_path

Answer: TypeAlias = control.Message | bytes | None
Script: TypeAlias = Callable[[control.Request], Answer]
"""An answer to a request: a message, bytes as they are, or nothing."""


@dataclass
class ScriptedMaster:
    """Listens, in a thread of its own, while the `with` lasts. seen: every request, in order.

    address: chosen if it is not given: a Unix socket, or with keys a port.
    """

    script: Script
    keys: KeyPair | None = None
    address: str = ""
    seen: list[control.Message] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._context = zmq.Context()
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        if self.keys is not None:
            self._router.curve_server = True
            self._router.curve_secretkey = self.keys.secret.encode()
        if not self.address:
            encrypted = self.keys is not None
            self.address = "tcp://127.0.0.1:*" if encrypted else f"ipc://{tempfile.mkdtemp()}/socket"
        if (path := socket_path(self.address)) is not None:
            path.parent.mkdir(exist_ok=True)
        self.address = self._router.bind(self.address).addr
        self._stop, self._stopped = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        self._stop.bind("inproc://stop")
        self._stopped.connect("inproc://stop")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.send(b"")
        self._thread.join()
        self._context.destroy(linger=0)
        if (path := socket_path(self.address)) is not None:
            shutil.rmtree(path.parent)

    def _serve(self) -> None:
        poller = zmq.Poller()
        poller.register(self._router, zmq.POLLIN)
        poller.register(self._stop, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if self._stop in ready:
                return
            peer, frame = self._router.recv_multipart()
            request = control.decode(frame)
            assert isinstance(request, control.Request)
            self.seen.append(request)
            answer = self.script(request)
            if answer is not None:
                self._router.send_multipart([peer, answer if isinstance(answer, bytes) else control.encode(answer)])


def summary(job: str = "house", state: str = "running", committed: int = 3) -> control.JobSummary:
    """A job of 8 episodes, of which `committed` are there."""
    return control.JobSummary(
        job=job,
        user="ada",
        priority=0,
        state=state,
        wanted=8,
        committed=committed,
        failed=1,
        quarantined=0,
        leased=2,
        nodes=1,
        frames=60 * committed,
        size_bytes=1_000_000 * committed,
        submitted_unix_s=1.7e9,
        elapsed_s=90.0,
        rate_per_s=0.05,
        eta_s=100.0,
        output="/data/house",
    )


def report(request: int, of: control.JobSummary) -> control.JobReport:
    scene = control.SceneReport("kitchen", 8, of.committed, 1, 0, 2, 4.5)
    return control.JobReport(request, of, (scene,), 1, {"unreachable": 1}, {"node-b": "its environment differs"})


def polite(request: control.Request) -> Answer:
    """Answers everything: one running job `house`, nodes `node-a` and `node-b`, no events."""
    number = request.request
    match request:
        case control.Submit():
            return control.JobList(number, (summary(str(request.spec["name"])),))
        case control.Jobs():
            return control.JobList(number, (summary(),))
        case control.JobDetail(_, "house"):
            return report(number, summary())
        case control.JobDetail(_, job) | control.Cancel(_, job) if job != "house":
            return control.Refused(number, "unknown_job", f"there is no job {job!r}; there are: house")
        case control.Watch():
            return control.Events(number, request.cursor or "1:0", ())
        case control.Nodes():
            load = control.Load(0.5, 4 << 30, 16 << 30, (control.GpuLoad("H200", 0.9, 100 << 30, 140 << 30),))
            ready = control.NodeSummary(
                "node-a", "ready", "0.1.0", "e1", 4, ("gpu:0",), 6, 40, 0.4, load, ("house/kitchen/3 render",)
            )
            lost = control.NodeSummary("node-b", "lost", "0.1.0", "e2", 4, (), 0, 2, 61.0, None, (), "it fell silent")
            return control.NodeList(number, (ready, lost), {"dropped_malformed": 2})
        case control.Failures():
            shown = (FAILURE,) if request.offset == 0 else ()
            return control.FailureList(number, shown, 1)
        case control.MakeToken():
            return control.Token(number, "nimbus1.secret", 1.7e9 + request.ttl_s)
        case _:
            return control.Done(number, 1, "done")


FAILURE = control.FailureReport(
    "kitchen",
    5,
    2,
    "quarantined",
    control.Failure("render", "crashed", "killed by signal 11", "Fatal: segmentation fault\nin draw()"),
    "node-a/cpu:0",
)


def scripted(script: Script) -> Script:
    """`script` where it answers, else `polite`."""
    return lambda request: polite(request) if (answer := script(request)) is None else answer
