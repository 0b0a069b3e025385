"""Toy components that fail as machines and libraries do; `tests.support.toy.FaultyRenderer` has the simplest ways."""

from __future__ import annotations

import ctypes
import importlib
import itertools
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nimbusd.stages import ComponentArgs, Episode, Observation, Piece, Scene, SceneConfig, Sequence
from nimbusd.stages.store.piece import draft_piece
from tests.support.toy import FaultArgs, FaultyRenderer, ToyLoader, ToyPlanner, ToyPlannerArgs, ToyRenderer, ToyWriter

_ROOM_BYTES = 64 << 20


class WorseRenderer(FaultyRenderer):
    """kind: `stop` (SIGSTOP), `spin`, `import` (a deadlock), `memory` (no more of it), `oom_kill`, `children` or
    `orphans`, which nothing but their ancestry tells from others.
    """

    def _fail(self) -> None:
        match self.args.kind:
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "spin":
                while True:
                    pass
            case "import":
                importlib.import_module("tests.support.deadlocked_import")
            case "memory":
                _use_up_memory()
            case "oom_kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "children":
                group = subprocess.Popen(["sleep", "1000"])
                session = subprocess.Popen(["sleep", "1000"], start_new_session=True)
                (self.args.marks / "children").write_text(f"{group.pid} {session.pid}")
                os._exit(0)
            case "orphans":
                leave_children(self.args.marks / "children")
                os._exit(0)


class KeepArgs(FaultArgs):
    """gated: wait for ever once there are hidden children."""

    gated: bool = False


class KeepingRenderer(WorseRenderer):
    """Each process of it has hidden children, and notes in `betrayed` if they are gone while it works."""

    args_model = KeepArgs

    def gen_obs(self, seq: Sequence) -> Observation:
        self.args.marks.mkdir(parents=True, exist_ok=True)
        note = self.args.marks / f"children.{os.getpid()}"
        if not note.exists():
            leave_children(note)
        while self.args.gated:
            self.beat()
            time.sleep(0.1)
        if not all(psutil.pid_exists(int(pid)) for pid in note.read_text().split()):
            (self.args.marks / "betrayed").touch()
        return super().gen_obs(seq)


class ThreadedRenderer(ToyRenderer):
    """Leaves a thread that never ends."""

    def gen_obs(self, seq: Sequence) -> Observation:
        threading.Thread(target=threading.Event().wait, name="endless").start()
        return super().gen_obs(seq)


class StoppedRenderer(FaultyRenderer):
    """Stops its process (SIGSTOP) while it opens, the first time that any worker does."""

    def open(self, device: str) -> None:
        self.args.marks.mkdir(parents=True, exist_ok=True)
        if self._next_number() == 0:
            os.kill(os.getpid(), signal.SIGSTOP)


class UnopenedRenderer(ToyRenderer):
    """Ends its process while it opens, every time: a driver that crashes, say."""

    def open(self, device: str) -> None:
        os._exit(3)


