from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nimbusd.stages import ComponentArgs, Episode, EpisodeRequest, SceneConfig
from nimbusd.stages.base import BaseLoader
from nimbusd.stages.load.front3d.loader import BProc3DFrontLoader, Front3DArgs, Front3DConfig
from nimbusd.stages.load.mend import warned, warnings_of
from nimbusd.stages.load.mend.recentre import recentred
from nimbusd.stages.load.mesh.loader import BProcObjLoader, MeshArgs, MeshConfig
from nimbusd.stages.load.splats.loader import GSMeshArgs, GSMeshConfig, GSMeshLoader
from nimbusd.stages.runner import Components, plan_stages
from nimbusd.stages.types import Scene
from tests.stages.load.test_coincident import area, sheet
from tests.stages.load.test_inward import furniture, shell
from tests.support import toy
from tests.support.front3d_house import write_house
from tests.support.mesh_writers import write_gltf
from tests.support.nav_scenes import two_rooms


def load(path: Path) -> Scene:
    return BProcObjLoader(MeshArgs()).load_asset(MeshConfig(name="scene", path=path))


def test_a_mesh_file_with_a_floor_twice_and_all_faces_outwards_is_loaded_as_it_was_meant_and_says_so(
    tmp_path: Path,
) -> None:
    objects = [shell(outward=True), *furniture()]
    again = replace(objects[0], name="again", T_world_object=objects[0].T_world_object.copy())
    made = load(write_gltf(tmp_path / "twice.gltf", [*objects, again]))
    right = load(write_gltf(tmp_path / "right.gltf", [shell(outward=False), *furniture()]))
    assert warnings_of(right) == []
    assert [obj.name for obj in made.objects] == [obj.name for obj in right.objects]
    for one, other in zip(made.objects, right.objects, strict=True):
        np.testing.assert_array_equal(one.faces, other.faces)
    first, second = warnings_of(made)
    assert "lay in others at the same place" in first
    assert "face down" in second


def test_what_the_proxy_s_loader_said_is_told_of_the_splat_scene(tmp_path: Path) -> None:
    path = write_gltf(tmp_path / "twice.gltf", [*two_rooms().objects, sheet("again", (0, 4.05), (0, 4), 0.0)])
    assert warnings_of(load(path))
    scene = GSMeshLoader(GSMeshArgs(gaussians=2000)).load_asset(GSMeshConfig(name="room", proxy=path))
    assert warnings_of(scene) == warnings_of(load(path))
    assert "warnings" not in scene.provenance["proxy"]


def test_a_house_of_3d_front_in_which_a_surface_is_there_twice_has_it_once(tmp_path: Path) -> None:
    paths = write_house(tmp_path)
    config = Front3DConfig(name="house", house=paths.house, furniture=paths.furniture)
    once = BProc3DFrontLoader(Front3DArgs()).load_asset(config)
    assert warnings_of(once) == []
    house = json.loads(paths.house.read_text())
    floor = next(mesh for mesh in house["mesh"] if mesh["type"] == "Floor")
    house["mesh"].append({**floor, "uid": "again"})
    paths.house.write_text(json.dumps(house))
    twice = BProc3DFrontLoader(Front3DArgs()).load_asset(config)
    assert area(list(twice.objects)) == area(list(once.objects))
    assert "lay in others" in warnings_of(twice)[0]


def test_a_sentence_is_kept_once_and_a_scene_without_any_stays_as_it_is() -> None:
    scene = two_rooms().scene()
    assert warned(scene, []) is scene
    assert warnings_of(warned(warned(scene, ["a"]), ["b", "a"])) == ["a", "b"]


class Given(BaseLoader[ComponentArgs, SceneConfig]):
    """Hands over one scene."""

    scene = Scene("none", ())

    def load_asset(self, config: SceneConfig) -> Scene:
        return self.scene


def loaded(scene: Scene, output: Path) -> Episode:
    """Pass a loader's scene through the load stage."""
    loader = Given(ComponentArgs())
    loader.scene = scene
    made = Components(loader, None, toy.ToyPlanner(toy.ToyPlannerArgs()), None, None)
    (episode,) = plan_stages(
        made,
        [EpisodeRequest("j", "room", 0)],
        job_seed=1,
        scene_config=lambda name: SceneConfig(name=name),
        output=output,
        context={},
    )
    return episode


def test_what_a_loader_says_about_a_scene_stands_in_the_worker_s_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert loaded(warned(two_rooms().scene(), ["it lies on its side"]), tmp_path).failure is None
    assert [record.getMessage() for record in caplog.records] == ["scene 'room': it lies on its side"]


def test_a_scene_that_a_loader_leaves_far_away_fails_in_the_load_stage(tmp_path: Path) -> None:
    far = np.eye(4)
    far[:3, 3] = (447_312.0, 5_411_903.0, 0.0)
    scene = Scene("room", (replace(sheet(), T_world_object=far),))
    failure = loaded(scene, tmp_path).failure
    assert failure is not None
    assert (failure.stage, failure.reason) == ("load", "asset_error")
    assert loaded(recentred(scene), tmp_path).failure is None
