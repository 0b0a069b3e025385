"""Components that each break one line of the contract, named for the line that must find it."""

from __future__ import annotations

import ctypes
import itertools
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import ConfigDict

from nimbusd.stages import (
    BaseLoader,
    ComponentArgs,
    Episode,
    Feature,
    Observation,
    Piece,
    PlanningFailed,
    Scene,
    SceneConfig,
    Sequence,
)
from nimbusd.stages.store.piece import MANIFEST, PieceDraft, draft_piece, piece_folder
from tests.support.toy import ToyLoader, ToyPlanner, ToyRandomizer, ToyRenderer, ToyWriter
from tests.support.toy_workflow import ToyArm

_SLOW_S = 0.6


class AbstractLoader(BaseLoader[ComponentArgs, SceneConfig]):
    """class: has no load_asset()."""


class LooseArgs(ComponentArgs):
    model_config = ConfigDict(extra="ignore")


class LooseLoader(ToyLoader):
    """arguments: a misspelt key passes."""

    args_model: ClassVar[type[ComponentArgs]] = LooseArgs


class UnversionedLoader(ToyLoader):
    """arguments: a version that nobody can compare."""

    version = "newest"


class ListedLoader(ToyLoader):
    """arguments: one word instead of a tuple of words."""

    requires: ClassVar[Any] = "numpy"


class ShyPlanner(ToyPlanner):
    """arguments: takes no generator."""

    def gen_sequence(self, scene: Scene) -> Sequence:  # type: ignore[override]
        return super().gen_sequence(scene, np.random.default_rng(0))


class UnopenedRenderer(ToyRenderer):
    """start: its process ends while it opens."""

    def open(self, device: str) -> None:
        os._exit(3)


class StrandedPlanner(ToyPlanner):
    """start, which cannot be tried: needs what no machine has."""

    requires = ("no_such_module_anywhere",)


class DoubleLoader(ToyLoader):
    """results: vertices of 64 bits, and of a scene that is called otherwise."""

    def load_asset(self, config: SceneConfig) -> Scene:
        scene = super().load_asset(config)
        (triangle,) = scene.objects
        vertices: Any = triangle.vertices.astype(np.float64)
        return replace(scene, name="elsewhere", objects=(replace(triangle, vertices=vertices),))


class NothingPlanner(ToyPlanner):
    """results: forgets to return."""

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        super().gen_sequence(scene, rng)
        return None  # type: ignore[return-value]


class ShortColumnPlanner(ToyPlanner):
    """results: a column with a row too few, and a camera that mirrors."""

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        seq = super().gen_sequence(scene, rng)
        mirrored = seq.T_world_camera["front"] @ np.diag([-1.0, 1.0, 1.0, 1.0])
        return replace(seq, actions={"action": Feature(np.zeros((3, 2)))}, T_world_camera={"front": mirrored})


class RaisingPlanner(ToyPlanner):
    """results: an error that is no planning result."""

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        raise ValueError("the map is upside down")


class HopelessPlanner(ToyPlanner):
    """results: never finds a plan."""

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        raise PlanningFailed("unreachable", "nothing can be reached")


class MovingRandomizer(ToyRandomizer):
    """inputs: moves the furniture of the scene that it was given."""

    def randomize(self, scene: Scene, rng: np.random.Generator) -> Scene:
        for obj in scene.objects:
            obj.T_world_object[:3, 3] += rng.random(3)
        return super().randomize(scene, rng)


class ClockPlanner(ToyPlanner):
    """same bytes: an instruction with the time in it."""

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        return replace(super().gen_sequence(scene, rng), task=f"Walk about at {time.time_ns()}.")


class GlobalRandomizer(ToyRandomizer):
    """same bytes: draws from a generator that nobody seeds."""

    def randomize(self, scene: Scene, rng: np.random.Generator) -> Scene:
        return replace(super().randomize(scene, rng), sky_strength=random.random())


class CountingPlanner(ToyPlanner):
    """order: an episode depends on how many were planned before it."""

    def __init__(self, args: Any) -> None:
        super().__init__(args)
        self._count = itertools.count()

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        return replace(super().gen_sequence(scene, rng), notes={"number": next(self._count)})


