from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nimbusd.stages import CameraFrames, ComponentArgs, EpisodeRequest, Observation, Scene, SceneConfig, Sequence
from nimbusd.stages.base import BaseLoader, BasePlanner, BaseRenderer
from nimbusd.stages.errors import AssetError
from nimbusd.stages.load.mend import warned
from nimbusd.stages.runner import Components, run_stages
from nimbusd.stages.sight import check_cameras_inside, check_sight
from nimbusd.stages.types import F64
from tests.support import toy
from tests.support.nav_scenes import two_rooms
from tests.support.store_makers import make_scene, make_sequence


def observed(*shares: float, size: tuple[int, int] = (20, 30)) -> Observation:
    """Frames of which such shares of the pixels have a depth."""
    depth = np.zeros((len(shares), *size), np.float32)
    for frame, share in zip(depth, shares, strict=True):
        frame.flat[: round(share * frame.size)] = 1.5
    return Observation({"front": CameraFrames(np.zeros((*depth.shape, 3), np.uint8), depth)})


def standing(*points: tuple[float, float, float]) -> Sequence:
    seq = make_sequence(len(points))
    poses: F64 = np.tile(np.eye(4), (len(points), 1, 1))
    poses[:, :3, 3] = points
    return replace(seq, T_world_camera={"front": poses})


def test_an_episode_whose_frames_mostly_see_nothing_is_an_error_with_the_numbers() -> None:
    with pytest.raises(AssetError, match=r"scene 'room': 3 of 4 frames see nothing .*check --deep"):
        check_sight(make_scene(), observed(0, 0.01, 0.0, 0.9))


def test_frames_that_see_a_little_or_half_an_episode_of_sky_are_none() -> None:
    check_sight(make_scene(), observed(0.03, 0.05, 1.0))
    check_sight(make_scene(), observed(0, 0, 1.0, 1.0))
    no_depth = Observation({"front": CameraFrames(np.zeros((2, 4, 4, 3), np.uint8))})
    check_sight(make_scene(), no_depth)


def test_a_camera_outside_of_the_building_is_an_error_before_anything_is_rendered() -> None:
    scene = two_rooms().scene("house")
    inside, outside, below, above = (2, 2, 1), (12, 2, 1), (2, 2, -3), (2, 2, 9)
    with pytest.raises(
        AssetError, match=r"in 2 of 3 frames the camera is outside of it and looks past it, first at \(12.00, 2"
    ):
        check_cameras_inside(scene, standing(inside, outside, outside))
    with pytest.raises(AssetError, match="outside"):
        check_cameras_inside(scene, standing(below))
    check_cameras_inside(scene, standing(inside, inside, outside))
    check_cameras_inside(scene, standing(above))


def test_a_camera_that_looks_at_the_building_from_outside_is_meant_to() -> None:
    scene = two_rooms().scene("house")
    towards_x = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # columns: right, up, back
    for at, turn in [
        ((20, 2, 1), towards_x),
        ((-20, 2, 1), towards_x @ np.diag([-1.0, 1, -1])),
        ((2, 2, 30), np.eye(3)),
    ]:
        seq = standing(at, at)
        seq.T_world_camera["front"][:, :3, :3] = turn
        check_cameras_inside(scene, seq)
        seq.T_world_camera["front"][:, :3, :3] = turn @ np.diag([-1.0, 1, -1])
        if at[2] < 30:
            with pytest.raises(AssetError, match="looks past it"):
                check_cameras_inside(scene, seq)


def test_a_table_with_an_arm_is_looked_at_from_outside() -> None:
    board = make_scene().objects[1]
    check_cameras_inside(Scene("table", (board,)), standing((9, 9, 1)))
    check_cameras_inside(Scene("nothing", ()), standing((9, 9, 1)))


def test_what_is_doubtful_in_the_scene_is_said_as_the_likely_reason() -> None:
    scene = warned(make_scene(), ["the scene seems to lie on its side"])
    with pytest.raises(AssetError, match="found when it was loaded: the scene seems to lie on its side"):
        check_sight(scene, observed(0, 0))


class HouseLoader(BaseLoader[ComponentArgs, SceneConfig]):
    def load_asset(self, config: SceneConfig) -> Scene:
        return two_rooms().scene(config.name)


class Standing(BasePlanner[ComponentArgs]):
    at = (2.0, 2.0, 1.0)

    def gen_sequence(self, scene: Scene, rng: np.random.Generator) -> Sequence:
        return standing(self.at, self.at)


class Outside(Standing):
    at = (50.0, 2.0, 1.0)


class Blind(BaseRenderer[ComponentArgs]):
    rendered = 0

    def load(self, scene: Scene) -> None: ...

    def gen_obs(self, seq: Sequence) -> Observation:
        self.rendered += 1
        return observed(0, 0)


@pytest.mark.parametrize(("planner", "text", "rendered"), [(Standing, "see nothing", 1), (Outside, "outside of it", 0)])
def test_such_an_episode_fails_in_the_render_stage_as_the_scene_s_fault(
    tmp_path: Path, planner: type[Standing], text: str, rendered: int
) -> None:
    renderer = Blind(ComponentArgs())
    made = Components(
        HouseLoader(ComponentArgs()), None, planner(ComponentArgs()), renderer, toy.ToyWriter(ComponentArgs())
    )
    more: dict[str, Any] = {"job_seed": 1, "scene_config": lambda name: SceneConfig(name=name), "writers": 0}
    (episode,) = run_stages(made, [EpisodeRequest("j", "house", 0)], output=tmp_path, context={}, **more)
    assert episode.failure is not None
    assert (episode.failure.stage, episode.failure.reason) == ("render", "asset_error")
    assert text in episode.failure.detail
    assert renderer.rendered == rendered
