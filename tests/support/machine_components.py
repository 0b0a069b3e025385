"""Components that note what they find of the machine, for tests of what a node gives its compute workers."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nimbusd.makers.arithmetic import simd
from nimbusd.stages import BaseRenderer, ComponentArgs, Episode, Observation, Piece, Scene, Sequence
from tests.support.toy import ToyPlanner, ToyPlannerArgs, ToyRenderer, ToyWriter


class NotingArgs(ComponentArgs):
    """notes: folder for what is found. kill: be killed in the first attempt at an episode, with a file left behind."""

    notes: Path
    kill: bool = False


class TemporaryFilesRenderer(BaseRenderer[NotingArgs]):
    """Leaves files in the folder for temporary files, and notes where that is."""

    args_model: ClassVar[type[ComponentArgs]] = NotingArgs

    def load(self, scene: Scene) -> None:
        self.toy = ToyRenderer(ComponentArgs())
        self.toy.beat = self.beat
        self.toy.load(scene)

    def gen_obs(self, seq: Sequence) -> Observation:
        descriptor, left = tempfile.mkstemp()
        os.close(descriptor)
        names = ("TMPDIR", "TMP", "TEMP")
        assert {os.environ[name] for name in names} == {tempfile.gettempdir()}
        first = not any(self.args.notes.iterdir())
        (self.args.notes / str(os.getpid())).write_text(left)
        if self.args.kill and first:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.toy.gen_obs(seq)


class PlaceArgs(ComponentArgs):
    """notes: folder for what is found."""

    notes: Path


def note_instructions(folder: Path, who: str) -> None:
    """Note what this process computes with, and in which order it goes through a set of words."""
    note: dict[str, Any] = {"who": who, "pid": os.getpid(), "found": simd().found}
    note |= {"kernel": os.environ.get("OPENBLAS_CORETYPE"), "order": "".join({*"abcdefghijklmnop"})}
    with (folder / f"{os.getpid()}.{who}.notes").open("a") as file:
        file.write(json.dumps(note) + "\n")


class InstructionsPlanner(ToyPlanner):
    """Notes what it computes with."""

    args_model = PlaceArgs
    args: Any

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        note_instructions(self.args.notes, "plan")
        return ToyPlanner(ToyPlannerArgs()).gen_sequence(scene, rng)


class InstructionsRenderer(ToyRenderer):
    """Notes what it computes with."""

    args_model = PlaceArgs
    args: Any

    def gen_obs(self, seq: Sequence) -> Observation:
        note_instructions(self.args.notes, "render")
        return super().gen_obs(seq)


class InstructionsWriter(ToyWriter):
    """Notes what it computes with, when it stores and when it publishes."""

    args_model = PlaceArgs
    args: Any

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        note_instructions(self.args.notes, "store")
        return super().save_data(seq, obs, episode)

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        note_instructions(self.args.notes, "publish")
        return super().publish(output, pieces, job, final)
