"""Components that do nothing: an episode of them costs what the house around it costs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from nimbusd.stages import (
    BaseLoader,
    BasePlanner,
    BaseRenderer,
    BaseWriter,
    ComponentArgs,
    Episode,
    Feature,
    Observation,
    Piece,
    Scene,
    SceneConfig,
    Sequence,
)
from nimbusd.stages.store.piece import draft_piece


def spin(seconds: float) -> None:
    """Keep a core busy."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


class EmptyLoader(BaseLoader[ComponentArgs, SceneConfig]):
    """A scene of no objects."""

    def load_asset(self, config: SceneConfig) -> Scene:
        return Scene(config.name, ())


class StillArgs(ComponentArgs):
    """spin_s: how long to keep a core busy."""

    spin_s: float = 0.0


class StillPlanner(BasePlanner[StillArgs]):
    """One frame in which nothing moves, seen by no camera."""

    args_model: ClassVar[type[ComponentArgs]] = StillArgs

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        spin(self.args.spin_s)
        still = Feature(np.zeros((1, 1), np.float32), ("x",))
        return Sequence(
            fps=10.0,
            task="Stay.",
            cameras=(),
            T_world_camera={},
            T_base_camera={},
            states={"observation.state": still},
            actions={"action": still},
        )


class BlindRenderer(BaseRenderer[ComponentArgs]):
    """No pictures."""

    device_name = "none"

    def load(self, scene: Scene) -> None: ...

    def gen_obs(self, seq: Sequence) -> Observation:
        return Observation({}, ())


class BareWriter(BaseWriter[ComponentArgs]):
    """A durable piece without files, and a dataset that is an empty file."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        with draft_piece(episode.output, episode.request) as draft:
            return draft.commit(len(seq))

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        path = output / "dataset"
        path.touch()
        return path
