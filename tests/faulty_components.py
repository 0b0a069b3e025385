"""Toy components that fail as machines and libraries do; `tests.toy.FaultyRenderer` has the simplest ways."""

from __future__ import annotations

import ctypes
import importlib
import itertools
import os
import resource
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from nimbusd.stages import ComponentArgs, Episode, Observation, Piece, Scene, SceneConfig, Sequence
from nimbusd.stages.store.piece import draft_piece
from tests.toy import FaultyRenderer, ToyLoader, ToyPlanner, ToyPlannerArgs, ToyRenderer, ToyWriter

_ROOM_BYTES = 64 << 20


class WorseRenderer(FaultyRenderer):
    """kind: `stop` (SIGSTOP), `spin`, `import` (a deadlock), `memory` (no more of it), `oom_kill` or `children`."""

    def _fail(self) -> None:
        match self.args.kind:
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "spin":
                while True:
                    pass
            case "import":
                importlib.import_module("tests.deadlocked_import")
            case "memory":
                _use_up_memory()
            case "oom_kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "children":
                group = subprocess.Popen(["sleep", "1000"])
                session = subprocess.Popen(["sleep", "1000"], start_new_session=True)
                (self.args.marks / "children").write_text(f"{group.pid} {session.pid}")
                os._exit(0)


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
