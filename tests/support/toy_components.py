"""Five small components that need nothing, for tests of what drives components."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nimbusd.stages.base import (
    BaseLoader,
    BasePlanner,
    BaseRandomizer,
    BaseRenderer,
    BaseWriter,
    ComponentArgs,
    SceneConfig,
)
from nimbusd.stages.types import Camera, CameraFrames, Episode, Observation, Piece, Scene, Sequence


class ToyScene(SceneConfig):
    path: Path | None = None
    seed: int = 7


class ToyLoader(BaseLoader[ComponentArgs, ToyScene]):
    scene_model: ClassVar[type[SceneConfig]] = ToyScene

    def asset_paths(self, config: ToyScene) -> list[Path]:
        return [config.path] if config.path else []

    def load_asset(self, config: ToyScene) -> Scene:
        return Scene(config.name, ())


class SeedlessLoader(BaseLoader[ComponentArgs, SceneConfig]):
    def load_asset(self, config: SceneConfig) -> Scene:
        return Scene(config.name, ())


class ToyRandomizer(BaseRandomizer[ComponentArgs]):
    def randomize(self, scene: Scene, rng: np.random.Generator) -> Scene:
        return scene


class ToyRobot(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    radius_m: float = Field(default=0.2, gt=0)
    height_m: float = 1.2


class ToyPlannerArgs(ComponentArgs):
    robot: ToyRobot = ToyRobot()
    fps: float = 10.0
    waypoints: tuple[ToyRobot, ...] = ()
    map: Path | None = None


class ToyPlanner(BasePlanner[ToyPlannerArgs]):
    args_model: ClassVar[type[ComponentArgs]] = ToyPlannerArgs
    version: ClassVar[str] = "1.2.0"
    requires: ClassVar[tuple[str, ...]] = ("numpy", "no_such_module_anywhere")

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        camera = Camera("rgb", 4, 3, 4.0, 4.0, 2.0, 1.5)
        pose = np.eye(4)
        return Sequence(self.args.fps, "stand", (camera,), {"rgb": pose[None]}, {"rgb": pose}, {}, {})


class ToyRenderer(BaseRenderer[ComponentArgs]):
    def load(self, scene: Scene) -> None: ...

    def gen_obs(self, seq: Sequence) -> Observation:
        return Observation({"rgb": CameraFrames(np.zeros((len(seq), 3, 4, 3), np.uint8))})


class ToyWriter(BaseWriter[ComponentArgs]):
    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        return Piece(f"{episode.request.scene}.{episode.request.index}", len(seq), ())

    def publish(self, output: Path, pieces: list[Piece], job: dict[str, Any], final: bool) -> Path:
        return output / "dataset"


class HalfWriter(BaseWriter[ComponentArgs]):
    """Forgets publish()."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        return Piece("half", 1, ())
