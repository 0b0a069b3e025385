"""Components that are checked rather than run: their scenes, arguments, versions and requirements."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from nimbusd.stages.base import (
    BaseLoader,
    BasePlanner,
    BaseWriter,
    ComponentArgs,
    SceneConfig,
)
from nimbusd.stages.types import Camera, Episode, Observation, Piece, Scene, Sequence


class SeededScene(SceneConfig):
    path: Path | None = None
    seed: int = 7


class SeededLoader(BaseLoader[ComponentArgs, SeededScene]):
    scene_model: ClassVar[type[SceneConfig]] = SeededScene

    def asset_paths(self, config: SeededScene) -> list[Path]:
        return [config.path] if config.path else []

    def load_asset(self, config: SeededScene) -> Scene:
        return Scene(config.name, ())


class SeedlessLoader(BaseLoader[ComponentArgs, SceneConfig]):
    def load_asset(self, config: SceneConfig) -> Scene:
        return Scene(config.name, ())


class Robot(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    radius_m: float = Field(default=0.2, gt=0)
    height_m: float = 1.2


class RobotPlannerArgs(ComponentArgs):
    robot: Robot = Robot()
    fps: float = 10.0
    waypoints: tuple[Robot, ...] = ()
    map: Path | None = None


class RobotPlanner(BasePlanner[RobotPlannerArgs]):
    args_model: ClassVar[type[ComponentArgs]] = RobotPlannerArgs
    version: ClassVar[str] = "1.2.0"
    requires: ClassVar[tuple[str, ...]] = ("numpy", "no_such_module_anywhere")

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        camera = Camera("rgb", 4, 3, 4.0, 4.0, 2.0, 1.5)
        pose = np.eye(4)
        return Sequence(self.args.fps, "stand", (camera,), {"rgb": pose[None]}, {"rgb": pose}, {}, {})


class HalfWriter(BaseWriter[ComponentArgs]):
    """Forgets publish()."""

    def save_data(self, seq: Sequence, obs: Observation, episode: Episode) -> Piece:
        return Piece("half", 1, ())