class OneFolderWriter(ToyWriter):
    """attempts: all attempts at an episode have one folder."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        return super().save_data(seq, obs, replace(episode, request=replace(episode.request, attempt=1)))


class DatedPublisher(ToyWriter):
    """publish: the dataset says when it was published."""

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        path = super().publish(output, pieces, job, final)
        path.write_text(f"{path.read_text()}\n{time.time_ns()}")
        return path


class TearingPublisher(ToyWriter):
    """publish: moves files out of the pieces."""

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        path = super().publish(output, pieces, job, final)
        states = output / ".pieces" / pieces[0].folder / "state.txt"
        states.chmod(0o600)
        states.write_text(states.read_text() + "!")
        return path


class TornWriter(ToyWriter):
    """kill: writes a piece under its final name, file by file; its storage is slow."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        draft = PieceDraft(episode.output, piece_folder(episode.request), episode.request.fingerprint)
        draft.root = draft.final
        draft.root.mkdir(parents=True, exist_ok=True)
        for name in ("state.txt", MANIFEST):
            (draft.root / name).unlink(missing_ok=True)
        time.sleep(_SLOW_S)
        draft.add("state.txt", b"\n".join(b"1" for _ in range(len(seq))))
        whole = PieceDraft(episode.output, draft.folder, draft.fingerprint)
        whole.root.mkdir()
        whole.add("state.txt", (draft.root / "state.txt").read_bytes())
        return whole.commit(len(seq))


class DraftingWriter(ToyWriter):
    """kill: gives each draft another name, and nobody removes those of the killed; its storage is slow."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        folder = episode.output / ".pieces" / f"{piece_folder(episode.request)}.{os.getpid()}.tmp"
        folder.mkdir(parents=True)
        time.sleep(_SLOW_S)
        folder.rmdir()
        return super().save_data(seq, obs, episode)


class ParentPlanner(ToyPlanner):
    """kill: leaves a process behind where it is killed while it plans."""

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        time.sleep(_SLOW_S)
        child.kill()
        child.wait()
        return super().gen_sequence(scene, rng)


class HoardingRenderer(ToyRenderer):
    """growth: keeps 8 MiB of every sequence."""

    def __init__(self, args: Any) -> None:
        super().__init__(args)
        self._hoard: list[bytes] = []

    def load(self, scene: Scene) -> None:
        self._hoard.append(os.urandom(8 << 20))
        super().load(scene)


class OpeningPlanner(ToyPlanner):
    """growth: opens a file for every sequence."""

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        os.open("/dev/null", os.O_RDONLY)
        return super().gen_sequence(scene, rng)


class ThreadingPlanner(ToyPlanner):
    """growth, and end: leaves a thread for every sequence."""

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        threading.Thread(target=threading.Event().wait, name="endless").start()
        return super().gen_sequence(scene, rng)


class CrashingLoader(ToyLoader):
    """time: dies in a library."""

    def load_asset(self, config: SceneConfig) -> Scene:
        os.kill(os.getpid(), signal.SIGSEGV)
        return super().load_asset(config)


class HangingPlanner(ToyPlanner):
    """time, and beats: waits for ever in C, with the interpreter's lock."""

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        ctypes.PyDLL(None).pause()
        return super().gen_sequence(scene, rng)


class SilentPlanner(ToyPlanner):
    """beats: works for a while without a word."""

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        time.sleep(_SLOW_S)
        return super().gen_sequence(scene, rng)


class LitteringPlanner(ToyPlanner):
    """end: leaves a temporary file."""

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        handle, _ = tempfile.mkstemp(suffix=".map")
        os.close(handle)
        return super().gen_sequence(scene, rng)


class StubbornPlanner(ToyPlanner):
    """end: cannot be closed."""

    def close(self) -> None:
        raise RuntimeError("the simulator does not answer")


class DriftingWorkflow(ToyArm):
    """same bytes, as a workflow: its states have a number of the process in them."""

    def generate_seq(self) -> list[Any]:
        return [{**state, "wobble": float(os.getpid())} for state in super().generate_seq()]


class SteadyWriter(ToyWriter):
    """Breaks nothing: a draft that is removed with its episode's next attempt, and slow storage."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        with draft_piece(episode.output, episode.request) as draft:
            draft.add("state.txt", b"\n".join(b"1" for _ in range(len(seq))))
            time.sleep(_SLOW_S / 6)
            return draft.commit(len(seq))