def _use_up_memory() -> None:
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + _ROOM_BYTES, limits[1]))
    hoard = []
    try:
        while True:
            hoard.append(bytearray(_ROOM_BYTES // 4))
    finally:
        hoard.clear()
        resource.setrlimit(resource.RLIMIT_AS, limits)


class PoisonArgs(ComponentArgs):
    """scene: the one that kills whoever loads it."""

    scene: str


class PoisonedLoader(ToyLoader):
    """One scene kills its worker whenever it is loaded."""

    args_model = PoisonArgs
    args: Any

    def load_asset(self, config: SceneConfig) -> Scene:
        if config.name == self.args.scene:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().load_asset(config)


class BulkyArgs(ComponentArgs):
    """size_bytes: of every piece, beside what the toy writer stores."""

    size_bytes: int


class BulkyWriter(ToyWriter):
    """Pieces that fill a disk."""

    args_model = BulkyArgs
    args: Any

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        with draft_piece(episode.output, episode.request) as draft:
            draft.add("state.txt", "\n".join(map(str, seq.states["observation.state"].values.tolist())).encode())
            draft.add("bulk.bin", bytes(self.args.size_bytes))
            return draft.commit(len(seq))


class StalledArgs(ComponentArgs):
    """fifo: what stands in place of a file of one episode: opening it waits for a reader, who never comes."""

    fifo: Path
    scene: str
    index: int


class StalledWriter(ToyWriter):
    """Storage that answers no more, for one episode."""

    args_model = StalledArgs
    args: Any

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        if (episode.request.scene, episode.request.index) == (self.args.scene, self.args.index):
            with self.args.fifo.open("wb"):
                pass
        return super().save_data(seq, obs, episode)


class PublishFaultArgs(ComponentArgs):
    """kind: what happens in publishing. while_exists: only as long as this file is there."""

    kind: str
    while_exists: Path


class FaultyPublisher(ToyWriter):
    """kind: `raise`, `sys_exit`, `exit`, `crash`, `hang`, `hold` (in C, with the GIL), `memory`, `leave` or `threads`.

    `leave` is an exit that leaves processes behind, whose pids it writes to `children` in the output. `threads`
    publishes, and leaves a thread that never ends.
    """

    args_model = PublishFaultArgs
    args: Any

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        if self.args.while_exists.exists():
            self._fail(output)
        return super().publish(output, pieces, job, final)

    def _fail(self, output: Path) -> None:
        print("about to fail", flush=True)
        match self.args.kind:
            case "raise":
                raise ZeroDivisionError("no such luck")
            case "sys_exit":
                raise SystemExit(3)
            case "exit":
                os._exit(0)
            case "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "hang":
                threading.Event().wait()
            case "hold":
                ctypes.PyDLL(None).pause()
            case "memory":
                hoard = []
                while True:
                    hoard.append(b"x" * _ROOM_BYTES)
                    self.beat()
            case "leave":
                leave_children(output / "children")
                os._exit(0)
            case "threads":
                threading.Thread(target=threading.Event().wait, name="endless").start()


def leave_children(note: Path) -> None:
    """Leave processes as they are hard to find: in sessions of their own, without environment, without a parent.

    note: gets their pids.
    """
    twice = "import os, time\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
    tell = "fd = os.open({note!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\nos.write(fd, b'%d ' % os.getpid())\n"
    code = twice + tell.format(note=str(note)) + "time.sleep(1000)"
    for _ in range(2):
        subprocess.run([sys.executable, "-I", "-S", "-c", code], env={}, check=True)
    while len(note.read_text().split() if note.exists() else ()) < 2:
        time.sleep(0.01)


class PlanLogArgs(ToyPlannerArgs):
    """log: a line is added to it for every sequence that is planned."""

    log: Path


class CountingPlanner(ToyPlanner):
    """Notes what it plans, by the state of its random stream."""

    args_model = PlanLogArgs
    args: Any

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        place = f"{scene.name}-{rng.bit_generator.state['state']['state']}"
        sequence = super().gen_sequence(scene, rng)
        with self.args.log.open("a") as file:
            file.write(f"{place}\n")
        return sequence


class HangingPlanner(CountingPlanner):
    """Hangs in C, with the GIL held, the first time that anybody plans after two sequences were planned."""

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        log, mark = self.args.log, self.args.log.with_suffix(".hung")
        if log.exists() and len(log.read_text().split()) >= 2 and not mark.exists():
            mark.touch()
            ctypes.PyDLL(None).pause()
        return super().gen_sequence(scene, rng)


class CrowdArgs(ComponentArgs):
    """folder: where what happened is marked."""

    folder: Path


class CrowdedWriter(ToyWriter):
    """The first thread of all to store waits until another thread of its process stores, and then hangs for ever."""

    args_model = CrowdArgs
    args: Any

    def __init__(self, args: CrowdArgs) -> None:
        super().__init__(args)
        self._second = threading.Event()
        self._count = itertools.count()

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        self.args.folder.mkdir(exist_ok=True)
        if next(self._count):
            self._second.set()
        elif self._is_first():
            while not self._second.wait(0.05):
                self.beat()
            (self.args.folder / "met").touch()
            threading.Event().wait()
        return super().save_data(seq, obs, episode)

    def _is_first(self) -> bool:
        try:
            (self.args.folder / "first").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
