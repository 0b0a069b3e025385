"""Components small enough to run a whole job in milliseconds, and a few that misbehave on purpose."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nimbusd.stages import (
    BaseLoader,
    BasePlanner,
    BaseRandomizer,
    BaseRenderer,
    BaseWriter,
    Camera,
    CameraFrames,
    ComponentArgs,
    Episode,
    Feature,
    Label,
    Material,
    Observation,
    Piece,
    PlanningFailed,
    Scene,
    SceneConfig,
    SceneObject,
    Sequence,
)
from nimbusd.stages.store.piece import draft_piece

FRAMES = 10
WIDTH, HEIGHT = 32, 24


class ToyLoader(BaseLoader[ComponentArgs, SceneConfig]):
    """A scene of one triangle."""

    def load_asset(self, config: SceneConfig) -> Scene:
        triangle = SceneObject(
            name="triangle",
            category="object",
            instance_id=1,
            vertices=np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32),
            faces=np.array([[0, 1, 2]], np.int32),
            materials=(Material("grey"),),
            face_material=np.zeros(1, np.int32),
        )
        return Scene(config.name, (triangle,))


class ToyRandomizer(BaseRandomizer[ComponentArgs]):
    """Gives the scene a random sky."""

    def randomize(self, scene: Scene, rng: np.random.Generator) -> Scene:
        return Scene(scene.name, scene.objects, sky_strength=float(rng.random()))


class ToyPlannerArgs(ComponentArgs):
    """fail_share: how many plans fail, drawn from the episode's own stream."""

    fail_share: float = 0.0


class ToyPlanner(BasePlanner[ToyPlannerArgs]):
    """A random walk seen by one camera."""

    args_model: ClassVar[type[ComponentArgs]] = ToyPlannerArgs

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        if rng.random() < self.args.fail_share:
            raise PlanningFailed("unreachable", "the toy goal is out of reach")
        T = np.tile(np.eye(4), (FRAMES, 1, 1))
        T[:, :3, 3] = np.cumsum(rng.normal(size=(FRAMES, 3)), axis=0)
        state = T[:, :3, 3].astype(np.float32)
        return Sequence(
            fps=10.0,
            task="Walk about.",
            cameras=(Camera("front", WIDTH, HEIGHT, 30.0, 30.0, WIDTH / 2, HEIGHT / 2),),
            T_world_camera={"front": T},
            T_base_camera={"front": np.eye(4)},
            states={"observation.state": Feature(state, ("x", "y", "z"))},
            actions={"action": Feature(np.diff(state, axis=0, append=state[-1:]), ("x", "y", "z"))},
        )


class ToyRenderer(BaseRenderer[ComponentArgs]):
    """Frames that depend on the sequence alone."""

    device_name = "toy"

    def load(self, scene: Scene) -> None:
        self.scene = scene

    def gen_obs(self, seq: Sequence) -> Observation:
        shape = (len(seq), HEIGHT, WIDTH)
        ramp = np.linspace(0, 200, WIDTH, dtype=np.uint8)
        rgb = np.empty((*shape, 3), np.uint8)
        for t in range(len(seq)):
            self.beat()
            rgb[t] = ramp[None, :, None] + np.uint8(5 * t)
        depth_m = np.full(shape, 1.5, np.float32)
        ids = np.ones(shape, np.uint16)
        return Observation({"front": CameraFrames(rgb, depth_m, ids, ids)}, (Label(1, 48, "triangle", "object"),))


class FaultArgs(ComponentArgs):
    """Failures: at the first attempt of these episodes only, remembered by files in `marks`.

    kind: `hang` (in C, holding the GIL), `segfault`, `exit` (status 0) or `raise`. always: at every attempt.
    """

    kind: str
    marks: Path
    states: tuple[int, ...] = (3,)
    always: bool = False


class FaultyRenderer(ToyRenderer):
    """Fails as its arguments say at the n-th sequence that any worker renders."""

    args_model = FaultArgs
    args: Any

    def gen_obs(self, seq: Sequence) -> Observation:
        self.args.marks.mkdir(parents=True, exist_ok=True)
        number = self._next_number()
        if number in self.args.states or self.args.always:
            self._fail()
        return super().gen_obs(seq)

    def _next_number(self) -> int:
        """Sequences rendered so far by all workers: each takes the first free number by making a file."""
        number = 0
        while True:
            try:
                os.close(os.open(self.args.marks / str(number), os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                number += 1
            else:
                return number

    def _fail(self) -> None:
        match self.args.kind:
            case "hang":
                ctypes.PyDLL(None).pause()
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os._exit(0)
            case _:
                raise RuntimeError("the renderer was told to fail")


class GateArgs(ComponentArgs):
    """gate: a file that opens it. scenes: whose episodes wait at it; all: not only the first that comes."""

    gate: Path
    scenes: tuple[str, ...] = ()
    all: bool = False


class GatedRenderer(ToyRenderer):
    """Renders an episode only once a file is there, so that a test can act in the middle of it.

    Which one, and whose child the worker is that came with it, stands in `<gate>.taken`. Its other attempts wait, too.
    """

    args_model = GateArgs
    args: Any

    def gen_obs(self, seq: Sequence) -> Observation:
        waits = self.scene.name in self.args.scenes and (self.args.all or self._is_the_one(seq))
        while waits and not self.args.gate.exists():
            self.beat()
            time.sleep(0.02)
        return super().gen_obs(seq)

    def _is_the_one(self, seq: Sequence) -> bool:
        episode = seq.states["observation.state"].values.tobytes().hex()
        taken = self.args.gate.with_suffix(".taken")
        mine = taken.with_suffix(f".{os.getpid()}")
        mine.write_text(f"{os.getppid()} {episode}")
        with contextlib.suppress(FileExistsError):
            os.link(mine, taken)
        mine.unlink()
        return bool(taken.read_text().split()[1] == episode)


class ToyWriter(BaseWriter[ComponentArgs]):
    """Stores the states as text and publishes the texts, one after another."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        with draft_piece(episode.output, episode.request) as draft:
            draft.add("state.txt", "\n".join(map(str, seq.states["observation.state"].values.tolist())).encode())
            return draft.commit(len(seq))

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        path = output / "dataset.txt"
        texts = [(output / ".pieces" / piece.folder / "state.txt").read_text() for piece in pieces]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("\n\n".join(texts))
        temporary.replace(path)
        return path


class ContextWriter(ToyWriter):
    """Stores what an episode is told of its job, as JSON."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        with draft_piece(episode.output, episode.request) as draft:
            draft.add("state.txt", json.dumps(episode.context["job"]).encode())
            return draft.commit(len(seq))


class StepRenderer(ToyRenderer):
    """Renders an episode for every file `<gate>.1`, `<gate>.2` …, and all once `<gate>.go` is there."""

    args_model = GateArgs
    args: Any

    def gen_obs(self, seq: Sequence) -> Observation:
        while not self.args.gate.with_suffix(".go").exists() and not self._step():
            self.beat()
            time.sleep(0.02)
        return super().gen_obs(seq)

    def _step(self) -> bool:
        """True if there was a step to take; it is used up."""
        for step in self.args.gate.parent.glob(f"{self.args.gate.name}.[0-9]*"):
            with contextlib.suppress(FileNotFoundError):
                step.unlink()
                return True
        return False


class NotingWriter(ToyWriter):
    """Stores what the episode was told of its environment, and publishes a line for each."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        with draft_piece(episode.output, episode.request) as draft:
            note = [episode.request.index, episode.context.get("environment")]
            draft.add("state.txt", json.dumps(note).encode())
            return draft.commit(len(seq))

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        path = output / "dataset.txt"
        path.write_text("\n".join((output / ".pieces" / piece.folder / "state.txt").read_text() for piece in pieces))
        return path
